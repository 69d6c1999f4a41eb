"""One thread that makes all changes, many in one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

from matchcut.server.catalog.changes import Change, Decision
from matchcut.server.errors import StoreFailed

Verdict = Decision | Exception
_MOST = 128  # changes in one commit


class _Ticket(NamedTuple):
    change: Change
    verdict: Future[Decision]


class Writer:
    """Group commit: what is submitted while one commit waits for the disk goes together into the next.

    Args:
        commit: makes the changes durable, in order, and says of each what came of it; called by one thread only.
    """

    def __init__(self, commit: Callable[[Sequence[Change]], Sequence[Verdict]]) -> None:
        self._commit = commit
        self._queue: SimpleQueue[_Ticket | None] = SimpleQueue()
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
        with self._lock:
            if self._closed:
                raise StoreFailed("the catalogue is closed; open it again", reason="STORE_CLOSED")
            self._queue.put(ticket)
        return ticket.verdict.result()

    def close(self) -> None:
        """Finishes what was submitted; closing again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = self._gather(first)
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
            if last:
                return

    def _gather(self, first: _Ticket) -> tuple[list[_Ticket], bool]:
        """What is waiting by now, and whether the end was among it."""
        batch = [first]
        with suppress(Empty):
            while len(batch) < _MOST:
                ticket = self._queue.get_nowait()
                if ticket is None:
                    return batch, True
                batch.append(ticket)
        return batch, False
