"""One thread that makes all changes, many in one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple, TypeVar

from matchcut.server.catalog.changes import Change, Decision
from matchcut.server.errors import StoreFailed

T = TypeVar("T")
Verdict = Decision | Exception
_MOST = 128  # changes in one commit


class _Ticket(NamedTuple):
    change: Change
    verdict: Future[Decision]


class _Task(NamedTuple):
    work: Callable[[], Any]
    done: Future[Any]


class Writer:
    """Group commit: what is submitted while one commit waits for the disk goes together into the next.

    Args:
        commit: makes the changes durable, in order, and says of each what came of it; called by one thread only.
    """

    def __init__(self, commit: Callable[[Sequence[Change]], Sequence[Verdict]]) -> None:
        self._commit = commit
        self._queue: SimpleQueue[_Ticket | _Task | None] = SimpleQueue()
        self._ahead: list[_Ticket | _Task | None] = []  # taken from the queue, and next in turn
        self._lock = Lock()
        self._closed = False
        self._thread = Thread(target=self._run, name="catalog-writer", daemon=True)
        self._thread.start()

    def submit(self, change: Change) -> Decision:
        """Returns once the change is durable.

        Raises:
            Exception: what `commit` answered; nothing was changed.
        """
        ticket = _Ticket(change, Future())
        self._put(ticket)
        return ticket.verdict.result()

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
                raise StoreFailed("the catalogue is closed; open it again", reason="STORE_CLOSED")
            self._queue.put(what)

    def _run(self) -> None:
        while (first := self._ahead.pop() if self._ahead else self._queue.get()) is not None:
            if isinstance(first, _Task):
                try:
                    first.done.set_result(first.work())
                except Exception as error:
                    first.done.set_exception(error)
            else:
                self._make(self._gather(first))

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
        """The changes that wait by now, up to a task or the end."""
        batch = [first]
        with suppress(Empty):
            while len(batch) < _MOST:
                following = self._queue.get_nowait()
                if not isinstance(following, _Ticket):
                    self._ahead.append(following)
                    break
                batch.append(following)
        return batch
