"""What the log of events promises; nothing above knows more of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from matchcut.server.records import Event, Exposure, ItemCounts, Logged, Receipt, UserKey

FILE = "events.sqlite"  # in the data folder


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events. logged: those that are new, in the order given; duplicates: how many were there before."""

    logged: tuple[tuple[UserKey, Logged], ...]
    duplicates: int


@dataclass(frozen=True, slots=True)
class LogSizes:
    """How much the log holds, all tenants together."""

    events: int = 0
    users: int = 0
    exposures: int = 0
    bytes: int = 0


class EventLog(Protocol):
    """Events of users, by tenant. Safe to be used by several threads at once.

    A change is durable when its call returns; where it raises, nothing has changed. No id of a user, event, session or
    recommendation is at rest in it, but digests made with a salt of the tenant's own.
    """

    def key(self, tenant: str, user_id: str) -> UserKey:
        """Under which the user is kept."""
        ...

    def append(self, tenant: str, events: Sequence[Event]) -> Appended:
        """Keeps events, all or none; many calls share a commit.

        Of two events of one id, in this call or another, the first is kept.

        Raises:
            StoreFailed: the disk failed, or is full (STORE_FULL).
            Unavailable: the file is gone from it (STORE_GONE), also where all of the events are there already.
        """
        ...

    def events(self, user: UserKey) -> list[Logged]:
        """All that is kept of the user, in order."""
        ...

    def events_of(self, users: Sequence[UserKey]) -> list[list[Logged]]:
        """The same for many at once, in the order given."""
        ...

    def expose(self, user: UserKey, exposure: Exposure) -> None:
        """Keeps what was shown to a user; durable within about a second, not when the call returns."""
        ...

    def popularity(self, tenant: str) -> Mapping[str, int]:
        """For each item how many users it speaks for (strength above 0) within the retention; a number below the
        threshold of anonymity is left out. Cheap: kept up to date, a copy of some seconds ago at most. Not to be
        written to."""
        ...

    def counts(self, tenant: str, item_ids: Sequence[str], limit: int) -> list[ItemCounts]:
        """Of these items in that order, or (none given) of the `limit` with the most users; anonymous: see ItemCounts
        and anonymity."""
        ...

    def introduced(self, tenant: str, item_ids: Sequence[str], now_us: int) -> dict[str, int]:
        """When each item was first heard of, in microseconds since the epoch; those that are new get now_us, durably
        before long."""
        ...

    def forget(self, tenant: str, user_id: str) -> Receipt:
        """Deletes all that is kept of the user, from every file of the log; when it returns no byte of it is there."""
        ...

    def sizes(self) -> LogSizes:
        """How much there is, for whoever watches the server."""
        ...

    def close(self) -> None:
        """Finishes what was begun. Closing again does nothing."""
        ...
