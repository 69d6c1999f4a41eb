"""Makes users' states anew in the background after another session model has taken over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Condition, Thread

from matchcut.server.errors import MatchcutError
from matchcut.server.events.contract import EventLog
from matchcut.server.records import UserKey
from matchcut.server.users.cache import Cache, Entry
from matchcut.server.users.fold import fold
from matchcut.server.users.served import Lease, Served

__all__ = ["Rebuilding"]

_BATCH = 256  # users whose states are made together

_log = logging.getLogger("matchcut.users")


class Rebuilding:
    """One thread that goes through the states in memory, those asked for last first, until all are of the model served.

    It holds no user's lock while it works. What it made is taken only where nothing has happened to the user meanwhile;
    else, and where it fails, the state is made at the next recall.

    rebuilt: states that it has made so far.
    """

    def __init__(self, cache: Cache, served: Served, log: EventLog, ring: int) -> None:
        self.rebuilt = 0
        self._cache = cache
        self._served = served
        self._events = log
        self._ring = ring
        self._news = Condition()
        self._wanted = self._closed = False
        self._thread = Thread(target=self._run, name="rebuilding", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Another model is served from now on."""
        with self._news:
            self._wanted = True
            self._news.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is through, so many seconds at most; whether it is."""
        with self._news:
            return self._news.wait_for(lambda: not self._wanted or self._closed, timeout)

    def close(self) -> None:
        """Gives up what it is at; closing again does nothing."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._wanted or self._closed)
                if self._closed:
                    return
            number = self._served.number
            try:
                self._through(number)
            except MatchcutError as error:
                _log.warning("users' states are made anew one by one, when they are asked for: %s", error)
            except Exception:
                _log.exception("users' states are made anew one by one, when they are asked for")
            with self._news:
                if number == self._served.number:
                    self._wanted = False
                    self._news.notify_all()

    def _through(self, number: int) -> None:
        """Makes all states that are not of that model, unless another takes over meanwhile."""
        by_tenant: dict[str, list[UserKey]] = {}
        for user in self._cache.users():
            by_tenant.setdefault(user.tenant, []).append(user)
        for users in by_tenant.values():
            for start in range(0, len(users), _BATCH):
                if self._closed:
                    return
                with self._served.lease() as lease:
                    if lease.number != number:
                        return
                    self._rebuild(users[start : start + _BATCH], lease)

    def _rebuild(self, users: Sequence[UserKey], lease: Lease) -> None:
        """Makes the states of users of one tenant."""
        old: list[tuple[UserKey, Entry, int, int]] = []
        for user in users:
            entry = self._cache.find(user)
            if entry is not None:
                with entry.lock:
                    if entry.of != lease.number:
                        old.append((user, entry, entry.changes, entry.trims))
        if not old:
            return
        tenant, galleries = old[0][0].tenant, lease.galleries
        epoch, _ = galleries.changed_since(tenant, 0)
        events = self._events.events_of([user for user, _, _, _ in old])
        folds = fold(galleries.model, galleries.gallery(tenant), events, self._ring)
        for (user, entry, changes, trims), made in zip(old, folds, strict=True):
            with entry.lock:
                if entry.changes == changes and entry.of != lease.number:
                    entry.take(made, of=lease.number, epoch=epoch, trims=trims)
                    self._cache.resize(user, entry)
                    self.rebuilt += 1
