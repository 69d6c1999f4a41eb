"""What a server tells Prometheus of its requests, however they end."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from matchcut.inference import grpc_service_pb2 as oip_pb
from matchcut.inference import grpc_service_pb2_grpc as oip_grpc
from matchcut.server.app import App
from matchcut.server.catalog import Sizes
from matchcut.server.config import Config
from matchcut.server.job import Job
from matchcut.server.metrics import Metrics, RequestMetrics
from matchcut.server.service import watching
from matchcut.v1 import catalog_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

RECOMMEND, LIVE = "matchcut.v1.Recommender/Recommend", "matchcut.v1.Recommender/RecommendLive"
Found = Mapping[tuple[str, ...], float]


def scraped(address: str) -> Found:
    """{(name, its labels' values in the order of their names): value}, without what tells when a series began."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as reply:
        text = str(reply.read(), "utf-8")
    return {
        (sample.name.removeprefix("matchcut_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def until(address: str, holds: Callable[[Found], bool]) -> Found:
    """What the server tells once that holds: a call's last figures come right after its reply."""
    async with asyncio.timeout(30):
        while not holds(found := await asyncio.to_thread(scraped, address)):
            await asyncio.sleep(0.01)
    return found


class Watched:
    """A server with metrics, and a caller of it."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.metrics = app.metrics
        self.channel = channel
        self.wire = Wire(channel)

    async def until(self, holds: Callable[[Found], bool]) -> Found:
        return await until(self.metrics, holds)


@pytest.fixture
async def watched(config: Config) -> AsyncIterator[Watched]:
    """With one place for media."""
    async with (
        App(replace(config, metrics="127.0.0.1:0", max_media_requests=1)) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        yield Watched(app, channel)


async def frames(wire: Wire, count: int, then: asyncio.Event | None = None) -> AsyncIterator[media_pb2.MediaChunk]:
    """So many frames, and then nothing until the event."""
    for chunk in wire.chunks(*range(count)):
        yield chunk
    if then is not None:
        await then.wait()


async def test_requests_and_their_stages_are_counted(watched: Watched) -> None:
    await watched.wire.ingest("a", [1, 2])
    answers = [await watched.wire.clip(1, 2, 3) for _ in range(2)]
    found = await watched.until(lambda found: found.get(("stage_seconds_count", RECOMMEND, "rank")) == 2)
    assert found["requests_total", "OK", RECOMMEND] == 2
    assert found["requests_total", "OK", "matchcut.v1.Catalog/Ingest"] == 1
    assert found["request_seconds_count", RECOMMEND] == 2
    assert found["requests_under_way", RECOMMEND] == 0
    assert found["stage_seconds_count", "matchcut.v1.Catalog/Ingest", "store"] == 1
    total = 0.0
    for name in ("decode", "preprocess", "queue", "encode", "segment", "pool", "rank"):
        told = sum(Wire.stages(answer)[name].wall_us for answer in answers) / 1e6
        assert found["stage_seconds_sum", RECOMMEND, name] == pytest.approx(told, abs=0.005), name
        assert found["stage_seconds_count", RECOMMEND, name] == 2
        total += found["stage_seconds_sum", RECOMMEND, name]
    assert found["request_seconds_sum", RECOMMEND] >= total - 0.001
    assert found["places", "media"] == 1
    assert found["places_taken", "media"] == found["places_taken", "quick"] == 0
    assert found["requests_refused_total", "media"] == 0
    assert found["start_time_seconds",] > 1.7e9


async def test_failures_are_counted_by_their_status(watched: Watched) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.wire.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.wire.recommender.Recommend(pb.RecommendRequest())
    chunks = [media_pb2.MediaChunk(data=b"no media at all")]
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(clip=pb.ClipQuery(chunks=chunks))))
    found = await watched.until(lambda found: ("stage_seconds_count", RECOMMEND, "decode") in found)
    assert found["requests_total", "NOT_FOUND", "matchcut.v1.Catalog/GetItem"] == 1
    assert found["requests_total", "INVALID_ARGUMENT", RECOMMEND] == 2
    assert found["request_seconds_count", RECOMMEND] == 2
    assert found["stage_seconds_count", RECOMMEND, "decode"] == 1
    assert ("requests_total", "OK", RECOMMEND) not in found


async def test_what_no_handler_has_foreseen_is_internal(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("matchcut.server.service.requests.tenant", broken)
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.wire.ask([1.0] * 48)
    found = await watched.until(lambda found: ("requests_total", "INTERNAL", RECOMMEND) in found)
    assert found["requests_under_way", RECOMMEND] == 0


async def test_a_stream_counts_each_of_its_replies(watched: Watched) -> None:
    header = pb.RecommendLiveHeader(media=watched.wire.frame_header(), options=pb.RankOptions(frames_per_update=1))
    await watched.wire.ingest("a", [1])
    replies = [reply async for reply in watched.wire.live(header, frames(watched.wire, 3))]
    assert len(replies) == 4
    found = await watched.until(lambda found: found.get(("stage_seconds_count", LIVE, "rank")) == 4)
    told = Wire.stages(replies[-1])["rank"].wall_us / 1e6
    assert found["stage_seconds_sum", LIVE, "rank"] == pytest.approx(told, abs=0.005)
    assert found["requests_total", "OK", LIVE] == 1


async def test_what_is_under_way_and_what_finds_no_place(watched: Watched) -> None:
    header = pb.RecommendLiveHeader(media=watched.wire.frame_header(), options=pb.RankOptions(frames_per_update=1))
    go_on = asyncio.Event()
    replies = aiter(watched.wire.live(header, frames(watched.wire, 1, go_on)))
    await anext(replies)
    found = await watched.until(lambda found: found["places_taken", "media"] == 1)
    assert found["requests_under_way", LIVE] == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched.wire.clip(1)
    assert Wire.told(caught.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    go_on.set()
    assert [reply async for reply in replies][-1].final
    found = await watched.until(lambda found: found["places_taken", "media"] == 0)
    assert found["requests_under_way", LIVE] == 0
    assert found["requests_refused_total", "media"] == found["requests_total", "RESOURCE_EXHAUSTED", RECOMMEND] == 1
    assert found["requests_refused_total", "quick"] == 0


@pytest.mark.parametrize("timeout", [None, 2.0])
async def test_one_that_is_left_or_too_late_is_told_apart(watched: Watched, timeout: float | None) -> None:
    header = pb.RecommendLiveHeader(media=watched.wire.frame_header(), options=pb.RankOptions(frames_per_update=1))
    call = watched.wire.live(header, frames(watched.wire, 1, asyncio.Event()), timeout=timeout)
    replies = aiter(call)
    await anext(replies)
    if timeout is None:
        call.cancel()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await anext(replies)
    code = "CANCELLED" if timeout is None else "DEADLINE_EXCEEDED"
    found = await watched.until(
        lambda found: bool(found.get(("requests_total", code, LIVE))) and found["places_taken", "media"] == 0
    )
    assert found["requests_under_way", LIVE] == 0
    assert found["stage_seconds_count", LIVE, "rank"] >= 1, "what was done before is not told"


async def test_the_refused_are_counted_and_those_who_watch_are_not(config: Config, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    async with (
        App(replace(config, metrics="127.0.0.1:0", token_file=tmp_path / "tokens")) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        catalog = Wire(channel).catalog
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await catalog.ListItems(catalog_pb2.ListItemsRequest())
            assert Wire.told(caught.value)[:2] == ("UNAUTHENTICATED", "TOKEN_INVALID")
            await catalog.ListItems(catalog_pb2.ListItemsRequest(), metadata=[("authorization", "Bearer secret")])
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/matchcut.v1.Catalog/NoSuchRpc")(
                b"", metadata=[("authorization", "Bearer secret")]
            )
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        found = await asyncio.to_thread(scraped, app.metrics)
    ended = {key[1:]: value for key, value in found.items() if key[0] == "requests_total"}
    listing = "matchcut.v1.Catalog/ListItems"
    assert ended == {("UNAUTHENTICATED", listing): 2, ("OK", listing): 2}


async def test_standard_clients_are_counted_too(watched: Watched) -> None:
    stub = oip_grpc.GRPCInferenceServiceStub(watched.channel)
    assert (await stub.ServerReady(oip_pb.ServerReadyRequest())).ready

    async def none() -> AsyncIterator[oip_pb.ModelInferRequest]:
        for model in ("nothing",):
            yield oip_pb.ModelInferRequest(model_name=model)

    answers = [answer async for answer in stub.ModelStreamInfer(none())]
    assert [bool(answer.error_message) for answer in answers] == [True]
    found = await asyncio.to_thread(scraped, watched.metrics)
    assert found["requests_total", "OK", "inference.GRPCInferenceService/ServerReady"] == 1
    assert found["requests_total", "OK", "inference.GRPCInferenceService/ModelStreamInfer"] == 1
    assert found["model_ready", "layout", "1"] == found["model_ready", "layout-media", "1"] == 1


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    served = Metrics("127.0.0.1", 0, sizes=lambda: Sizes(3, 2, 1))
    yield served
    served.close()


def test_models_that_cannot_be_listed_hide_nothing_else(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    metrics.follow(lambda: [("one", "1", True), ("one", "2", False)])
    found = scraped(metrics.address)
    assert (found["model_ready", "one", "1"], found["model_ready", "one", "2"]) == (1, 0)

    def broken() -> Iterator[tuple[str, str, bool]]:
        yield "one", "1", True
        raise OSError("the disk is gone")

    metrics.follow(broken)
    with caplog.at_level(logging.ERROR, "matchcut"):
        found = scraped(metrics.address)
    assert "cannot tell which models are ready" in caplog.text
    assert found["catalog_segments",] == 3


def test_frames_of_live_queries_are_counted_as_they_are_dropped() -> None:
    registry = CollectorRegistry()
    dropped = iter([2, 2, 7])
    work = watching.Work(watching.Request("r", RequestMetrics(registry, {}), None), "media")
    job = Job(dropped=lambda: next(dropped))
    counts = []
    for tell in (work.replied, work.replied, work.over):
        tell(job)
        counts.append(registry.get_sample_value("matchcut_live_frames_dropped_total", {"rpc": "r"}))
    assert counts == [2, 2, 7]


def test_nothing_is_done_where_nobody_watches() -> None:
    assert watching.interceptors(None, None) == []
    job = Job(dropped=lambda: pytest.fail("it was asked"))
    work = watching.work("media")
    work.refused()
    work.taken(1)
    work.replied(job)
    work.over(job)
