"""One thread that makes all changes to a store, many in one commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, NamedTuple, TypeVar

from matchcut.server.errors import StoreFailed

C = TypeVar("C")  # a change
D = TypeVar("D")  # what becomes of it
T = TypeVar("T")


class _Ticket(NamedTuple):
    change: Any
    verdict: Future[Any]


class _Task(NamedTuple):
    work: Callable[[], Any]
    done: Future[Any]


class Writer(Generic[C, D]):
    """Group commit: what is submitted while one commit waits for the disk goes together into the next.

    Args:
        commit: makes the changes durable, in order, and says of each what came of it; called by one thread only.
        noun: of what it writes, as in "the catalogue".
        most: weight of the changes in one commit, at most; one change alone may weigh more.
        weigh: how much a change weighs; 1 where not given.
        upkeep: what else that thread has to do, a little of it at a time; returns after how many seconds it wants to be
            called again. Called between two commits once those are over.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[C]], Sequence[D | Exception]],
        *,
        noun: str,
        most: int = 128,
        weigh: Callable[[C], int] = lambda change: 1,
        upkeep: Callable[[], float] | None = None,
    ) -> None:
        self._commit = commit
        self._noun = noun
        self._most = most
        self._weigh = weigh
        self._upkeep = upkeep
        self._queue: SimpleQueue[_Ticket | _Task | None] = SimpleQueue()
        self._ahead: list[_Ticket | _Task | None] = []  # taken from the queue, and next in turn
        self._lock = Lock()
        self._closed = False
        self._thread = Thread(target=self._run, name=f"{noun}-writer", daemon=True)
        self._thread.start()

    def submit(self, change: C) -> D:
        """Returns once the change is durable.

        Raises:
            Exception: what `commit` answered; nothing was changed.
        """
        ticket = _Ticket(change, Future())
        self._put(ticket)
        result: D = ticket.verdict.result()
        return result

    def alone(self, work: Callable[[], T]) -> T:
        """What work() returns, called in the writer's thread between two commits: nothing changes meanwhile.

        Raises:
            Exception: what it raises.
        """
        task = _Task(work, Future())
        self._put(task)
        result: T = task.done.result()
        return result

    def close(self) -> None:
        """Finishes what was submitted; closing again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, what: _Ticket | _Task) -> None:
        with self._lock:
            if self._closed:
                raise StoreFailed(f"the {self._noun} is closed; open it again", reason="STORE_CLOSED")
            self._queue.put(what)

    def _run(self) -> None:
        due = inf if self._upkeep is None else time.monotonic()
        while True:
            if self._upkeep is not None and time.monotonic() >= due:
                due = time.monotonic() + self._upkeep()
            try:
                first = self._next(due)
            except Empty:
                continue
            if first is None:
                return
            if isinstance(first, _Task):
                try:
                    first.done.set_result(first.work())
                except Exception as error:
                    first.done.set_exception(error)
            else:
                self._make(self._gather(first))

    def _next(self, due: float) -> _Ticket | _Task | None:
        """What is to be done next; raises Empty where there is nothing before the time `due`."""
        if self._ahead:
            return self._ahead.pop()
        return self._queue.get(timeout=None if due == inf else max(0.0, due - time.monotonic()))

    def _make(self, batch: Sequence[_Ticket]) -> None:
        try:
            verdicts = self._commit([ticket.change for ticket in batch])
            for ticket, verdict in zip(batch, verdicts, strict=True):
                if isinstance(verdict, Exception):
                    ticket.verdict.set_exception(verdict)
                else:
                    ticket.verdict.set_result(verdict)
        except Exception as error:  # a defect must not leave callers waiting, nor end the thread
            for ticket in batch:
                if not ticket.verdict.done():
                    ticket.verdict.set_exception(error)

    def _gather(self, first: _Ticket) -> list[_Ticket]:
        """The changes that wait by now, up to a task or the end, or until they weigh enough."""
        batch, weight = [first], self._weigh(first.change)
        with suppress(Empty):
            while weight < self._most:
                following = self._queue.get_nowait()
                if not isinstance(following, _Ticket):
                    self._ahead.append(following)
                    break
                batch.append(following)
                weight += self._weigh(following.change)
        return batch
