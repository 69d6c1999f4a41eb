"""Reads that are asked a second time where the first answer takes long; the first answer counts.

It is of use where several servers stand behind one address: the second question then meets another one, most likely.
After "The Tail at Scale" (Dean, Barroso, 2013): asked again only after the time that nearly all answers take, it costs
next to no load and cuts the longest waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any

import grpc

__all__ = ["first", "first_async"]


def first(start: Callable[[float], Any], after: float) -> Any:
    """What the first of two calls answers that succeeds; the second starts `after` seconds.

    Args:
        start: begins a call, a grpc.Future, which is given so many seconds less than the first.
        after: in seconds. One that fails before is not asked again here: that is for a retry.

    Raises:
        grpc.RpcError: no call succeeded; that of the call that failed last.
    """
    ended: SimpleQueue[Any] = SimpleQueue()
    calls: list[Any] = []

    def begin(later: float) -> None:
        calls.append(start(later))
        calls[-1].add_done_callback(ended.put)

    begin(0.0)
    try:
        try:
            call = ended.get(timeout=after)
        except Empty:
            begin(after)
            call = ended.get()
            if call.code() is not grpc.StatusCode.OK:
                call = ended.get()
        return call.result()
    finally:
        for each in calls:
            each.cancel()


async def first_async(start: Callable[[float], Coroutine[Any, Any, Any]], after: float) -> Any:
    """The same for asyncio: `start` makes a coroutine that asks."""
    calls = [asyncio.create_task(start(0.0))]
    try:
        ended, _ = await asyncio.wait(calls, timeout=after)
        if not ended:
            calls.append(asyncio.create_task(start(after)))
            ended, running = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            if running and all(call.exception() is not None for call in ended):
                ended, _ = await asyncio.wait(running)
        return min(ended, key=lambda call: call.exception() is not None).result()
    finally:
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
