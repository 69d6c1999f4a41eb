"""Which session model is served, and when the one before it can be let go of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from matchcut.server.errors import Unavailable
from matchcut.server.users.gallery import Galleries

__all__ = ["Lease", "Served"]


class Lease:
    """One session model with its galleries, and how many use it. number: of the model, counted from 1."""

    def __init__(self, galleries: Galleries, number: int) -> None:
        self.galleries = galleries
        self.number = number
        self.users = 0


class Served:
    """Hands the present session model out, and closes each one that was replaced once nobody uses it any more.

    Args:
        galleries: the first; its owner from now on is this, the model included.
    """

    def __init__(self, galleries: Galleries) -> None:
        self._lock = Lock()
        self._now: Lease | None = Lease(galleries, 1)
        self._last = 1

    @property
    def number(self) -> int:
        """Of the model that is served now."""
        return self._last

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """The present model, which stays usable for as long as the block runs.

        Raises:
            Unavailable: it is closed.
        """
        with self._lock:
            if self._now is None:
                raise Unavailable("the server is stopping; no user's state is made any more")
            held = self._now
            held.users += 1
        try:
            yield held
        finally:
            self._leave(held)

    def replace(self, galleries: Galleries | None) -> None:
        """Serves another from now on; None: none any more. Requests under way end with what they began with."""
        with self._lock:
            before = self._now
            if before is None:
                now = None
            else:
                before.users += 1  # ours, so that whoever leaves last closes it
                self._last += galleries is not None
                now = None if galleries is None else Lease(galleries, self._last)
            self._now = now
        if before is not None:
            self._leave(before)
        elif galleries is not None:
            _close(galleries)

    def _leave(self, lease: Lease) -> None:
        with self._lock:
            lease.users -= 1
            over = lease.users == 0 and lease is not self._now
        if over:
            _close(lease.galleries)


def _close(galleries: Galleries) -> None:
    galleries.close()
    galleries.model.close()
