"""Spans of requests for OpenTelemetry: one for each request, and below it one for each stage.

Needs the extra `otel`, and is off unless --otel-endpoint, or the standard OTEL_EXPORTER_OTLP_ENDPOINT, names where to
send them. They are sent by OTLP over HTTP, the protocol's default, so that the server's own gRPC is left alone. A
request's span goes on with the trace of a caller who sends `traceparent` in its metadata
(https://www.w3.org/TR/trace-context/); names and attributes follow the conventions for gRPC
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/). What is sampled, under which service name, with which headers:
the other standard variables of OpenTelemetry decide.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from matchcut.server.clock import Clock
from matchcut.server.errors import InvalidInput

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

__all__ = ["Recorder", "Trace", "Tracer"]

PATH = "v1/traces"  # below an endpoint: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}  # the server's own
log = logging.getLogger("matchcut")


class Recorder(Clock):
    """A Clock that also remembers when each stage began first and ended last."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()
        self._reaches: dict[str, tuple[int, int]] = {}
        self._latest: dict[str, int] = {}  # when the last block of each stage began

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """See Clock."""
        began = time.perf_counter_ns()
        try:
            with super().__call__(stage):
                yield
        finally:
            self._latest[stage] = began
            self._reach(stage, began, time.perf_counter_ns())

    def move(self, wall_ns: int, stage: str, to: str) -> None:
        """See Clock. The other stage's time is taken to be the beginning of the block that ended last."""
        super().move(wall_ns, stage, to)
        began = self._latest[stage]
        self._reach(to, began, began + wall_ns)

    def reaches(self) -> dict[str, tuple[int, int]]:
        """By stage, when it began first and when it ended last, in nanoseconds since 1970."""
        return {
            stage: (first + self._epoch_ns, last + self._epoch_ns) for stage, (first, last) in self._reaches.items()
        }

    def _reach(self, stage: str, began: int, ended: int) -> None:
        first, last = self._reaches.get(stage, (began, ended))
        self._reaches[stage] = min(first, began), max(last, ended)


class Tracer:
    """Begins the spans of requests and sends those that ended, until it is closed.

    Args:
        endpoint: where to, for example "http://127.0.0.1:4318"; "/v1/traces" is added where it does not end so.
        grace: seconds that close() waits at most for the last spans to be taken.

    Raises:
        InvalidInput: the endpoint is no address of HTTP, or the extra `otel` is not installed.
    """

    def __init__(self, endpoint: str, *, grace: float) -> None:
        self._grace = grace
        self._provider = provider(exporter(endpoint))
        self._tracer = self._provider.get_tracer("matchcut", metadata.version("matchcut"))

    def begin(self, rpc: str, headers: Mapping[str, str]) -> Trace:
        """Begins a request's span.

        Args:
            rpc: "package.Service/Method".
            headers: the call's metadata as far as it is text.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract(headers, Context())
        attributes = {"rpc.system.name": "grpc", "rpc.method": rpc}
        return Trace(self._tracer.start_span(rpc, caller, SpanKind.SERVER, attributes), self)

    def stage(self, parent: Span, name: str, reach: tuple[int, int], attributes: Mapping[str, str | int]) -> None:
        """A span below another, from its beginning to its end."""
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        below = set_span_in_context(parent, Context())
        self._tracer.start_span(name, below, attributes=dict(attributes), start_time=reach[0]).end(reach[1])

    def close(self) -> None:
        """Sends what has not been sent yet; gives it up where that takes too long."""
        # Sending tries again and again for as long as it likes, and takes no time limit for that.
        ending = threading.Thread(target=self._provider.shutdown, name="matchcut-tracing-end", daemon=True)
        ending.start()
        ending.join(self._grace)
        if ending.is_alive():
            log.warning("the last spans could not be sent within %g s; is --otel-endpoint right?", self._grace)


class Trace:
    """The span of one request.

    recording: whether anybody will see it; where nobody does, its stages need no Recorder.
    """

    def __init__(self, span: Span, tracer: Tracer) -> None:
        self._span = span
        self._tracer = tracer
        self.recording = span.is_recording()

    def stages(self, clock: Clock) -> None:
        """A span for each stage that a Recorder saw; it may come after the end.

        A span reaches from where the stage first began to where it last ended. Stages take turns, frame after frame,
        so these overlap; what a stage used itself is in its attributes, as it is in the reply.
        """
        if not isinstance(clock, Recorder):
            return
        reaches = clock.reaches()
        for stage in clock.times().stages:
            if stage.name not in reaches:
                continue
            attributes: dict[str, str | int] = {
                f"matchcut.stage.{name}": count
                for name, count in (*stage.counts.items(), ("wall_us", stage.wall_us), ("cpu_us", stage.cpu_us))
            }
            if stage.variant:
                attributes["matchcut.stage.variant"] = stage.variant
            self._tracer.stage(self._span, stage.name, reaches[stage.name], attributes)

    def end(self, code: str, details: str) -> None:
        """The request has ended.

        Args:
            code: the name of its gRPC status. details: what that says.
        """
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            self._span.set_attribute("error.type", code)
        if code in FAULTS:
            self._span.set_status(Status(StatusCode.ERROR, details or None))
        self._span.end()


def exporter(endpoint: str) -> SpanExporter:
    """What sends spans there; see Tracer."""
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InvalidInput(
            f"--otel-endpoint {endpoint!r} is not an address such as http://127.0.0.1:4318",
            reason="INVALID_OPTION",
            field="otel_endpoint",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise InvalidInput(
            "spans need what the extra `otel` installs: pip install 'matchcut[otel]'; without it, leave out "
            "--otel-endpoint and OTEL_EXPORTER_OTLP_ENDPOINT",
            reason="OTEL_MISSING",
            field="otel_endpoint",
        ) from error
    base = endpoint.rstrip("/")
    return OTLPSpanExporter(base if base.endswith(f"/{PATH}") else f"{base}/{PATH}")


def provider(sending: SpanExporter) -> TracerProvider:
    """What makes spans and sends them in batches, from a thread of its own."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource({"service.name": "matchcut", "service.version": metadata.version("matchcut")})
    named = ours.merge(OTELResourceDetector().detect())  # the operator's words go first
    made = TracerProvider(resource=Resource.create(dict(named.attributes)), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(sending))
    return made
