"""All changes to a store, one after the other, many in one commit."""

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
        commit: makes the changes durable, in order, and says of each what came of it; called by one thread at a time.
        noun: of what it writes, as in "the catalogue".
        most: weight of the changes in one commit, at most; one change alone may weigh more.
        weigh: how much a change weighs; 1 where not given.
        upkeep: what else there is to do, a little of it at a time; returns after how many seconds it wants to be called
            again. Called between two commits once those are over.
        direct: a change that finds nothing else under way is committed by the thread that brings it, which saves the
            way to the writer's own thread and back. Not given: all are committed by that thread.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[C]], Sequence[D | Exception]],
        *,
        noun: str,
        most: int = 128,
        weigh: Callable[[C], int] = lambda change: 1,
        upkeep: Callable[[], float] | None = None,
        direct: bool = False,
    ) -> None:
        self._commit = commit
        self._noun = noun
        self._most = most
        self._weigh = weigh
        self._upkeep = upkeep
        self._queue: SimpleQueue[_Ticket | _Task | None] = SimpleQueue()
        self._ahead: list[_Ticket | _Task | None] = []  # taken from the queue, and next in turn
        self._direct = direct
        self._turn = Lock()  # held by whoever is at the store
        self._lock = Lock()  # over what follows; taken before the turn, by those who do not wait for that
        self._waiting = 0  # what the writer's thread has to do, the queue included
        self._closed = False
        self._thread = Thread(target=self._run, name=f"{noun}-writer", daemon=True)
        self._thread.start()

    def submit(self, change: C) -> D:
        """Returns once the change is durable.

        Raises:
            Exception: what `commit` answered; nothing was changed.
        """
        if self._direct and self._begin():
            try:
                (verdict,) = self._commit([change])
            finally:
                self._turn.release()
            if isinstance(verdict, Exception):
                raise verdict
            return verdict
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
        with self._turn:  # a change that was committed directly may not be over yet
            pass

    def _begin(self) -> bool:
        """Takes the turn if nothing waits and nobody has it; whether it did."""
        with self._lock:
            self._check()
            return not self._waiting and self._turn.acquire(blocking=False)

    def _put(self, what: _Ticket | _Task) -> None:
        with self._lock:
            self._check()
            self._waiting += 1
            self._queue.put(what)

    def _check(self) -> None:
        if self._closed:
            raise StoreFailed(f"the {self._noun} is closed; open it again", reason="STORE_CLOSED")

    def _done(self, count: int) -> None:
        with self._lock:
            self._waiting -= count

    def _run(self) -> None:
        due = inf if self._upkeep is None else time.monotonic()
        while True:
            if self._upkeep is not None and time.monotonic() >= due:
                with self._lock:
                    self._waiting += 1  # or those who commit directly could keep it waiting for ever
                with self._turn:
                    pause = self._upkeep()
                self._done(1)
                due = time.monotonic() + pause
            try:
                first = self._next(due)
            except Empty:
                continue
            if first is None:
                return
            with self._turn:
                count = self._work(first)
            self._done(count)

    def _work(self, first: _Ticket | _Task) -> int:
        """Does that, and what can be committed with it; how many things that was."""
        if isinstance(first, _Ticket):
            batch = self._gather(first)
            self._make(batch)
            return len(batch)
        try:
            first.done.set_result(first.work())
        except Exception as error:
            first.done.set_exception(error)
        return 1

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
