"""The Events service over the wire, with a store that only remembers: what reaches it, and what comes back."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from matchcut.server.config import Config
from matchcut.server.errors import StoreFailed
from matchcut.v1 import events_pb2 as pb
from support.fake_personal import NOW_US, Callers, served
from support.wire import Wire

SECRET = "alice-of-wonderland"


@pytest_asyncio.fixture
async def callers(config: Config) -> AsyncIterator[Callers]:
    async with served(config) as callers:
        yield callers


def event(name: str, **changed: Any) -> pb.Event:
    made: dict[str, Any] = {"user_id": SECRET, "item_id": "film", "kind": pb.EVENT_KIND_LIKE}
    return pb.Event(event_id=name, **(made | changed))


def request(*names: str, tenant: str = "") -> pb.RecordEventsRequest:
    return pb.RecordEventsRequest(tenant=tenant, events=[event(name) for name in names])


async def test_events_go_in_once(callers: Callers) -> None:
    first = await callers.events.RecordEvents(request("a", "b", "a"))
    assert (first.recorded, first.duplicates, first.unknown_items) == (2, 1, 2)
    again = await callers.events.RecordEvents(request("a", "b", "c"))
    assert (again.recorded, again.duplicates) == (1, 2)
    kept = callers.personal.events["", "a"]
    assert (kept.user_id, kept.item_id, kept.time_us) == (SECRET, "film", NOW_US)


async def test_the_same_ids_of_another_tenant_are_others(callers: Callers) -> None:
    await callers.events.RecordEvents(request("a", tenant="one"))
    other = await callers.events.RecordEvents(request("a", tenant="two"))
    assert (other.recorded, other.duplicates) == (1, 0)
    gone = await callers.events.ForgetUser(pb.ForgetUserRequest(tenant="two", user_id=SECRET))
    assert gone.events == 1
    assert list(callers.personal.events) == [("one", "a")]


@pytest.mark.parametrize(
    ("name", "value"), [("weight", math.nan), ("time_us", -1), ("time_us", NOW_US + 10 * 365 * 86_400_000_000)]
)
async def test_nothing_is_kept_of_a_message_that_is_refused(callers: Callers, name: str, value: float) -> None:
    bad = pb.RecordEventsRequest(events=[event("a"), event("b"), event("c", **{name: value})])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.events.RecordEvents(bad)
    assert Wire.told(refused.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", f"events[2].{name}")
    assert not callers.personal.events
    assert not callers.personal.recording.is_set()


async def test_a_tenant_s_name_is_bounded(callers: Callers) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.events.RecordEvents(request("a", tenant="t" * 257))
    assert Wire.told(refused.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "tenant")


async def test_a_stream_answers_each_message_in_order(callers: Callers) -> None:
    call = callers.events.RecordEventsStream()
    for names, expected in ((("a",), (1, 0)), (("a", "b"), (1, 1)), (("c", "d"), (2, 0))):
        await call.write(request(*names))
        reply = await call.read()
        assert (reply.recorded, reply.duplicates) == expected
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_what_a_stream_answered_before_it_was_refused_is_kept(callers: Callers) -> None:
    messages = [request("a"), request("b"), pb.RecordEventsRequest(events=[event("c"), event("d", item_id="")])]
    call = callers.events.RecordEventsStream(iter(messages))
    assert [(await call.read()).recorded for _ in range(2)] == [1, 1]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert Wire.told(refused.value)[2] == "events[1].item_id"
    assert set(callers.personal.events) == {("", "a"), ("", "b")}


async def test_open_streams_take_no_place(config: Config) -> None:
    async with served(replace(config, max_requests=1)) as callers:
        streams = [callers.events.RecordEventsStream() for _ in range(5)]
        for number, stream in enumerate(streams):
            await stream.write(request(str(number)))
            assert (await stream.read()).recorded == 1
        assert (await callers.events.RecordEvents(request("unary"))).recorded == 1
        for stream in streams:
            await stream.done_writing()


async def test_a_stream_in_the_way_of_others_is_told_when_to_come_back(config: Config) -> None:
    async with served(replace(config, max_requests=1)) as callers:
        callers.personal.held = threading.Event()
        first = asyncio.ensure_future(callers.events.RecordEvents(request("a")))
        await asyncio.to_thread(callers.personal.recording.wait, 30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.events.RecordEvents(request("b"))
        assert Wire.told(refused.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        callers.personal.held.set()
        assert (await first).recorded == 1
        assert set(callers.personal.events) == {("", "a")}


async def test_a_receipt(callers: Callers) -> None:
    await callers.events.RecordEvents(request("a", "b"))
    receipt = await callers.events.ForgetUser(pb.ForgetUserRequest(user_id=SECRET))
    assert (receipt.events, receipt.exposures, receipt.time_us, receipt.digest) == (2, 2, NOW_US, "ab" * 32)
    assert not callers.personal.events
    nothing = await callers.events.ForgetUser(pb.ForgetUserRequest(user_id=SECRET))
    assert nothing.events == 0
    for user in ("", "u" * 257):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.events.ForgetUser(pb.ForgetUserRequest(user_id=user))
        assert Wire.told(refused.value)[2] == "user_id"


async def test_counts_leave_out_what_is_nothing(callers: Callers) -> None:
    reply = await callers.events.CountEvents(pb.CountEventsRequest(item_ids=["b", "a"], limit=7))
    assert [(one.item_id, one.users) for one in reply.items] == [("b", 7), ("a", 7)]
    kinds = [(pb.EventKind.Name(one.kind), one.users) for one in reply.items[0].kinds]
    assert kinds == [("EVENT_KIND_CLICK", 2), ("EVENT_KIND_LIKE", 3)]
    assert reply.threshold == 10
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.events.CountEvents(pb.CountEventsRequest(limit=1001))
    assert Wire.told(refused.value)[2] == "limit"


async def test_neither_log_nor_errors_name_a_user(callers: Callers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    for changed in ({"item_id": ""}, {"weight": 2.0}, {"time_us": -1}, {"user_id": SECRET * 20}, {"kind": 99}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await callers.events.RecordEvents(pb.RecordEventsRequest(events=[event("a", **changed)]))
        told.append(str(refused.value.details()))
    callers.personal.failing = StoreFailed("the disk is full", reason="STORE_FULL")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await callers.events.RecordEvents(request("a"))
    assert Wire.told(failed.value)[:2] == ("INTERNAL", "STORE_FULL")
    told.append(str(failed.value.details()))
    assert SECRET not in " ".join(told)
    assert SECRET not in caplog.text
