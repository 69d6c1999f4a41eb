"""Spans of requests: whose trace they belong to, what they say, and that no collector can harm a server."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from matchcut.server import config as options
from matchcut.server import tracing
from matchcut.server.app import App
from matchcut.server.clock import Clock
from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.tracing import Recorder, Tracer
from matchcut.v1 import catalog_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

RECOMMEND, LIVE = "matchcut.v1.Recommender/Recommend", "matchcut.v1.Recommender/RecommendLive"
SLACK = 500_000_000  # ns: of two clocks that are read one after the other, on a machine under load
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Keeps the spans instead of sending them; all are there once the server has stopped."""
    kept = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "exporter", lambda _: kept)
    return kept


@pytest.fixture
def traced(config: Config) -> Config:
    return replace(config, otel_endpoint="http://127.0.0.1:4318")


def of_rpc(sent: InMemorySpanExporter, rpc: str) -> list[ReadableSpan]:
    return [span for span in sent.get_finished_spans() if span.name == rpc]


def below(sent: InMemorySpanExporter, parent: ReadableSpan) -> dict[str, ReadableSpan]:
    """The spans of a request's stages by name."""
    spans = [span for span in sent.get_finished_spans() if span.parent and span.parent.span_id == id_of(parent)]
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def reach(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


async def test_a_request_goes_on_with_its_callers_trace(traced: Config, sent: InMemorySpanExporter) -> None:
    before = time.time_ns()
    async with App(traced) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        await wire.ingest("a", [1])
        query = pb.Query(clip=pb.ClipQuery(media=wire.frame_header(), chunks=wire.chunks(1, 2)))
        reply = await wire.recommender.Recommend(
            pb.RecommendRequest(query=query), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")]
        )
    (request,) = of_rpc(sent, RECOMMEND)
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
    assert dict(request.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": RECOMMEND,
        "rpc.response.status_code": "OK",
    }
    assert request.status.status_code is StatusCode.UNSET
    assert request.resource.attributes["service.name"] == "matchcut"
    stages, told = below(sent, request), Wire.stages(reply)
    assert stages.keys() == told.keys() >= {"decode", "preprocess", "queue", "encode", "segment", "pool", "rank"}
    first, last = reach(request)
    assert before <= first <= last <= time.time_ns()
    for name, span in stages.items():
        attributes = dict(span.attributes or {})
        assert attributes.pop("matchcut.stage.wall_us") == told[name].wall_us
        assert attributes.pop("matchcut.stage.cpu_us") == told[name].cpu_us
        assert attributes.pop("matchcut.stage.variant", "") == told[name].variant
        assert attributes == {f"matchcut.stage.{what}": count for what, count in told[name].counts.items()}
        began, ended = reach(span)
        assert first - SLACK <= began <= ended <= last + SLACK
    assert reach(stages["decode"])[0] <= reach(stages["encode"])[0] < reach(stages["rank"])[0]
    assert reach(stages["encode"])[0] == reach(stages["queue"])[0]


@pytest.mark.parametrize(
    "header", ["", "00", "00-" + "0" * 32 + f"-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", "x" * 4000]
)
async def test_a_header_that_is_none_begins_a_trace(traced: Config, sent: InMemorySpanExporter, header: str) -> None:
    async with App(traced) as app, grpc.aio.insecure_channel(app.address) as channel:
        metadata = [("traceparent", header), ("tracestate", "=,=" * 500), ("more-bin", b"\xff\0")]
        await Wire(channel).catalog.ListItems(catalog_pb2.ListItemsRequest(), metadata=metadata)
    (request,) = of_rpc(sent, "matchcut.v1.Catalog/ListItems")
    assert request.parent is None
    assert below(sent, request).keys() == {"store"}


async def test_what_the_caller_does_not_sample_costs_nothing(
    traced: Config, sent: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[Clock] = []
    made = Clock.__init__

    def init(self: Clock) -> None:
        made(self)
        clocks.append(self)

    monkeypatch.setattr(Clock, "__init__", init)
    async with App(traced) as app, grpc.aio.insecure_channel(app.address) as channel:
        for flags in ("00", "01"):
            await Wire(channel).catalog.ListItems(
                catalog_pb2.ListItemsRequest(), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-{flags}")]
            )
    assert [type(clock) for clock in clocks] == [Clock, Recorder]
    assert len(of_rpc(sent, "matchcut.v1.Catalog/ListItems")) == 1


async def test_failures_say_whose_they_are(
    traced: Config, sent: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with App(traced) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="none"))

        def broken(*_: object) -> Any:
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr("matchcut.server.service.requests.tenant", broken)
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.ask([1.0] * 48)
    (theirs,), (ours,) = of_rpc(sent, "matchcut.v1.Catalog/GetItem"), of_rpc(sent, RECOMMEND)
    assert (theirs.attributes or {})["error.type"] == "NOT_FOUND"
    assert theirs.status.status_code is StatusCode.UNSET
    assert (ours.attributes or {})["rpc.response.status_code"] == "INTERNAL"
    assert ours.status.status_code is StatusCode.ERROR
    assert "unexpected error" in (ours.status.description or "")


async def test_a_stream_that_is_left_is_told(traced: Config, sent: InMemorySpanExporter) -> None:
    async with App(traced) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)

        async def camera() -> AsyncIterator[media_pb2.MediaChunk]:
            yield wire.chunks(1)[0]
            await asyncio.Event().wait()

        header = pb.RecommendLiveHeader(media=wire.frame_header(), options=pb.RankOptions(frames_per_update=1))
        call = wire.live(header, camera())
        await anext(aiter(call))
        call.cancel()
    (request,) = of_rpc(sent, LIVE)
    assert (request.attributes or {})["rpc.response.status_code"] == "CANCELLED"
    assert {"encode", "rank"} <= below(sent, request).keys()


def test_a_recorder_is_a_clock_that_knows_when() -> None:
    began = time.time_ns()
    clock = Recorder()
    with clock("decode"), clock("encode"):
        pass
    clock.move(0, "encode", "queue")
    items = list(clock.over("decode", "ab"))
    with pytest.raises(ZeroDivisionError), clock("rank"):
        _ = 1 / 0
    assert items == ["a", "b"]
    assert [stage.name for stage in clock.times().stages] == ["decode", "queue", "encode", "rank"]
    reaches = clock.reaches()
    assert reaches.keys() == {"decode", "queue", "encode", "rank"}
    assert reaches["queue"] == (reaches["encode"][0], reaches["encode"][0])
    assert reaches["decode"][0] <= reaches["encode"][0] <= reaches["encode"][1] <= reaches["decode"][1]
    assert began - SLACK <= reaches["decode"][0] <= reaches["rank"][1] <= time.time_ns() + SLACK


class Collector(HTTPServer):
    """Takes spans on a port of this machine."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str | None, ExportTraceServiceRequest]] = []
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append((self.path, self.headers["x-key"], ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/behind/a/proxy"])
def test_spans_arrive_where_the_option_says(collector: Collector, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "videos")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    tracer = Tracer(f"http://127.0.0.1:{collector.server_port}{path}", grace=30)
    tracer.begin("a.B/C", {}).end("OK", "")
    tracer.close()
    ((where, key, request),) = collector.taken
    assert where == f"{path.removesuffix('/').removesuffix('/v1/traces')}/v1/traces"
    assert key == "secret"
    (resource,) = request.resource_spans
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "videos"
    assert named["service.version"]
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["a.B/C"]


def test_a_collector_that_does_not_answer_holds_up_no_stop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds that it is tried for, in the background
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = Tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", grace=0.05)
        tracer.begin("a.B/C", {}).end("OK", "")
        with caplog.at_level(logging.WARNING, "matchcut"):
            tracer.close()
        assert "the last spans could not be sent within 0.05 s" in caplog.text
        ending = [thread for thread in threading.enumerate() if thread.name == "matchcut-tracing-end"]
        assert ending, "it waited to the end"
        silent.accept()[0].close()
    for thread in ending:
        thread.join(30)


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:4318", "grpc://host:4317", "http://", "http://host:port", "http://h:0"]
)
async def test_an_endpoint_must_be_one(config: Config, endpoint: str) -> None:
    with pytest.raises(InvalidInput, match="is not an address such as") as caught:
        await App(replace(config, otel_endpoint=endpoint)).__aenter__()
    assert (caught.value.reason, caught.value.field) == ("INVALID_OPTION", "otel_endpoint")


async def test_without_the_extra_the_start_says_what_to_install(
    traced: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidInput, match=r"pip install 'matchcut\[otel\]'") as caught:
        await App(traced).__aenter__()
    assert caught.value.reason == "OTEL_MISSING"


def test_the_standard_variable_counts_where_no_option_is_set(tmp_path: Path) -> None:
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:4318"}
    assert options.load({}, {}).otel_endpoint == ""
    assert options.load({}, standard).otel_endpoint == "http://standard:4318"
    assert options.load({"otel_endpoint": ""}, standard).otel_endpoint == ""
    ours = standard | {"MATCHCUT_OTEL_ENDPOINT": "http://ours:4318"}
    assert options.load({}, ours).otel_endpoint == "http://ours:4318"
    file = tmp_path / "matchcut.toml"
    file.write_text('otel_endpoint = "http://file:4318"\n')
    assert options.load({"config": str(file)}, standard).otel_endpoint == "http://file:4318"
