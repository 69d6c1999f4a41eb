"""Hands what a caller sends from the event loop to the worker thread that uses it, with bounds and an end.

The event loop puts and never blocks: it awaits while the feed is full, so that a fast sender is slowed down by the
transport's own flow control. The worker gets and blocks. Either side can end the other's waiting.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from matchcut.server.errors import Cancelled, DeadlineExceeded, MatchcutError

__all__ = ["ByteFeed", "Caller", "Feed"]

T = TypeVar("T")


class Caller:
    """Whether the work for a request still has somebody who waits for it. Safe to be used by several threads at once.

    deadline: time.monotonic() after which nobody waits; None where there is no deadline.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._gone = False
        self._lock = threading.Lock()
        self._told: list[Callable[[], None]] = []

    def leave(self) -> None:
        """The caller cancelled or lost the connection; whoever asked to be told is told, in this thread."""
        with self._lock:
            told, self._told, self._gone = self._told, [], True
        for tell in told:
            tell()

    def on_leave(self, tell: Callable[[], None]) -> None:
        """Calls `tell`, which must not block, once the caller leaves; at once where it has left already."""
        with self._lock:
            if not self._gone:
                self._told.append(tell)
                return
        tell()

    def forget(self, tell: Callable[[], None]) -> None:
        """Takes one on_leave() back; one that was called already is no error."""
        with self._lock:
            if tell in self._told:
                self._told.remove(tell)

    def fault(self) -> MatchcutError | None:
        """Why nobody waits any longer; None while somebody does."""
        if self._gone:
            return Cancelled("the caller cancelled the request or lost the connection")
        if self.deadline is not None and time.monotonic() > self.deadline:
            return DeadlineExceeded("the deadline of the request has passed; allow more time or send less media")
        return None

    def check(self) -> None:
        """Raises Cancelled or DeadlineExceeded where nobody waits any longer."""
        fault = self.fault()
        if fault is not None:
            raise fault


class Feed(Generic[T]):
    """A bounded queue from the event loop to one worker thread.

    Args:
        loop: the event loop that puts.
        caller: asked before each wait.
        weight: most weight that may wait in the feed.
        pause: seconds that the sender may be silent before get() raises DeadlineExceeded.
        latest: where not 0, so many items wait at most: instead of waiting for room, put() drops the oldest.
        aside: a block of it is entered while get() waits.

    dropped: how many items were.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        caller: Caller,
        *,
        weight: int,
        pause: float,
        latest: int = 0,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._loop = loop
        self._caller = caller
        self._limit = weight
        self._pause = pause
        self._latest = latest
        self._aside = aside
        self.dropped = 0
        self._queue: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._ended = False
        self._closed = False
        self._error: MatchcutError | None = None
        self._changed = threading.Condition()
        self._room = asyncio.Event()

    async def put(self, item: T, weight: int) -> None:
        """Adds an item; waits while the feed is full, or makes room; drops it if the worker has closed the feed."""
        while True:
            with self._changed:
                if self._closed:
                    return
                while self._latest and self._queue and self._full(weight):
                    self._weight -= self._queue.popleft()[1]
                    self.dropped += 1
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
        if self.idle:
            with self._aside():  # which may wait at its end, when no lock is held that the event loop needs
                self._arrival()
        with self._changed:
            self._caller.check()
            if self._error is not None:
                raise self._error
            if not self._queue:
                return None
            item, weight = self._queue.popleft()
            self._weight -= weight
            self._signal_room()
            return item

    def _arrival(self) -> None:
        """Waits until there is an item or the end; raises as get()."""
        until = time.monotonic() + self._pause
        with self._changed:
            while not self._queue and not self._ended:
                self._caller.check()
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

    def _full(self, weight: int) -> bool:
        """Whether one more item of that weight would make the oldest one too many."""
        return len(self._queue) >= self._latest or self._weight + weight > self._limit

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
