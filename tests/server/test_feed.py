"""The hand-over from event loop to worker: order, bounds, and every way in which it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from matchcut.server.errors import Cancelled, DeadlineExceeded, InvalidInput
from matchcut.server.feed import ByteFeed, Caller, Feed


def feed_of(caller: Caller | None = None, *, weight: int = 100, pause: float = 30) -> Feed[Any]:
    return Feed(asyncio.get_running_loop(), caller or Caller(), weight=weight, pause=pause)


async def test_pieces_come_out_in_order_and_the_end_is_none() -> None:
    feed = feed_of()
    for piece in "abc":
        await feed.put(piece, 1)
    feed.end()
    assert await asyncio.to_thread(list, feed) == ["a", "b", "c"]
    assert feed.get() is None


async def test_a_full_feed_makes_the_sender_wait_until_there_is_room() -> None:
    feed = feed_of(weight=10)
    await feed.put("first", 10)
    waiting = asyncio.create_task(feed.put("second", 1))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert await asyncio.to_thread(feed.get) == "first"
    await asyncio.wait_for(waiting, 5)
    assert feed.get() == "second"


async def test_one_piece_heavier_than_the_bound_still_passes() -> None:
    feed = feed_of(weight=10)
    await feed.put("heavy", 1000)
    assert feed.get() == "heavy"


async def test_an_error_overtakes_what_waits() -> None:
    feed = feed_of()
    await feed.put("waits", 1)
    feed.end(InvalidInput("bad chunk"))
    with pytest.raises(InvalidInput, match="bad chunk"):
        feed.get()


async def test_ending_wakes_a_worker_that_waits() -> None:
    feed = feed_of()
    worker = asyncio.create_task(asyncio.to_thread(feed.get))
    await asyncio.sleep(0.02)
    feed.end(Cancelled("gone"))
    with pytest.raises(Cancelled):
        await asyncio.wait_for(worker, 5)


async def test_a_closed_feed_never_keeps_the_sender() -> None:
    feed = feed_of(weight=1)
    await feed.put("a", 1)
    waiting = asyncio.create_task(feed.put("b", 1))
    await asyncio.sleep(0.02)
    feed.close()
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(feed.put("c", 1), 5)
    feed.end()
    assert feed.get() is None


async def test_a_silent_sender_is_given_up() -> None:
    feed = feed_of(pause=0.02)
    with pytest.raises(DeadlineExceeded) as caught:
        await asyncio.to_thread(feed.get)
    assert caught.value.reason == "UPLOAD_STALLED"


async def test_the_deadline_ends_the_wait() -> None:
    feed = feed_of(Caller(time.monotonic() + 0.02), pause=30)
    with pytest.raises(DeadlineExceeded) as caught:
        await asyncio.wait_for(asyncio.to_thread(feed.get), 5)
    assert caught.value.reason == "DEADLINE_EXCEEDED"


async def test_a_caller_who_left_is_noticed_before_the_next_piece() -> None:
    caller = Caller()
    feed = feed_of(caller)
    await feed.put("a", 1)
    caller.leave()
    with pytest.raises(Cancelled):
        feed.get()


async def test_idle_means_that_get_would_block() -> None:
    feed = feed_of()
    idle = [feed.idle]
    await feed.put("a", 1)
    idle.append(feed.idle)
    feed.get()
    idle.append(feed.idle)
    feed.end()
    idle.append(feed.idle)
    assert idle == [True, False, True, False]


def test_bytes_come_in_the_sizes_asked_for_and_never_more() -> None:
    source = ByteFeed([b"abc", b"", b"defg"])
    assert [source.read(2), source.read(2), source.read(-1), source.read(5), source.read(5)] == [
        b"ab",
        b"c",
        b"defg",
        b"",
        b"",
    ]


def test_who_asked_is_told_once_when_the_caller_leaves() -> None:
    caller, told = Caller(), list[str]()

    def first() -> None:
        told.append("first")

    def second() -> None:
        told.append("second")

    caller.on_leave(first)
    caller.on_leave(second)
    caller.forget(second)
    caller.forget(second)
    assert caller.fault() is None
    caller.leave()
    caller.leave()
    assert told == ["first"]
    caller.forget(first)
    assert isinstance(caller.fault(), Cancelled)


def test_who_asks_after_the_caller_has_left_is_told_at_once() -> None:
    caller, told = Caller(), list[bool]()
    caller.leave()
    caller.on_leave(lambda: told.append(isinstance(caller.fault(), Cancelled)))
    assert told == [True]


def test_a_passed_deadline_is_a_fault_and_leaving_comes_before_it() -> None:
    caller = Caller(time.monotonic() - 1)
    assert isinstance(caller.fault(), DeadlineExceeded)
    caller.leave()
    assert isinstance(caller.fault(), Cancelled)
    with pytest.raises(Cancelled):
        caller.check()


async def test_where_only_the_latest_count_the_oldest_are_dropped_and_nobody_waits() -> None:
    feed = Feed[str](asyncio.get_running_loop(), Caller(), weight=100, pause=30, latest=3)
    for piece in "abcdefg":
        await asyncio.wait_for(feed.put(piece, 1), 5)
    feed.end()
    assert list(feed) == ["e", "f", "g"]
    assert feed.dropped == 4


async def test_the_latest_are_bounded_by_weight_too() -> None:
    feed = Feed[str](asyncio.get_running_loop(), Caller(), weight=10, pause=30, latest=3)
    for piece, weight in (("a", 4), ("b", 4), ("c", 4), ("heavy", 1000)):
        await asyncio.wait_for(feed.put(piece, weight), 5)
    assert feed.get() == "heavy"
    assert feed.dropped == 3
    await asyncio.wait_for(feed.put("d", 10), 5)
    assert feed.get() == "d"


async def test_an_ordinary_feed_drops_nothing() -> None:
    feed = feed_of(weight=3)
    for piece in "abc":
        await feed.put(piece, 1)
    waiting = asyncio.create_task(feed.put("d", 1))
    await asyncio.sleep(0)
    assert feed.get() == "a"
    await asyncio.wait_for(waiting, 5)
    assert [feed.get() for _ in range(3)] == ["b", "c", "d"]
    assert feed.dropped == 0
