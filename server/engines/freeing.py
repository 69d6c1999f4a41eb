"""Closes engines once nobody uses them any more, wherever that comes to be so."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

__all__ = ["Freeing"]

Close = Callable[[], None]
log = logging.getLogger(__name__)


class Closing(Protocol):
    """What can be closed, more than once."""

    def close(self) -> None: ...


class Freeing:
    """Sees objects go, without keeping them, and then closes what they used, in a thread of its own.

    The last reference to an object may be dropped in any thread, also on an event loop or by the garbage collector: no
    place to free an engine's memory, or a GPU's.
    """

    def __init__(self) -> None:
        self._due: SimpleQueue[Close | None] = SimpleQueue()  # a finaliser may put into it whatever it interrupts
        self._watched: list[weakref.finalize] = []  # type: ignore[type-arg]  # typeshed and Python 3.11 disagree
        self._thread = threading.Thread(target=self._run, name="matchcut-freeing", daemon=True)
        self._thread.start()

    def watch(self, user: Closing, then: Close) -> None:
        """Calls `then`, which must not hold the user, once the user has gone, or close() has closed it."""
        watched = weakref.finalize(user, self._due.put, then)
        watched.atexit = False
        self._watched.append(watched)

    def close(self) -> None:
        """Closes what is still there, the last first, and what that used; waits for what is under way."""
        while self._watched:
            alive = self._watched.pop().detach()
            if alive is not None:
                user, _, (then,), _ = alive
                freed(user.close)
                freed(then)
        self._due.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (then := self._due.get()) is not None:
            freed(then)


def freed(close: Close) -> None:
    """Closes something; where that fails it is a line in the log, so that it hinders no other."""
    try:
        close()
    except Exception:
        log.exception("what is not used any more could not be freed")
