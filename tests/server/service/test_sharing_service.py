"""Requests that share the encoder, through a real server whose engine stands still until it is let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from matchcut.server import sight
from matchcut.server.batcher import Batcher
from matchcut.server.config import Config
from matchcut.server.engines import Engine
from matchcut.server.feed import Feed
from matchcut.v1 import media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.batching import PATIENCE
from support.sharing import Sharing, sharing
from support.wire import Wire


@pytest.fixture
def all_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement at the start finds nothing, so that up to --max-batch frames are joined."""
    monkeypatch.setattr(sight, "tune", lambda batcher, engine, **_: batcher.size)


@pytest.mark.usefixtures("all_join")
async def test_clips_of_several_callers_share_a_run(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sharing(config, monkeypatch) as server:
        for seed in range(4):
            await server.wire.ingest(f"item-{seed}", [seed])
        first = await server.busy(0)
        others = []
        for seed in (1, 2, 3):
            others.append(asyncio.create_task(server.wire.clip(seed)))
            await server.waiting(seed)
        server.engine.go.set()
        rankings = [await first, *[await other for other in others]]
        assert [ranking.matches[0].item.item_id for ranking in rankings] == [f"item-{seed}" for seed in range(4)]
        assert [Wire.stages(ranking)["encode"].counts["batched"] for ranking in rankings] == [1, 3, 3, 3]
        assert all(Wire.stages(ranking)["queue"].wall_us > 0 for ranking in rankings[1:])
        assert server.engine.sizes == [1, 3]


async def test_beyond_the_queue_unary_and_live_calls_are_refused_alike(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing(replace(config, max_queue=1, max_batch=1), monkeypatch) as server:
        first = await server.busy()
        second = asyncio.create_task(server.wire.clip(1))
        await server.waiting(1)
        never = asyncio.Event()

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            yield server.wire.chunks(2)[0]
            await never.wait()

        live = server.wire.live(pb.RecommendLiveHeader(media=server.wire.frame_header()), frames())
        for refused in (server.wire.clip(3), anext(aiter(live))):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            assert Wire.told(caught.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
            retry = error_details_pb2.RetryInfo()
            assert [True for detail in rpc_status.from_call(caught.value).details if detail.Unpack(retry)]
            (pushback,) = (value for key, value in caught.value.trailing_metadata() if key == "grpc-retry-pushback-ms")
            assert int(pushback) == retry.retry_delay.ToMilliseconds() > 0
        server.engine.go.set()
        assert (await first).final
        assert (await second).final
        assert server.record.dropped_by == {"OVERLOADED": 2}


async def waits(server: Sharing) -> asyncio.Task[pb.RecommendResponse]:
    """A request that waits for the engine; it is sent again while there is no place for it."""
    waiting = asyncio.create_task(server.waiting(1))
    while True:
        asking = asyncio.create_task(server.wire.clip(1))
        await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            await waiting
            return asking
        with pytest.raises(grpc.aio.AioRpcError, match="places for media requests are taken"):
            await asking


async def test_a_caller_that_waits_for_the_engine_loses_its_place_as_soon_as_it_is_gone(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing(replace(config, max_media_requests=2), monkeypatch) as server:
        first = await server.busy()
        for _ in range(3):
            leaving = await waits(server)
            with pytest.raises(grpc.aio.AioRpcError, match="places for media requests are taken"):
                await server.wire.clip(2)
            leaving.cancel()
            await server.waiting(0)  # the engine has not moved
        server.engine.go.set()
        assert (await first).final
        assert server.engine.sizes == [1]
        assert server.record.dropped_by == {"CANCELLED": 3}
        assert server.record.wasted == 0


async def test_a_deadline_that_cannot_be_met_is_refused_before_anything_runs(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(batcher: Batcher, engine: Engine, **_: Any) -> int:
        """An engine that takes a minute."""
        batcher._timing.warm = True
        batcher._timing.learn(1, 60.0)
        return batcher.size

    monkeypatch.setattr(sight, "tune", measured)
    async with sharing(config, monkeypatch) as server:
        clip = pb.ClipQuery(media=server.wire.frame_header(), chunks=server.wire.chunks(1))
        request = pb.RecommendRequest(query=pb.Query(clip=clip))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.wire.recommender.Recommend(request, timeout=20)
        assert Wire.told(caught.value)[:2] == ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
        assert server.engine.sizes == []
        assert server.record.dropped_by == {"DEADLINE_TOO_SHORT": 1}
        assert (await server.wire.recommender.Recommend(request)).final


async def test_live_frames_that_come_too_fast_are_dropped_oldest_first(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, end = threading.Event(), Feed.end

    def told(self: Feed[Any], *arguments: Any) -> None:
        end(self, *arguments)
        ended.set()

    async with sharing(replace(config, batch=3), monkeypatch) as server:
        await server.wire.ingest("newest", [50])
        monkeypatch.setattr(Feed, "end", told)
        server.engine.shut()

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            chunks = server.wire.chunks(*range(51))
            yield chunks[0]
            assert await asyncio.to_thread(server.engine.begun.acquire, timeout=PATIENCE)
            for chunk in chunks[1:]:
                yield chunk

        header = pb.RecommendLiveHeader(
            media=server.wire.frame_header(), options=pb.RankOptions(frames_per_update=1), latest_only=True
        )
        replies = aiter(server.wire.live(header, frames()))
        waiting = asyncio.create_task(anext(replies))
        assert await asyncio.to_thread(ended.wait, PATIENCE)
        server.engine.go.set()
        rankings = [await waiting, *[one async for one in replies]]
    last = rankings[-1]
    assert last.final
    assert (last.report.frames_seen, last.report.frames_used, last.report.frames_dropped) == (4, 4, 47)
    assert last.report.duration_us == 51_000_000
    assert last.matches[0].score == pytest.approx(1.0)


async def test_without_the_wish_no_live_frame_is_dropped(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sharing(config, monkeypatch) as server:

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            for chunk in server.wire.chunks(*range(51)):
                yield chunk

        header = pb.RecommendLiveHeader(media=server.wire.frame_header())
        rankings = [one async for one in server.wire.live(header, frames())]
    assert (rankings[-1].report.frames_used, rankings[-1].report.frames_dropped) == (51, 0)


async def test_of_a_container_nothing_can_be_dropped(wire: Wire) -> None:
    async def nothing() -> AsyncIterator[media_pb2.MediaChunk]:
        return
        yield

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in wire.live(pb.RecommendLiveHeader(latest_only=True), nothing()):
            pass
    assert Wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "latest_only")
