"""The server as a whole: health, reflection, limits, and a clean end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from matchcut.server.app import App
from matchcut.server.catalog import open_catalog
from matchcut.server.config import Config
from matchcut.server.errors import EngineFailed, InvalidInput, StoreFailed
from matchcut.v1 import catalog_pb2, catalog_pb2_grpc, events_pb2, events_pb2_grpc, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_checked_and_watched_through_the_end(config: Config) -> None:
    app = App(config)
    await app.__aenter__()
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "matchcut.v1.Catalog", "matchcut.v1.Recommender"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="matchcut.v1.Nothing"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        ending = asyncio.create_task(app.__aexit__())
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await ending


async def test_reflection_lists_the_services_and_their_files(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="matchcut.v1.Recommender"),
        ]
        listed, found = [reply async for reply in stub.ServerReflectionInfo(iter(requests))]
        names = {service.name for service in listed.list_services_response.service}
        assert {"matchcut.v1.Catalog", "matchcut.v1.Recommender", "grpc.health.v1.Health"} <= names
        assert any(b"RecommendLive" in one for one in found.file_descriptor_response.file_descriptor_proto)


async def test_calls_under_way_finish_within_the_grace_period(config: Config) -> None:
    app = App(replace(config, grace=10))
    await app.__aenter__()
    async with grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        stopping = asyncio.Event()

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            for chunk in wire.chunks(1, 2):
                yield chunk
                await stopping.wait()

        call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), frames())
        replies = aiter(call)
        assert (await anext(replies)).revision == 1
        ending = asyncio.create_task(app.__aexit__())
        await asyncio.sleep(0.05)
        stopping.set()
        rest = [one async for one in replies]
        assert rest[-1].final
        await ending


async def test_a_call_that_outlasts_the_grace_period_is_ended(config: Config) -> None:
    app = App(replace(config, grace=0.1))
    await app.__aenter__()
    async with grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        never = asyncio.Event()

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            yield wire.chunks(1)[0]
            await never.wait()

        call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), frames())
        replies = aiter(call)
        assert (await anext(replies)).revision == 1
        await asyncio.wait_for(app.__aexit__(), 10)
        with pytest.raises(grpc.aio.AioRpcError):
            await anext(replies)


async def test_a_taken_port_is_told(app: App, config: Config, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot listen on") as caught:
        await App(replace(config, listen=app.address, data=tmp_path / "other")).__aenter__()
    assert caught.value.reason == "ADDRESS_UNAVAILABLE"


@pytest.mark.parametrize("listen", ["7411", "localhost:http", ":"])
async def test_an_address_must_be_host_and_port(config: Config, listen: str) -> None:
    with pytest.raises(InvalidInput, match="is not HOST:PORT"):
        await App(replace(config, listen=listen)).__aenter__()


async def test_a_missing_encoder_is_told(config: Config, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"none\.onnx"):
        await App(replace(config, encoder=tmp_path / "none.onnx")).__aenter__()


async def test_one_catalogue_folder_one_server(app: App, config: Config) -> None:
    with pytest.raises(StoreFailed):
        await App(config).__aenter__()


async def test_messages_and_metadata_have_a_largest_size(config: Config) -> None:
    async with (
        App(replace(config, max_message=1 << 20, max_metadata=1 << 10)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        wire = Wire(channel)
        chunks = [media_pb2.MediaChunk(data=bytes(1 << 20))]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(clip=pb.ClipQuery(chunks=chunks))))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.recommender.Recommend(pb.RecommendRequest(), metadata=[("x-long", "x" * 4096)])
        assert (await wire.clip(1)).final


async def test_as_many_connections_as_may_be_and_no_more(config: Config) -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]

    async def asks(channel: grpc.aio.Channel) -> str:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    async with App(replace(config, max_connections=2)) as app:
        channels = [grpc.aio.insecure_channel(app.address, options=own) for _ in range(3)]
        assert [await asks(channel) for channel in channels] == ["OK", "OK", "UNAVAILABLE"]
        await channels[0].close()
        async with asyncio.timeout(30):
            while True:  # until the server has seen it go
                late = grpc.aio.insecure_channel(app.address, options=own)
                told = await asks(late)
                await late.close()
                if told == "OK":
                    break
        for channel in channels[1:]:
            await channel.close()


@contextmanager
def served(config: Config, *, changed: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address; changed: Python that is run in it first."""
    program = f"{changed}\nimport sys\nfrom matchcut.server.__main__ import main\nsys.exit(main(['serve']))"
    command = [sys.executable, "-c", program]
    options = {name: str(getattr(config, name)) for name in ("listen", "data", "cache", "encoder", "engine", "grace")}
    environment = {**os.environ, **{f"MATCHCUT_{name.upper()}": value for name, value in options.items()}}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "serving on " in line:
                    yield process, line.split("serving on ")[1].strip()
                    break
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_0(config: Config, number: signal.Signals) -> None:
    with served(config) as (process, address):
        with grpc.insecure_channel(address) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
        assert status == SERVING
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert log.rstrip().endswith("stopped")
        assert "Traceback" not in log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_during_the_start_ends_it_at_once(config: Config, number: signal.Signals, code: int) -> None:
    """Not only once an encoder has been loaded, or a GPU's kernels compiled."""
    program = """
import sys, time
from matchcut.server import models
from matchcut.server.__main__ import main
def load(path):
    print("loading", flush=True)
    time.sleep(600)
models.load = load
sys.exit(main(["serve"]))
"""
    environment = {**os.environ, "MATCHCUT_LISTEN": config.listen, "MATCHCUT_DATA": str(config.data)}
    environment["MATCHCUT_ENCODER"] = str(config.encoder)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            process.send_signal(number)
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert "Traceback" not in log


WAITS_FOR_EVER = {
    "calls": """
import asyncio
from matchcut.server.service.calls import Calls
Calls.close = lambda self: asyncio.Event().wait()
""",
    "catalogue": """
import threading
from matchcut.server.catalog.local import LocalCatalog
LocalCatalog.close = lambda self: threading.Event().wait()
""",
    "log": """
import logging, threading
from matchcut.server.catalog.local import LocalCatalog
LocalCatalog.close = lambda self: threading.Event().wait()
logging.shutdown = logging.getLogger("matchcut").warning = lambda *words: threading.Event().wait()
""",
}


@pytest.mark.parametrize("what", WAITS_FOR_EVER)
def test_after_the_grace_period_nothing_is_waited_for(config: Config, what: str) -> None:
    """Neither a thread that does not end, nor a file, nor a log that nobody reads; what was acknowledged is kept."""
    segment = catalog_pb2.Segment(vector=[1.0] * 48)
    request = catalog_pb2.IngestVectorsRequest(item=catalog_pb2.Item(item_id="kept"), segments=[segment])
    with served(replace(config, grace=0.1), changed=WAITS_FOR_EVER[what]) as (process, address):
        with grpc.insecure_channel(address) as channel:
            stub: Any = catalog_pb2_grpc.CatalogStub(channel)  # type: ignore[no-untyped-call]
            stub.IngestVectors(request)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert not log.rstrip().endswith("stopped")
        assert ("in the midst of work" in log) == (what != "log")
    with closing(open_catalog(config.data)) as catalog:
        assert catalog.known("", "kept") is not None


def test_a_killed_server_leaves_a_catalogue_that_opens(config: Config) -> None:
    with served(config) as (process, _):
        process.kill()
        process.wait(timeout=20)
    with served(config) as (process, _):
        assert process.poll() is None


async def test_what_cannot_be_kept_is_not_acknowledged(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """The data folder is deleted under the server: neither what is new nor what was there is said to be kept."""
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, health = Wire(channel), health_pb2_grpc.HealthStub(channel)
        events: Any = events_pb2_grpc.EventsStub(channel)  # type: ignore[no-untyped-call]
        event = events_pb2.Event(event_id="1", user_id="ann", item_id="item", kind="EVENT_KIND_LIKE")
        record = events_pb2.RecordEventsRequest(events=[event])
        await wire.ingest("item", [1])
        await events.RecordEvents(record)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        shutil.rmtree(config.data)
        for call in (wire.ingest("item", [1]), wire.ingest("new", [2]), events.RecordEvents(record)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert Wire.told(caught.value)[:2] == ("UNAVAILABLE", "STORE_GONE")
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        assert (await wire.clip(1)).matches[0].item.item_id == "item", "what is in memory still answers"
    told = [record.getMessage() for record in caplog.records if "nothing is kept any more" in record.getMessage()]
    assert sorted(Path(line.split("'")[1]).name for line in told) == ["catalog.sqlite", "events.sqlite"]


@pytest.mark.parametrize("vectors", ["file", "memory"])
async def test_vectors_are_where_the_option_says(vectors: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.catalog.filed._LEAST", 1)
    async with (
        App(replace(config, vectors=vectors)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        wire = Wire(channel)
        await wire.ingest("item", [1])
        assert (await wire.clip(1)).matches[0].item.item_id == "item"
        open_files = [Path(f"/proc/self/fd/{number}").resolve() for number in os.listdir("/proc/self/fd")]
        nameless = [file for file in open_files if file.parent == config.data and file.name.endswith("(deleted)")]
        assert len(nameless) == (vectors == "file")
