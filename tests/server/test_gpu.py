"""A running server on a GPU, in Triton's interpreter: the CPU's answers, and what is told where the GPU fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import support.triton_interpreter  # noqa: F401 (before a server imports triton in its own way)
from matchcut.kernels.cuda import opening, probe
from matchcut.kernels.cuda.errors import CudaAbsent, CudaError, DeviceLost, OutOfDeviceMemory
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.native.shared_library import Library, load
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.v1 import catalog_pb2, recommender_pb2
from support.interpreted import Interpreted
from support.wire import Wire

ITEMS = 10
ASKED: list[float] = np.random.default_rng(0).standard_normal(48).tolist()
FOUND = probe.Found(13000, (probe.Gpu(0, "a GPU", 90, 80 << 30, 132),))
Status = health_pb2.HealthCheckResponse


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Interpreted]:
    """A driver that sees a GPU, which is the interpreter; each time that it is opened."""
    opened: list[Interpreted] = []

    def made(_: int) -> Interpreted:
        opened.append(Interpreted())
        return opened[-1]

    monkeypatch.setattr(opening, "probe", lambda: FOUND)
    monkeypatch.setattr("matchcut.kernels.cuda.launcher.Context.open", made)
    return opened


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[tuple[App, Wire]]:
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield app, Wire(channel)


async def fill(wire: Wire, count: int = ITEMS) -> None:
    """Items of two segments each."""
    for at, vectors in enumerate(np.random.default_rng(1).standard_normal((count, 2, 48)).tolist()):
        await wire.vectors(f"i{at}", vectors, tags=[f"t{at % 3}"])


def told(reply: recommender_pb2.RecommendResponse) -> list[tuple[str, float, int]]:
    return [(one.item.item_id, one.score, one.item_range.start_us) for one in reply.matches]


async def answers(wire: Wire) -> list[recommender_pb2.RecommendResponse]:
    items = recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=["i3", "i4"]))
    return [
        await wire.ask(ASKED, limit=7),
        await wire.ask(ASKED, limit=100),
        await wire.ask(ASKED, limit=5, tags=catalog_pb2.TagFilter(all_of=["t1"])),
        await wire.ask(ASKED, limit=5, exclude_item_ids=["i1", "i2", "i3"]),
        await wire.ask(ASKED, limit=5, minimum_score=0.1),
        await wire.recommender.Recommend(recommender_pb2.RecommendRequest(query=items)),
    ]


async def health(app: App) -> list[int]:
    """The status of the server, and of a service."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", "matchcut.v1.Recommender")
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]


async def failing(call: Callable[[], Awaitable[object]]) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return Wire.told(caught.value)


async def test_answers_are_those_of_the_cpu(config: Config, gpus: list[Interpreted]) -> None:
    library = load()
    assert isinstance(library, Library)
    async with serving(replace(config, scan_from=16)) as (_, wire):
        await fill(wire)
        await wire.ranked_by(f"cpu-{library.best.name}", ASKED)
        wanted = await answers(wire)
        await wire.ingest("clip", [500, 501])
        clip = await wire.clip(500, 502, limit=5)
        await wire.catalog.RemoveItem(catalog_pb2.RemoveItemRequest(item_id="clip"))
    assert not gpus
    async with serving(replace(config, device="cuda", scan_from=16)) as (app, wire):
        stage = await wire.ranked_by("cuda-int8", ASKED)
        assert stage.counts["rows"] >= 2 * ITEMS
        assert stage.counts["rescored"] > 0
        given = await answers(wire)
        assert [told(one) for one in given] == [told(one) for one in wanted]
        assert {wire.stages(one)["rank"].variant for one in given} == {"cuda-int8"}
        assert await health(app) == [Status.SERVING] * 2
        # What is put in meanwhile is made there and ranked there; pooled by either, vectors differ in the last digit.
        await wire.ingest("clip", [500, 501])
        reply = await wire.clip(500, 502, limit=5)
        found = wire.stages(reply)
        assert (found["preprocess"].variant, found["pool"].variant) == ("cuda-90", "cuda-90")
        assert found["rank"].variant == "cuda-int8"
        assert [one[0] for one in told(reply)] == [one[0] for one in told(clip)]
        assert [one[1] for one in told(reply)] == pytest.approx([one[1] for one in told(clip)], abs=1e-5)
        assert told(reply)[0][0] == "clip"
    (context,) = gpus
    for name in ("preprocess_rgb_fp32", "pool_mean_512", "exact", "places"):
        assert context.only.launched[name], name
    assert context.closed


async def test_vectors_are_on_the_device_before_a_request_ranks_there(
    config: Config, gpus: list[Interpreted], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    prepare, answers = Cuda.prepare, Cuda._answers

    def prepared(self: Cuda, *arguments: object) -> None:
        prepare(self, *arguments)  # type: ignore[arg-type]
        order.append("prepared")

    def answered(self: Cuda, *arguments: object) -> object:
        order.append("searched")
        return answers(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Cuda, "prepare", prepared)
    monkeypatch.setattr(Cuda, "_answers", answered)
    async with serving(replace(config, device="cuda", scan_from=4)) as (_, wire):
        await fill(wire, 3)
        await wire.ranked_by("cuda-int8", ASKED)
    assert order[0] == "prepared"
    assert "searched" in order


async def test_a_device_that_is_lost(config: Config, gpus: list[Interpreted], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(replace(config, device="cuda", scan_from=4)) as (app, wire):
        await fill(wire, 3)
        await wire.ranked_by("cuda-int8", ASKED)
        async with grpc.aio.insecure_channel(app.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == Status.SERVING
            gpus[0].fails = DeviceLost("an illegal address")
            for _ in range(3):
                assert await failing(lambda: wire.ask(ASKED)) == ("UNAVAILABLE", "DEVICE_LOST", "")
            assert (await asyncio.wait_for(watch.read(), 10)).status == Status.NOT_SERVING
            watch.cancel()
        assert await health(app) == [Status.NOT_SERVING] * 2
        assert await failing(lambda: wire.ingest("new", [7])) == ("UNAVAILABLE", "DEVICE_LOST", "")
        listed = await wire.catalog.ListItems(catalog_pb2.ListItemsRequest())  # needs no device
        assert len(listed.items) == 3
    lost = [record for record in caplog.records if "is lost" in record.getMessage()]
    assert [record.levelname for record in lost] == ["ERROR"]
    assert lost[0].getMessage() == (
        "interpreter, compute capability 9.0 is lost, start the server again: an illegal address"
    )


async def test_a_device_that_refuses_something(config: Config, gpus: list[Interpreted]) -> None:
    told: dict[type[CudaError], tuple[str, str, str]] = {
        OutOfDeviceMemory: ("RESOURCE_EXHAUSTED", "DEVICE_MEMORY_FULL", ""),
        CudaError: ("INTERNAL", "DEVICE_FAILED", ""),
        CudaAbsent: ("INTERNAL", "DEVICE_FAILED", ""),
    }
    async with serving(replace(config, device="cuda", scan_from=4)) as (app, wire):
        await fill(wire, 3)
        await wire.ranked_by("cuda-int8", ASKED)
        for error, status in told.items():
            gpus[0].fails = error("no room")
            assert await failing(lambda: wire.ask(ASKED)) == status
            assert await failing(lambda: wire.clip(1)) == status
        assert await health(app) == [Status.SERVING] * 2
        gpus[0].fails = None
        assert wire.stages(await wire.ask(ASKED))["rank"].variant == "cuda-int8"


async def test_a_catalogue_that_does_not_fit_is_ranked_by_numpy(
    config: Config, gpus: list[Interpreted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OutOfDeviceMemory("900 bytes are not to be had")

    monkeypatch.setattr(Cuda, "prepare", full)
    async with serving(replace(config, device="cuda", scan_from=4)) as (_, wire):
        await fill(wire, 3)
        async with asyncio.timeout(20):
            while not [one for one in caplog.records if "could not be coded" in one.getMessage()]:
                await asyncio.sleep(0.01)
        assert wire.stages(await wire.ask(ASKED))["rank"].variant == "cpu-numpy"


# ---- which device, and what is said of it ----


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(one.levelname, one.getMessage()) for one in caplog.records if "computing on" in one.getMessage()]


async def test_auto_takes_the_gpu_and_says_so(
    config: Config, gpus: list[Interpreted], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "matchcut")
    async with serving(replace(config, device="auto")):
        assert len(gpus) == 1
    line = "computing on interpreter, compute capability 9.0, ranking by cuda-int8"
    assert said(caplog) == [("INFO", line)]


@pytest.mark.parametrize("odd", [False, True])
async def test_auto_takes_the_cpu_and_says_why(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, odd: bool
) -> None:
    caplog.set_level(logging.INFO, "matchcut")
    monkeypatch.setattr(opening, "probe", lambda: probe.Absent("there is no NVIDIA driver; install it"))
    monkeypatch.setattr(opening, "_has_driver", lambda: odd)
    async with serving(replace(config, device="auto", scan="numpy" if not odd else "auto")):
        pass
    ((level, line),) = said(caplog)
    assert level == ("WARNING" if odd else "INFO")
    assert line.startswith("computing on the CPU, ranking by cpu-")
    if odd:
        assert line.endswith("; not on a GPU: there is no NVIDIA driver; install it")


async def test_a_gpu_that_is_asked_for_and_not_there_stops_the_start(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "probe", lambda: probe.Absent("there is no NVIDIA driver; install it"))
    for asked, field in (({"device": "cuda"}, "device"), ({"device": "auto", "scan": "int8"}, "scan")):
        with pytest.raises(InvalidInput, match="no GPU can be used here: there is no NVIDIA driver") as caught:
            await App(replace(config, **asked)).__aenter__()  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.field) == ("INVALID_OPTION", field)
        assert caught.value.message.startswith(f"--{field} {asked[field]}: ")
