"""Lists for users over the wire, with a store that only remembers: unary, and live with events and media at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from matchcut.server.config import Config
from matchcut.server.errors import StoreFailed
from matchcut.server.records import Media
from matchcut.v1 import events_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.fake_personal import Callers, served
from support.wire import SIDE, Wire

SECRET = "alice-of-wonderland"
FRAMES = Wire.frame_header()


@pytest_asyncio.fixture
async def callers(config: Config) -> AsyncIterator[Callers]:
    async with served(config) as callers:
        yield callers


def event(item_id: str, **changed: Any) -> events_pb2.Event:
    made: dict[str, Any] = {"item_id": item_id, "kind": events_pb2.EVENT_KIND_LIKE, "time_us": 5}
    return events_pb2.Event(**(made | changed))


def chunk(number: int) -> pb.RecommendForUserLiveRequest:
    """One frame."""
    frame = media_pb2.Frame(pixels=Wire.picture(number).tobytes(), time_us=number * 1_000_000)
    return pb.RecommendForUserLiveRequest(chunk=media_pb2.MediaChunk(frame=frame))


class Live:
    """A live call under test."""

    def __init__(self, callers: Callers) -> None:
        self._call = callers.recommender.RecommendForUserLive()

    async def begin(self, media: media_pb2.MediaHeader | None = None, **header: Any) -> pb.RecommendForUserResponse:
        """Sends the header; the first list."""
        made = pb.RecommendForUserLiveHeader(media=media, **({"user_id": SECRET} | header))
        return await self.ask(pb.RecommendForUserLiveRequest(header=made))

    async def ask(self, message: pb.RecommendForUserLiveRequest) -> pb.RecommendForUserResponse:
        """Sends a message; the next list."""
        await self._call.write(message)
        return await self.read()

    async def did(self, item_id: str, **changed: Any) -> pb.RecommendForUserResponse:
        """Sends an event; the next list."""
        return await self.ask(pb.RecommendForUserLiveRequest(event=event(item_id, **changed)))

    async def read(self) -> pb.RecommendForUserResponse:
        """The next list."""
        reply: pb.RecommendForUserResponse = await asyncio.wait_for(self._call.read(), 30)
        assert reply is not grpc.aio.EOF
        return reply

    async def end(self) -> list[pb.RecommendForUserResponse]:
        """Closes the sending side; the lists that are left."""
        await self._call.done_writing()
        left = []
        while (reply := await asyncio.wait_for(self._call.read(), 30)) is not grpc.aio.EOF:
            left.append(reply)
        return left

    def leave(self) -> None:
        """Cancels the call."""
        self._call.cancel()

    async def send(self, *messages: pb.RecommendForUserLiveRequest) -> None:
        """Sends messages that are not answered."""
        for message in messages:
            await self._call.write(message)

    async def refused(self, message: pb.RecommendForUserLiveRequest) -> tuple[str, str, str]:
        """Sends a message; how the call ends."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.ask(message)
        assert SECRET not in str(refused.value.details())
        return Wire.told(refused.value)


def items(ranking: pb.RecommendForUserResponse) -> list[str]:
    return [match.item.item_id for match in ranking.matches]


async def taken(callers: Callers, number: int) -> Live:
    """A live call whose first frame was let in: the place of a call before it is free a moment after its end."""
    async with asyncio.timeout(30):
        while True:
            live = Live(callers)
            await live.begin(FRAMES)
            try:
                await live.ask(chunk(number))
            except grpc.aio.AioRpcError as error:
                if Wire.told(error)[1] != "OVERLOADED":
                    raise
            else:
                return live


async def test_a_list_is_told_whole(callers: Callers) -> None:
    history = [event("a"), event("b", time_us=6)]
    request = pb.RecommendForUserRequest(tenant="t", user_id=SECRET, history=history, options={"limit": 3})
    request.user_options.mmr_lambda = 0.0
    reply = await callers.recommender.RecommendForUser(request)
    assert items(reply) == ["b", "a"]
    best = reply.matches[0]
    assert (best.score, best.propensity) == (0.5, 0.125)
    assert (best.reason.nearest_item_id, best.reason.similarity) == ("near", 0.25)
    assert {one.signal: one.share for one in best.reason.shares} == {"history": 0.75, "freshness": 0.25}
    assert (reply.variant.experiment, reply.variant.name) == ("test", "blue")
    assert (reply.model.name, reply.model.dimensions, reply.encoder.name) == ("fake", 4, "layout")
    assert (reply.cold, reply.events, reply.revision, reply.final) == (False, 2, 1, True)
    assert not reply.HasField("report")
    ((tenant, asked, options),) = callers.personal.asked
    assert (tenant, asked.user_id, asked.asked) == ("t", SECRET, {"mmr_lambda": 0.0})
    assert (options.limit, options.frames_per_update) == (3, 0)
    assert not callers.personal.events


async def test_a_clip_of_interest_is_understood(callers: Callers) -> None:
    clip = pb.ClipQuery(media=Wire.frame_header(), chunks=[chunk(1).chunk])
    await callers.recommender.RecommendForUser(pb.RecommendForUserRequest(user_id=SECRET, current={"clip": clip}))
    assert isinstance(callers.personal.asked[0][1].current, Media)


async def test_a_user_in_no_experiment_has_no_variant(callers: Callers) -> None:
    reply = await callers.recommender.RecommendForUser(pb.RecommendForUserRequest(history=[event("a")]))
    assert not reply.HasField("variant")


async def test_a_clip_of_interest_takes_a_place_for_media(config: Config) -> None:
    async with served(replace(config, max_media_requests=1)) as callers:
        live = Live(callers)
        await live.begin(FRAMES)
        await live.ask(chunk(0))
        clip = pb.ClipQuery(media=Wire.frame_header(), chunks=[chunk(1).chunk])
        request = pb.RecommendForUserRequest(user_id=SECRET, current=pb.Query(clip=clip))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.recommender.RecommendForUser(request)
        assert Wire.told(refused.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert len(callers.personal.asked) == 1
        await live.end()
        await (await taken(callers, 1)).end()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"tenant": "t" * 257}, "tenant"),
        ({"options": {"limit": 1001}}, "options.limit"),
        ({"options": {"exclude_item_ids": ["x"] * 1_000_000}}, "options.exclude_item_ids"),
        ({"user_options": {"mmr_lambda": float("nan")}}, "user_options.mmr_lambda"),
        ({"current": {"items": {"item_ids": [""]}}}, "current.items.item_ids"),
        ({"history": [event("a", weight=float("nan"))]}, "history[0].weight"),
    ],
)
async def test_hostile_requests_reach_nothing(callers: Callers, changed: dict[str, Any], field: str) -> None:
    callers_request = pb.RecommendForUserRequest(**({"user_id": SECRET} | changed))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.recommender.RecommendForUser(callers_request)
    assert Wire.told(refused.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", field)
    assert SECRET not in str(refused.value.details())
    assert not callers.personal.asked


async def test_each_event_is_kept_and_answered(callers: Callers) -> None:
    live = Live(callers)
    first = await live.begin(tenant="t", options={"limit": 5}, user_options={"cap": 2})
    assert (first.revision, first.final, first.cold, items(first)) == (1, False, True, [])
    second = await live.did("a", user_id=SECRET)
    assert (second.revision, second.final, items(second)) == (2, False, ["a"])
    third = await live.did("b")
    assert (third.revision, third.events, items(third)) == (3, 2, ["b", "a"])
    again = await live.did("b")
    assert items(again) == ["b", "a"]
    (last,) = await live.end()
    assert (last.revision, last.final, items(last)) == (5, True, ["b", "a"])
    assert not last.HasField("report")
    ((tenant, asked, options),) = callers.personal.asked
    assert (tenant, asked.user_id, asked.asked) == ("t", SECRET, {"cap": 2})
    assert (options.limit, options.frames_per_update) == (5, 8)
    assert {key[0] for key in callers.personal.events} == {"t"}
    assert {one.user_id for one in callers.personal.events.values()} == {SECRET}


async def test_events_are_answered_while_media_is_waited_for(callers: Callers) -> None:
    live = Live(callers)
    await live.begin(FRAMES)
    look = await live.ask(chunk(0))
    assert look.report.frames_used == 1
    for number in range(5):  # the decoder waits for a frame all the while
        reply = await live.did(f"item-{number}")
        assert items(reply)[0] == f"item-{number}"
        assert reply.report.frames_used == 1
        assert len(reply.event_id) == 64
    assert (await live.did("item-4", event_id="mine")).event_id == "mine"
    look = await live.ask(chunk(1))
    assert look.event_id == ""
    assert (look.report.frames_used, look.revision, look.events) == (2, 9, 6)
    *before, last = await live.end()
    assert last.final
    assert not any(reply.final for reply in before)
    assert [reply.revision for reply in (*before, last)] == list(range(10, 11 + len(before)))
    assert (last.events, last.report.frames_used, last.event_id) == (6, 2, "")


async def test_a_header_alone_takes_no_place_and_needs_no_media(config: Config) -> None:
    async with served(replace(config, max_media_requests=1, max_requests=1)) as callers:
        calls = [Live(callers) for _ in range(4)]
        for live in calls:
            await live.begin(FRAMES)
        for number, live in enumerate(calls):
            assert items(await live.did(f"item-{number}"))[0] == f"item-{number}"
        for live in calls:
            assert [reply.final for reply in await live.end()] == [True]
    assert callers.personal.looked == 0


async def test_media_after_the_caller_s_own_limit_is_left(callers: Callers) -> None:
    live = Live(callers)
    header = Wire.frame_header(limits=media_pb2.MediaLimits(frames=1))
    await live.begin(header)
    await live.ask(chunk(0))
    over = await live.ask(chunk(1))
    assert over.report.frames_used == 2
    assert not over.final
    reply = await live.did("a")
    assert items(reply) == ["a"]
    await live.send(*(chunk(number) for number in range(2, 40)))
    assert items(await live.did("b")) == ["b", "a"]
    (last,) = await live.end()
    assert last.final
    assert callers.personal.looked == 2


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.RecommendForUserLiveRequest(event=event("a", user_id="bob")), "event.user_id"),
        (pb.RecommendForUserLiveRequest(event=event("")), "event.item_id"),
        (pb.RecommendForUserLiveRequest(event=event("a", weight=float("nan"))), "event.weight"),
        (pb.RecommendForUserLiveRequest(header=pb.RecommendForUserLiveHeader(user_id="bob")), "header"),
        (pb.RecommendForUserLiveRequest(), "header"),
        (chunk(0), "header.media"),
    ],
)
async def test_a_wrong_message_ends_the_stream_and_is_not_kept(
    callers: Callers, message: pb.RecommendForUserLiveRequest, field: str
) -> None:
    live = Live(callers)
    await live.begin()
    await live.did("kept")
    assert await live.refused(message) == ("INVALID_ARGUMENT", "INVALID_INPUT", field)
    assert [one.item_id for one in callers.personal.events.values()] == ["kept"]


@pytest.mark.parametrize(
    "message",
    [
        pb.RecommendForUserLiveRequest(chunk=media_pb2.MediaChunk(data=b"x")),
        pb.RecommendForUserLiveRequest(chunk=media_pb2.MediaChunk()),
    ],
)
async def test_chunks_are_of_the_kind_announced(callers: Callers, message: pb.RecommendForUserLiveRequest) -> None:
    live = Live(callers)
    await live.begin(FRAMES)
    await live.ask(chunk(0))
    assert await live.refused(message) == ("INVALID_ARGUMENT", "INVALID_INPUT", "chunk")


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "u" * 257}, "user_id"),
        ({"options": {"limit": -1}}, "options.limit"),
        ({"user_options": {"exploration": 2.0}}, "user_options.exploration"),
        ({"media": {"frames": {"width": 0, "height": SIDE}}}, "media.frames.width"),
    ],
)
async def test_headers_are_checked(callers: Callers, header: dict[str, Any], field: str) -> None:
    live = Live(callers)
    made = pb.RecommendForUserLiveHeader(**({"user_id": SECRET} | header))
    told = await live.refused(pb.RecommendForUserLiveRequest(header=made))
    assert told == ("INVALID_ARGUMENT", "INVALID_INPUT", field)


async def test_a_stream_begins_with_its_header(callers: Callers) -> None:
    live = Live(callers)
    told = await live.refused(pb.RecommendForUserLiveRequest(event=event("a")))
    assert told == ("INVALID_ARGUMENT", "HEADER_MISSING", "header")


async def test_a_store_that_fails_ends_the_stream(callers: Callers) -> None:
    live = Live(callers)
    await live.begin(FRAMES)
    await live.ask(chunk(0))
    callers.personal.failing = StoreFailed("the disk is full", reason="STORE_FULL")
    assert (await live.refused(pb.RecommendForUserLiveRequest(event=event("a"))))[:2] == ("INTERNAL", "STORE_FULL")


async def test_a_caller_who_leaves_frees_the_place_for_media(config: Config) -> None:
    async with served(replace(config, max_media_requests=1)) as callers:
        for number in range(3):
            (await taken(callers, number)).leave()


async def test_a_reader_that_does_not_read_loses_its_place(config: Config) -> None:
    async with served(replace(config, receive_timeout=0.5, max_media_requests=1)) as callers:
        callers.personal.padding = 500_000
        async with grpc.aio.insecure_channel(callers.address) as channel:
            live = Live(Callers(callers.address, channel, callers.personal))
            await live.begin(FRAMES)
            await live.send(*(chunk(number) for number in range(50)))
            await live.read()
            async with asyncio.timeout(20):
                await (await taken(callers, 0)).end()
            assert callers.personal.looked < 50
            live.leave()


async def test_silence_between_frames_ends_the_call_but_silence_without_media_does_not(config: Config) -> None:
    async with served(replace(config, receive_timeout=0.5)) as callers:
        quiet, filmed = Live(callers), Live(callers)
        await quiet.begin()
        await filmed.begin(FRAMES)
        await filmed.ask(chunk(0))
        with pytest.raises(grpc.aio.AioRpcError) as stalled:
            await filmed.read()
        assert Wire.told(stalled.value)[:2] == ("DEADLINE_EXCEEDED", "UPLOAD_STALLED")
        assert items(await quiet.did("a")) == ["a"]
