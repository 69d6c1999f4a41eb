"""Hands what a caller sends from the event loop to the worker thread that uses it, with bounds and an end.

The event loop puts and never blocks: it awaits while the feed is full, so that a fast sender is slowed down by the
transport's own flow control. The worker gets and blocks. Either side can end the other's waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from matchcut.server.errors import Cancelled, DeadlineExceeded, MatchcutError

__all__ = ["ByteFeed", "Caller", "Feed"]

T = TypeVar("T")


class Caller:
    """Whether the work for a request still has somebody who waits for it.

    deadline: time.monotonic() after which nobody waits; None where there is no deadline.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._gone = threading.Event()

    def leave(self) -> None:
        """The caller cancelled or lost the connection."""
        self._gone.set()

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded where nobody waits any longer."""
        if self._gone.is_set():
            raise Cancelled("the caller cancelled the request or lost the connection")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineExceeded("the deadline of the request has passed; allow more time or send less media")


class Feed(Generic[T]):
    """A bounded queue from the event loop to one worker thread.

    Args:
        loop: the event loop that puts.
        caller: asked before each wait.
        weight: most weight that may wait in the feed.
        pause: seconds that the sender may be silent before get() raises DeadlineExceeded.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, caller: Caller, *, weight: int, pause: float) -> None:
        self._loop = loop
        self._caller = caller
        self._limit = weight
        self._pause = pause
        self._queue: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._ended = False
        self._closed = False
        self._error: MatchcutError | None = None
        self._changed = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, item: T, weight: int) -> None:
        """Adds an item; waits while the feed is full; drops it if the worker has closed the feed."""
        while True:
            with self._changed:
                if self._closed:
                    return
                if self._weight < self._limit:
                    self._queue.append((item, weight))
                    self._weight += weight
                    self._changed.notify()
                    return
                self._room.clear()
            await self._room.wait()

    def end(self, error: MatchcutError | None = None) -> None:
        """Nothing more will come; with an error, get() raises it at once, ahead of what still waits."""
        with self._changed:
            self._ended = True
            self._error = self._error or error
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Nothing waits here and more may come: the worker would block."""
        with self._changed:
            return not self._queue and not self._ended

    def get(self) -> T | None:
        """The next item; None at the end.

        Raises:
            MatchcutError: what end() was given, or the caller is gone, or was silent for too long.
        """
        until = time.monotonic() + self._pause
        with self._changed:
            while True:
                self._caller.check()
                if self._error is not None:
                    raise self._error
                if self._queue:
                    item, weight = self._queue.popleft()
                    self._weight -= weight
                    self._signal_room()
                    return item
                if self._ended:
                    return None
                left = min(until, self._caller.deadline or until) - time.monotonic()
                if not self._changed.wait(max(left, 0.0) + 0.001) and time.monotonic() >= until:
                    raise DeadlineExceeded(
                        f"nothing arrived for {self._pause:g} s; send the next chunk sooner or end the stream",
                        reason="UPLOAD_STALLED",
                    )

    def close(self) -> None:
        """The worker wants no more: what waits is dropped and the sender is never kept waiting again."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._weight = 0
            self._signal_room()

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def _signal_room(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._room.set)


class ByteFeed:
    """Chunks of bytes, from a feed or a list, as the ByteSource that a decoder reads."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, n: int = -1, /) -> bytes:
        """1 to n bytes, all that is at hand of one chunk; b"" at the end. n < 0: one chunk."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        if n < 0:
            n = len(self._rest)
        taken, self._rest = self._rest[:n], self._rest[n:]
        return bytes(taken)
