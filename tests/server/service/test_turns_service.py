"""Clips take turns at a real server; live streams, pictures and slow uploads keep nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from matchcut.server.config import Config
from matchcut.server.service import calls
from matchcut.server.turns import Turns
from matchcut.v1 import catalog_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.sharing import Sharing, sharing
from support.wire import Wire

CONTAINER = media_pb2.MediaHeader(container=media_pb2.ContainerForm(), sampling=media_pb2.Sampling(frames_per_second=1))
LONG = 3600.0


@pytest.fixture
def clip(media: Path) -> bytes:
    return (media / "carphone_distorted.mp4").read_bytes()


class Queue:
    """A server with one turn, and those who wait for it."""

    def __init__(self, server: Sharing, turns: Turns, clip: bytes) -> None:
        self.server, self.turns, self._clip = server, turns, clip

    def ask(self) -> asyncio.Task[pb.RecommendResponse]:
        """Asks with a container."""
        query = pb.Query(clip=pb.ClipQuery(media=CONTAINER, chunks=[media_pb2.MediaChunk(data=self._clip)]))
        return asyncio.create_task(self._reply(pb.RecommendRequest(query=query)))

    async def _reply(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        reply: pb.RecommendResponse = await self.server.wire.recommender.Recommend(request)
        return reply

    def put(self, item_id: str) -> asyncio.Task[catalog_pb2.IngestResponse]:
        """Puts a container in."""
        header = catalog_pb2.IngestHeader(item=catalog_pb2.Item(item_id=item_id), media=CONTAINER)
        return asyncio.create_task(self.server.wire.send(header, [media_pb2.MediaChunk(data=self._clip)]))

    async def busy(self) -> asyncio.Task[pb.RecommendResponse]:
        """A clip that has the turn and is in the engine, which stands still from now on."""
        self.server.engine.shut()
        first = self.ask()
        assert await asyncio.to_thread(self.server.engine.begun.acquire, timeout=30)
        return first

    async def waiting(self, count: int) -> None:
        """Until so many wait for a turn."""
        async with asyncio.timeout(30):
            while self.turns.waiting != count:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def queue(config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes, **options: Any) -> AsyncIterator[Queue]:
    made: list[Turns] = []

    def turns(at_once: int, *, seconds: float) -> Turns:
        made.append(Turns(at_once, seconds=seconds))
        return made[0]

    monkeypatch.setattr(calls, "Turns", turns)
    options = {"turns": 1, "turn_seconds": LONG, "max_batch": 1, "batch": 1} | options
    async with sharing(replace(config, **options), monkeypatch) as server:
        yield Queue(server, made[0], clip)
        assert made[0].waiting == 0


async def test_clips_are_answered_in_order_and_told_how_long_they_waited(
    config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    async with queue(config, monkeypatch, clip) as on:
        first, done = await on.busy(), list[str]()
        tasks = {"first": first}
        for count, name in enumerate(("second", "third"), start=1):
            tasks[name] = on.ask()
            await on.waiting(count)
        for name, task in tasks.items():
            task.set_name(name)
            task.add_done_callback(lambda task: done.append(task.get_name()))
        assert on.server.engine.sizes == [1]  # nothing of the others has been encoded
        on.server.engine.go.set()
        replies = await asyncio.gather(*tasks.values())
        waits = [Wire.stages(reply)["queue"].wall_us for reply in replies]
        assert waits == sorted(waits)
        assert waits[1] > 1000
        assert done == ["first", "second", "third"]


async def test_frames_and_live_streams_wait_for_no_turn(
    config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    async with queue(config, monkeypatch, clip) as on:
        first = await on.busy()
        frames = asyncio.create_task(on.server.wire.clip(1))
        await on.server.waiting(1)  # for the engine

        async def chunks() -> AsyncIterator[media_pb2.MediaChunk]:
            yield media_pb2.MediaChunk(data=clip)

        live = on.server.wire.live(pb.RecommendLiveHeader(media=CONTAINER), chunks())
        ended = asyncio.create_task(last(live))
        await on.server.waiting(2)
        assert on.turns.waiting == 0
        on.server.engine.go.set()
        await asyncio.gather(first, frames, ended)
        assert ended.result().final


async def last(call: Any) -> pb.RecommendResponse:
    """The last of a stream's answers."""
    found: list[pb.RecommendResponse] = [reply async for reply in call]
    return found[-1]


async def test_an_upload_that_stands_still_keeps_nobody_waiting(
    config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    async with queue(config, monkeypatch, clip) as on:
        rest, begun = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[catalog_pb2.IngestRequest]:
            item = catalog_pb2.Item(item_id="slow")
            yield catalog_pb2.IngestRequest(header=catalog_pb2.IngestHeader(item=item, media=CONTAINER))
            yield catalog_pb2.IngestRequest(chunk=media_pb2.MediaChunk(data=clip[: len(clip) // 2]))
            begun.set()
            await rest.wait()
            yield catalog_pb2.IngestRequest(chunk=media_pb2.MediaChunk(data=clip[len(clip) // 2 :]))
            yield catalog_pb2.IngestRequest(end=catalog_pb2.IngestEnd())

        upload = on.server.wire.catalog.Ingest(slowly())
        await begun.wait()
        assert (await asyncio.wait_for(on.ask(), 30)).final
        assert (await asyncio.wait_for(on.put("quick"), 30)).outcome == catalog_pb2.INGEST_OUTCOME_CREATED
        rest.set()
        assert (await upload).outcome == catalog_pb2.INGEST_OUTCOME_CREATED


async def test_a_question_goes_before_what_is_put_in(
    config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    async with queue(config, monkeypatch, clip) as on:
        first = await on.busy()
        put = on.put("item")
        await on.waiting(1)
        question = on.ask()
        await on.waiting(2)
        seen: list[bool] = []
        put.add_done_callback(lambda _: seen.append(question.done()))
        on.server.engine.go.set()
        await asyncio.gather(first, put, question)
        assert seen == [True]


async def test_a_clip_that_takes_long_is_broken_off_for_others(
    config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes
) -> None:
    async with queue(config, monkeypatch, clip, turn_seconds=0.0, query_rate=30.0) as on:
        first = await on.busy()
        second = on.ask()
        await on.waiting(1)
        on.server.engine.go.set()
        replies = await asyncio.gather(first, second)
        assert Wire.stages(replies[0])["encode"].counts["runs"] > 0
        # Both waited for each other: with whole turns the first one would not have.
        assert all(Wire.stages(reply)["queue"].wall_us > 100 for reply in replies)


async def test_one_that_gives_up_leaves_the_line(config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes) -> None:
    async with queue(config, monkeypatch, clip) as on:
        first = await on.busy()
        gone = on.ask()
        await on.waiting(1)
        stays = on.ask()
        await on.waiting(2)
        gone.cancel()
        await on.waiting(1)
        query = pb.Query(clip=pb.ClipQuery(media=CONTAINER, chunks=[media_pb2.MediaChunk(data=clip)]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await on.server.wire.recommender.Recommend(pb.RecommendRequest(query=query), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await on.waiting(1)
        on.server.engine.go.set()
        assert all(reply.final for reply in await asyncio.gather(first, stays))


async def test_two_turns_are_two_clips_at_once(config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes) -> None:
    async with queue(config, monkeypatch, clip, turns=2) as on:
        first = await on.busy()
        second = on.ask()
        await on.server.waiting(1)  # for the engine, with a turn
        third = on.ask()
        await on.waiting(1)
        on.server.engine.go.set()
        await asyncio.gather(first, second, third)


async def test_as_many_turns_as_cores_unless_told(config: Config, monkeypatch: pytest.MonkeyPatch, clip: bytes) -> None:
    monkeypatch.setattr(calls, "cores", lambda: 3)
    async with queue(config, monkeypatch, clip, turns=0) as on:
        assert [on.turns.take("").called for _ in range(4)] == [True] * 3 + [False]
        for _ in range(4):
            on.turns.give()
