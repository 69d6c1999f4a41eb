"""What is written soon, not at once: nobody waits for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from matchcut.server.events.changing import Change, Tenant
from matchcut.server.records import Exposure

_MOST = 10_000  # exposures that may wait

_log = logging.getLogger("matchcut.events")


class Shown(NamedTuple):
    """A list that was shown to a user."""

    tenant: Tenant
    user: bytes
    exposure: Exposure


class Later:
    """Exposures, and when items were introduced. Any thread adds, one writes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._shown: list[Shown] = []
        self._introduced: dict[tuple[Tenant, str], int] = {}
        self._lost = 0

    def expose(self, tenant: Tenant, user: bytes, exposure: Exposure) -> None:
        """To be kept. Where the disk has taken none for long, the oldest are let go of, and the log says so."""
        self.back([Shown(tenant, user, exposure)])

    def back(self, shown: Sequence[Shown]) -> None:
        """As taken."""
        with self._lock:
            self._shown += shown
            lost = max(0, len(self._shown) - _MOST)
            del self._shown[:lost]
            if lost and not self._lost:
                _log.error("lists that were shown could not be kept: more than %d wait for the disk", _MOST)
            self._lost += lost

    def introduce(self, tenant: Tenant, item_ids: Sequence[str], now_us: int) -> dict[str, int]:
        """To be kept; when each was, which is earlier where it waits already."""
        with self._lock:
            return {item_id: self._introduced.setdefault((tenant, item_id), now_us) for item_id in item_ids}

    def introduced(self, tenant: Tenant, item_ids: Sequence[str]) -> dict[str, int]:
        """When those of the items were introduced that wait to be written."""
        with self._lock:
            found = {item_id: self._introduced.get((tenant, item_id)) for item_id in item_ids}
        return {item_id: time_us for item_id, time_us in found.items() if time_us is not None}

    def take(self, tenant: Tenant, user: bytes) -> list[Shown]:
        """The exposures of a user, not to be written any more."""
        with self._lock:
            taken = [one for one in self._shown if one[:2] == (tenant, user)]
            self._shown = [one for one in self._shown if one[:2] != (tenant, user)]
            return taken

    def waits(self) -> bool:
        """Whether there is anything to be written."""
        return bool(self._shown or self._introduced)

    def write(self, change: Change) -> None:
        """Puts all of it into a transaction; done() is to be called after it."""
        self._writing = self._shown[:], dict(self._introduced)
        for one in self._writing[0]:
            change.expose(*one)
        tenants: dict[Tenant, dict[str, int]] = {}
        for (tenant, item_id), time_us in self._writing[1].items():
            tenants.setdefault(tenant, {})[item_id] = time_us
        for tenant, times_us in tenants.items():
            change.introduce(tenant, times_us)

    def done(self) -> set[Tenant]:
        """What was written is durable; whose it is."""
        shown, introduced = self._writing
        with self._lock:
            written = set(map(id, shown))
            self._shown = [one for one in self._shown if id(one) not in written]
            for key in introduced:
                del self._introduced[key]
            self._lost = 0
        return {one.tenant for one in shown} | {tenant for tenant, _ in introduced}
