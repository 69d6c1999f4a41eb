"""A log of events in a dict, which keeps the contract of server/events as far as others rely on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from threading import Lock

from matchcut.server.errors import StoreFailed
from matchcut.server.events.contract import Appended, LogSizes
from matchcut.server.events.strengths import strength
from matchcut.server.records import Event, Exposure, ItemCounts, Logged, Receipt, UserKey


def pseudonym(tenant: str, what: str, value: str) -> bytes:
    return blake2b(f"{tenant}\0{what}\0{value}".encode(), digest_size=16).digest()


class FakeLog:
    """See events.contract.EventLog.

    broken: while it is set, appending and reading fail. reads: how often events of a user were read.
    """

    def __init__(self) -> None:
        self.broken = False
        self.reads = 0
        self._lock = Lock()
        self._events: dict[UserKey, dict[bytes, Logged]] = {}
        self._known: set[tuple[str, bytes]] = set()
        self._introduced: dict[tuple[str, str], int] = {}

    def key(self, tenant: str, user_id: str) -> UserKey:
        return UserKey(tenant, pseudonym(tenant, "user", user_id))

    def append(self, tenant: str, events: Sequence[Event]) -> Appended:
        self._check()
        logged: list[tuple[UserKey, Logged]] = []
        with self._lock:
            for event in events:
                digest = pseudonym(tenant, "event", event.event_id)
                if (tenant, digest) in self._known:
                    continue
                self._known.add((tenant, digest))
                user = self.key(tenant, event.user_id)
                kept = Logged(event.time_us, digest, event.item_id, event.kind, strength(event))
                self._events.setdefault(user, {})[digest] = kept
                logged.append((user, kept))
        return Appended(tuple(logged), len(events) - len(logged))

    def events(self, user: UserKey) -> list[Logged]:
        self._check()
        self.reads += 1
        with self._lock:
            return sorted(self._events.get(user, {}).values(), key=lambda event: event.order)

    def events_of(self, users: Sequence[UserKey]) -> list[list[Logged]]:
        return [self.events(user) for user in users]

    def trim(self, user: UserKey, keep: int) -> None:
        """Lets go of all but the latest events."""
        for event in self.events(user)[:-keep]:
            del self._events[user][event.digest]

    def expose(self, user: UserKey, exposure: Exposure) -> None:
        raise NotImplementedError

    def popularity(self, tenant: str) -> Mapping[str, int]:
        raise NotImplementedError

    def counts(self, tenant: str, item_ids: Sequence[str], limit: int) -> list[ItemCounts]:
        raise NotImplementedError

    def introduced(self, tenant: str, item_ids: Sequence[str], now_us: int) -> dict[str, int]:
        self._check()
        with self._lock:
            return {item_id: self._introduced.setdefault((tenant, item_id), now_us) for item_id in item_ids}

    def forget(self, tenant: str, user_id: str) -> Receipt:
        self._check()
        with self._lock:
            gone = self._events.pop(self.key(tenant, user_id), {})
            self._known -= {(tenant, digest) for digest in gone}
        return Receipt(len(gone), 0, 0, "")

    def sizes(self) -> LogSizes:
        return LogSizes(sum(map(len, self._events.values())), len(self._events))

    def close(self) -> None:
        """Nothing to do."""

    def _check(self) -> None:
        if self.broken:
            raise StoreFailed("the log is broken")
