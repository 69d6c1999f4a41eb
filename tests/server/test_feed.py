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
