"""Queries whose frames step the state of a GRU, through a real server."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.recurrence import Recurrence
from matchcut.v1 import common_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

GRU = pb.TEMPORAL_GRU


async def sent(chunks: Iterable[media_pb2.MediaChunk]) -> AsyncIterator[media_pb2.MediaChunk]:
    for chunk in chunks:
        yield chunk


def header_of(wire: Wire, every: int = 4, **more: object) -> pb.RecommendLiveHeader:
    ranking = pb.RankOptions(frames_per_update=every)
    return pb.RecommendLiveHeader(media=wire.frame_header(), options=ranking, temporal=GRU, **more)  # type: ignore[arg-type]


def best(reply: pb.RecommendResponse) -> str:
    return reply.matches[0].item.item_id


async def test_a_camera_gets_what_goes_with_what_it_sees_now(wire: Wire) -> None:
    for seed in (1, 2):
        await wire.ingest(f"item-{seed}", [seed])
    chunks = wire.chunks(*[1] * 24, *[2] * 24)
    replies = [reply async for reply in wire.live(header_of(wire), sent(chunks))]
    assert [reply.revision for reply in replies] == list(range(1, len(replies) + 1))
    assert [reply.final for reply in replies] == [*[False] * (len(replies) - 1), True]
    assert best(replies[0]) == "item-1"
    assert best(replies[-1]) == "item-2"
    assert {reply.matches[0].query_range.start_us for reply in replies} == {0}
    ends = [reply.matches[0].query_range.end_us for reply in replies]
    assert ends == sorted(ends)
    assert Wire.stages(replies[-1])["rank"].counts["rows"] >= 2
    assert all(reply.resume for reply in replies)
    # The same frames in segments are compared one by one: the item of the first half is still there, as good as ever.
    ranking = pb.RankOptions(frames_per_update=0)
    parts = pb.RecommendLiveHeader(media=wire.frame_header(), options=ranking)
    segments = [reply async for reply in wire.live(parts, sent(chunks))][-1]
    assert {match.item.item_id for match in segments.matches if match.score > 0.99} == {"item-1", "item-2"}
    assert not segments.resume
    assert [match.item.item_id for match in replies[-1].matches if match.score > 0.99] == ["item-2"]


async def test_a_clip_may_be_asked_with_in_the_same_way(wire: Wire) -> None:
    await wire.ingest("a", [1])
    await wire.ingest("b", [2])
    media = wire.frame_header()
    clip = pb.ClipQuery(media=media, chunks=wire.chunks(*[1] * 3, *[2] * 40), temporal=GRU)
    reply = await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(clip=clip)))
    assert best(reply) == "b"
    assert reply.resume


async def test_a_broken_stream_goes_on_where_it_was(wire: Wire) -> None:
    for seed in (1, 2, 3):
        await wire.ingest(f"item-{seed}", [seed])
    chunks = wire.chunks(*[1] * 6, *[2] * 3, *[3] * 3)
    header = header_of(wire, every=1)
    whole = [reply async for reply in wire.live(header, sent(chunks))][-1]
    first = [reply async for reply in wire.live(header, sent(chunks[:8]))][-1]
    second = [reply async for reply in wire.live(header_of(wire, every=1, resume=first.resume), sent(chunks[8:]))][-1]
    assert [(match.item.item_id, match.score) for match in second.matches] == [
        (match.item.item_id, pytest.approx(match.score, abs=1e-6)) for match in whole.matches
    ]
    anew = [reply async for reply in wire.live(header, sent(chunks[8:]))][-1]
    assert [match.score for match in anew.matches] != [match.score for match in whole.matches]


async def test_what_does_not_go_together_is_refused(wire: Wire) -> None:
    await wire.ingest("a", [1])
    chunks = wire.chunks(1)
    given = wire.frame_header()
    given.segments.append(common_pb2.TimeRange(start_us=0, end_us=1_000_000))
    for header, field in (
        (header_of(wire, resume=b"nonsense"), "resume"),
        (pb.RecommendLiveHeader(media=wire.frame_header(), resume=b"x"), "resume"),
        (header_of(wire, resume=bytes((1 << 20) + 1)), "resume"),
        (pb.RecommendLiveHeader(media=given, temporal=GRU), "temporal"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in wire.live(header, sent(chunks)):
                pass
        code, _, at = Wire.told(caught.value)
        assert (code, at) == ("INVALID_ARGUMENT", field)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in wire.live(header_of(wire), sent([])):
            pass
    assert Wire.told(caught.value)[:2] == ("INVALID_ARGUMENT", "UNREADABLE_MEDIA")


@pytest.fixture
def no_garbage_collected() -> Iterator[None]:
    """What is freed meanwhile is not freed by the garbage collector, which may come any time."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collected")
@pytest.mark.parametrize("temporal", [GRU, pb.TEMPORAL_SEGMENTS])
async def test_a_lost_stream_frees_its_state_and_its_place(
    config: Config, monkeypatch: pytest.MonkeyPatch, temporal: pb.Temporal
) -> None:
    """With one place for media the next call gets in at once; how soon is measured in tests/bench."""
    held: list[Recurrence] = []
    make = App._recurrence

    def kept(self: App, *arguments: object) -> Recurrence:
        held.append(make(self, *arguments))  # type: ignore[arg-type]
        return held[0]

    monkeypatch.setattr(App, "_recurrence", kept)
    async with App(replace(config, max_media_requests=1)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, never = Wire(channel), asyncio.Event()
        await wire.ingest("a", [1])

        async def camera() -> AsyncIterator[media_pb2.MediaChunk]:
            for chunk in wire.chunks(1, 2, 1):
                yield chunk
            await never.wait()

        for _ in range(3):
            header = header_of(wire, every=1)
            header.temporal = temporal
            live = wire.live(header, camera())
            await anext(aiter(live))
            assert held[0].live == (temporal == GRU)
            live.cancel()
            began = time.monotonic()
            while held[0].live and time.monotonic() - began < 10:
                await asyncio.sleep(0.001)
            assert held[0].live == 0
            for _ in range(1000):  # the place is free a moment later
                try:
                    assert best(await wire.clip(1)) == "a"
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(0.005)
            else:
                raise AssertionError("the place was never free again")
