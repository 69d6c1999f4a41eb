"""Threads that do one piece of work each, with as little on the way to them and back as can be."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from matchcut.server.errors import Overloaded

__all__ = ["Threads"]

Work = Callable[[], Any]
Done = Callable[[Any, BaseException | None], None]
log = logging.getLogger("matchcut.service")


class Threads:
    """Up to `size` threads, started when they are needed first. start() and close() are for the event loop.

    concurrent.futures does the same with a future of its own for each piece of work, two locks and a copy of the
    result to the event loop's future: half as much CPU time again.

    Args:
        size: pieces of work at once at most; the caller sees to it that there are no more.
        name: of the threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._given: SimpleQueue[tuple[Work, Done, asyncio.AbstractEventLoop] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # pieces of work that are not done, as the event loop knows

    def start(self, work: Work, done: Done, *, waits: bool = False) -> None:
        """Has a thread do the work, and then calls done(result, error) on the running event loop.

        Args:
            waits: for one of the threads that there are, where all are busy and the system gives no other.

        Raises:
            Overloaded: the system gives no other, and it does not wait; done() is not called.
        """
        if self._busy >= len(self._threads) and len(self._threads) < self._size:
            try:
                self._add()
            except Overloaded:
                if not (waits and self._threads):
                    raise
        self._busy += 1
        self._given.put((work, done, asyncio.get_running_loop()))

    def close(self) -> None:
        """Waits for the work under way; blocks. Nothing may be started any more."""
        for _ in self._threads:
            self._given.put(None)
        for thread in self._threads:
            thread.join()

    def _add(self) -> None:
        """One more thread."""
        thread = threading.Thread(target=self._run, name=f"{self._name}_{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.error("the system gives no thread more than %d: %s", len(self._threads), error)
            raise Overloaded(
                "the server gets no more threads from its system; retry later", reason="THREADS_EXHAUSTED"
            ) from error
        self._threads.append(thread)

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            work, done, loop = given
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except StopIteration as raised:  # which no future takes
                error = RuntimeError(f"work raised {raised!r}")
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(self._done, done, result, error)
            except RuntimeError:
                log.warning("work ended after the event loop that waited for it")
            del given, work, done, loop, result, error  # nothing is kept alive until there is more to do

    def _done(self, done: Done, result: Any, error: BaseException | None) -> None:
        self._busy -= 1
        done(result, error)
