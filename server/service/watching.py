"""Tells metrics and traces of every request: when it begins, what is done for it, how it ends.

An interceptor sees a request begin and end, whatever becomes of it; Calls tells what is done for it in between. The two
meet in a context variable, since each call has a task of its own. Without metrics and traces there is no interceptor,
and nothing is done here.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from matchcut.server.clock import Clock
from matchcut.server.job import Job
from matchcut.server.records import StageTimes
from matchcut.server.tracing import Recorder, Trace, Tracer

if TYPE_CHECKING:
    from matchcut.server.metrics import Metrics, RequestMetrics

__all__ = ["Watch", "Work", "clock", "interceptors", "work"]

T = TypeVar("T")
SILENT = "/grpc."  # health checks and reflection: whoever watches is not watched
CODES: dict[Any, str] = {None: "OK"} | {key: code.name for code in grpc.StatusCode for key in (code, code.value[0])}
EARLY = 0.05  # seconds; the caller watches its deadline itself, and its clock may be before ours
MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {  # by whether requests and replies are streams
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Request:
    """A request under way. Either of metrics and trace may be None."""

    def __init__(self, rpc: str, metrics: RequestMetrics | None, trace: Trace | None) -> None:
        self.rpc = rpc
        self.metrics = metrics
        self.trace = trace
        self._began = time.perf_counter()
        if metrics is not None:
            metrics.began(rpc)

    def end(self, code: str, details: str) -> None:
        """It has ended, with the status of that name."""
        if self.metrics is not None:
            self.metrics.ended(self.rpc, code, time.perf_counter() - self._began)
        if self.trace is not None:
            self.trace.end(code, details)


UNDER_WAY: ContextVar[Request | None] = ContextVar("matchcut_request", default=None)


class Watch(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sees requests begin and end, those that later interceptors refuse among them."""

    def __init__(self, metrics: RequestMetrics | None, tracer: Tracer | None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._made: dict[str, tuple[Any, Any]] = {}  # by method, the last handler and what watches it

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(SILENT):
            return handler
        known, watched = self._made.get(details.method, (None, None))
        if known is not handler:
            watched = self._watched(handler, details.method.removeprefix("/"))
            self._made[details.method] = handler, watched
        return watched

    def _watched(self, handler: Any, rpc: str) -> Any:
        """The same handler, seen."""
        streams = handler.request_streaming, handler.response_streaming
        of = {True: "stream", False: "unary"}
        behaviour = getattr(handler, f"{of[streams[0]]}_{of[streams[1]]}")

        async def reply(request: Any, context: Any) -> Any:
            with self._seen(rpc, context):
                return await behaviour(request, context)

        async def replies(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._seen(rpc, context):
                async for one in behaviour(request, context):
                    yield one

        # One that writes its replies instead of yielding them is awaited like one with a single reply.
        seen = replies if inspect.isasyncgenfunction(behaviour) else reply
        return MAKERS[streams](seen, handler.request_deserializer, handler.response_serializer)

    @contextmanager
    def _seen(self, rpc: str, context: Any) -> Iterator[None]:
        trace = None
        if self._tracer is not None:
            headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            trace = self._tracer.begin(rpc, headers)
        request = Request(rpc, self._metrics, trace)
        UNDER_WAY.set(request)
        code = "UNKNOWN"  # what gRPC tells of an error that no handler has foreseen
        try:
            yield
            code = told(context)
        except (asyncio.CancelledError, GeneratorExit):
            code = gone(context)
            raise
        finally:
            request.end(code, context.details() or "")


def interceptors(metrics: Metrics | None, tracer: Tracer | None) -> list[Watch]:
    """The one that watches for them; none where there is neither. To be the first of a server's."""
    if metrics is None and tracer is None:
        return []
    return [Watch(None if metrics is None else metrics.requests, tracer)]


class Work:
    """What is done for one request, in one of its calls of Calls.each(); nothing is told where nobody watches.

    Args:
        request: None where nobody watches.
        kind: of the place that it takes, "media" or "quick".
    """

    def __init__(self, request: Request | None, kind: str) -> None:
        self._request = request
        self._kind = kind
        self._told_us: dict[str, int] = {}  # of each stage
        self._dropped = 0

    def refused(self) -> None:
        """There was no place."""
        if self._request is not None and self._request.metrics is not None:
            self._request.metrics.refused(self._kind)

    def taken(self, places: int) -> None:
        """So many places of the kind are taken now."""
        if self._request is not None and self._request.metrics is not None:
            self._request.metrics.taken(self._kind, places)

    def replied(self, job: Job) -> None:
        """A reply was made, for which each stage took what it has taken since the reply before; no thread works."""
        if self._request is None or self._request.metrics is None:
            return
        metrics, rpc = self._request.metrics, self._request.rpc
        for stage in job.clock.times().stages:
            before = self._told_us.get(stage.name)
            if before is None or stage.wall_us > before:
                metrics.stage(rpc, stage.name, (stage.wall_us - (before or 0)) / 1e6)
                self._told_us[stage.name] = stage.wall_us
        dropped = job.dropped()
        if dropped > self._dropped:
            metrics.frames_dropped(rpc, dropped - self._dropped)
            self._dropped = dropped

    def over(self, job: Job) -> None:
        """The work has ended, well or not, and so has its thread's part in it."""
        self.replied(job)
        if self._request is not None and self._request.trace is not None:
            self._request.trace.stages(job.clock)


NOBODY = Work(None, "")


def work(kind: str) -> Work:
    """For the request that the current task handles."""
    request = UNDER_WAY.get()
    return NOBODY if request is None else Work(request, kind)


class Untold(Clock):
    """A clock that nobody looks at, and so one that does nothing."""

    def __init__(self) -> None:
        pass

    def __call__(self, stage: str) -> nullcontext[None]:  # type: ignore[override]
        """See Clock."""
        return NOTHING

    def over(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """See Clock."""
        yield from items

    def move(self, wall_ns: int, stage: str, to: str) -> None:
        """See Clock."""

    def note(self, stage: str, *, variant: str = "", **counts: int) -> None:
        """See Clock."""

    def times(self) -> StageTimes:
        """See Clock; there are none."""
        return StageTimes((), 0)


NOTHING = nullcontext()


def clock(*, told: bool = True) -> Clock:
    """A clock for the request that the current task handles; one that remembers more where somebody will see that.

    Args:
        told: whether the reply tells the times; if not, they are only counted where somebody watches.
    """
    request = UNDER_WAY.get()
    if request is None and not told:
        return Untold()
    recording = request is not None and request.trace is not None and request.trace.recording
    return Recorder() if recording else Clock()


def told(context: Any) -> str:
    """The name of the status of a call whose handler has returned."""
    return gone(context) if context.cancelled() else CODES.get(context.code(), "UNKNOWN")


def gone(context: Any) -> str:
    """The same of one that was ended from outside: by its deadline, its caller or the server's end."""
    left = context.time_remaining()
    return "DEADLINE_EXCEEDED" if left is not None and left <= EARLY else "CANCELLED"
