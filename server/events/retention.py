"""How long events are kept, and how many of a user."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from matchcut.server.events import schema
from matchcut.server.events.changing import Change, Tenant
from matchcut.server.events.plausible import Plausible
from matchcut.server.events.rows import Row
from matchcut.server.events.store import Store
from matchcut.server.records import UserKey

DAY_US = 24 * 3600 * 1_000_000
_FIRST_S, _PERIOD_S = 60.0, 24 * 3600.0  # until the first look at all users, and between two
_PACE_S, _IDLE_S = 0.05, 60.0  # between two pieces of it, and where there is nothing to do
_COUNTED = 200_000  # users of whom it is known how many events have come; beyond, the daily look has to do
_SLACK = 0.25  # of what is kept of a user: this much more is let come before it is cut back
_USERS = 256  # that are looked at in one piece
_EXPOSURES = 256


class Retention:
    """Deletes what is too old or too much, a little at a time, in the thread that writes.

    All users are looked at once a day, in the order of their digests. Besides, a user is counted whenever a quarter of
    what is kept has come in since the last time. Who has more than 1.25 times as many events as asked for is cut back
    to that; so there are 1.5 times as many at most, one commit aside.

    Args:
        days: 0: for ever.
        user_events: of one user, the latest; 0: any number.
        clock_us: tells the time; it is believed as Plausible says.
        trimmed: told of whom something has been deleted.
    """

    def __init__(
        self,
        store: Store,
        *,
        days: int,
        user_events: int,
        clock_us: Callable[[], int],
        trimmed: Callable[[Sequence[UserKey]], None],
    ) -> None:
        self._store = store
        self._days = days
        self._most = user_events
        self._clock_us = Plausible(clock_us)
        self._trimmed = trimmed
        self._came: dict[tuple[Tenant, bytes], int] = {}  # events since the user was counted
        self._crowded: list[tuple[Tenant, bytes]] = []
        self._tenants: list[Tenant] = []  # that are still to be looked at
        self._after = b""  # the user of the last of them that was looked at
        self._ageing = False  # exposures may be too old
        self._next = time.monotonic() + _FIRST_S

    @property
    def before_us(self) -> int:
        """What is older than this goes."""
        return self._clock_us() - self._days * DAY_US if self._days else 0

    def came(self, tenant: Tenant, rows: Sequence[Row]) -> None:
        """Events are new."""
        if not self._most:
            return
        slack = max(1, int(self._most * _SLACK))
        if len(self._came) > _COUNTED:
            self._came.clear()
        for row in rows:
            user = tenant, row.user
            count = self._came.get(user, 0) + 1
            self._came[user] = count
            if count == slack:
                self._crowded.append(user)

    def forgotten(self, tenant: Tenant, user: bytes) -> None:
        """Nothing is left of the user."""
        self._came.pop((tenant, user), None)

    def tend(self) -> float:
        """One piece; after how many seconds the next is due."""
        if self._crowded:
            users = self._crowded[:_USERS]
            self._trim(users)
            del self._crowded[: len(users)]
            for user in users:
                self._came.pop(user, None)
            return 0.0
        if not self._tenants and time.monotonic() >= self._next and (self._days or self._most):
            self._next = time.monotonic() + _PERIOD_S
            self._tenants = list(self._store.tenants.values())
            self._after = b""
        if self._ageing:
            self._age_exposures()
            return _PACE_S
        if self._tenants:
            self._sweep(self._tenants[-1])
            return _PACE_S
        return _IDLE_S

    @property
    def _limit(self) -> int:
        """Of the events of a user, beyond which they are cut back."""
        return int(self._most * (1 + _SLACK))

    def _sweep(self, tenant: Tenant) -> None:
        asked = {"tenant": tenant.number, "after": self._after, "n": _USERS, "before": self.before_us}
        last, count, found = json.loads(self._store.read(schema.SWEEP, asked | {"most": self._limit}))
        self._trim([(tenant, bytes.fromhex(user)) for user in found])
        self._after = bytes.fromhex(last)
        if count < _USERS:
            self._tenants.pop()
            self._after = b""
            self._ageing = True

    def _trim(self, users: Sequence[tuple[Tenant, bytes]]) -> None:
        before_us = self.before_us

        def work(change: Change) -> list[UserKey]:
            gone = []
            for tenant, user in users:
                most = self._most if self._most and change.exceeds(tenant, user, self._limit) else 0
                if change.trim(tenant, user, before_us, most):
                    gone.append(UserKey(tenant.name, user))
            return gone

        if users and (gone := self._store.change(work)):
            self._trimmed(gone)

    def _age_exposures(self) -> None:
        tenants = {tenant.number: tenant for tenant in self._store.tenants.values()}
        self._ageing = self._store.change(lambda change: change.age_exposures(tenants, self.before_us, _EXPOSURES)) > 0
