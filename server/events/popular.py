"""For how many users each item speaks, kept at hand in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from threading import Event as Flag
from types import MappingProxyType

from matchcut.server.events import schema
from matchcut.server.events.anonymity import published
from matchcut.server.events.changing import Favoured, Tenant
from matchcut.server.events.store import Store

_PIECE = 2000  # items that are read at once
_WAIT_S = 1.0  # for which a first question waits until all has been read
_SHARE = 0.01  # of the time that copies may take


class Popular:
    """The published numbers of all tenants: read from the store in the background, then kept up with each commit.

    Args:
        threshold: see anonymity.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._tenants: dict[str, _Known] = {}

    def of(self, tenant: Tenant) -> Mapping[str, int]:
        """By item; what had been read by now, where that takes longer than a second."""
        known = self._tenants.get(tenant.name)
        if known is None:
            return MappingProxyType({})
        known.complete.wait(_WAIT_S)
        return known.copy()

    def changed(self, numbers: Mapping[Tenant, Favoured]) -> None:
        """What has changed, as it is on the disk now."""
        for tenant, favoured in numbers.items():
            if (known := self._tenants.get(tenant.name)) is None:
                known = self._tenants[tenant.name] = _Known(complete=True)  # new: begin() named all the others
            known.put((item_id, published(users, self._threshold)) for item_id, users in favoured.items())

    def begin(self, tenants: Iterable[Tenant]) -> None:
        """Says of whom there is something to be read."""
        for tenant in tenants:
            self._tenants[tenant.name] = _Known(complete=False)

    def load(self, store: Store, tenants: Mapping[str, Tenant]) -> bool:
        """Reads a little more; called by the thread that writes. Whether there is more still."""
        for name, known in self._tenants.items():
            if not known.complete.is_set():
                asked = {"tenant": tenants[name].number, "after": known.after, "n": _PIECE}
                found: list[tuple[str, int]] = json.loads(store.read(schema.FAVOURED_AFTER, asked))
                known.put((item_id, published(users, self._threshold)) for item_id, users in found)
                if len(found) < _PIECE:
                    known.complete.set()
                else:
                    known.after = found[-1][0]
                return True
        return False


class _Known:
    """One tenant's. Changed by one thread at a time, copied by any."""

    def __init__(self, *, complete: bool) -> None:
        self.complete = Flag()
        if complete:
            self.complete.set()
        self.after = ""  # the last item that was read
        self._numbers: dict[str, int] = {}
        self._version = 0
        self._copy: tuple[int, Mapping[str, int], float] = 0, MappingProxyType({}), 0.0

    def put(self, numbers: Iterable[tuple[str, int]]) -> None:
        changed = False
        for item_id, users in numbers:
            if self._numbers.get(item_id, 0) != users:
                changed = True
                if users:
                    self._numbers[item_id] = users
                else:
                    del self._numbers[item_id]
        self._version += changed

    def copy(self) -> Mapping[str, int]:
        """As of now, or as of so short a time ago that copying takes a hundredth of all time at most."""
        version, copied, until = self._copy
        if version != self._version and time.monotonic() >= until:
            began, version = time.monotonic(), self._version
            copied = MappingProxyType(self._numbers.copy())  # in one step, as far as other threads can see
            ended = time.monotonic()
            self._copy = version, copied, ended + (ended - began) / _SHARE
        return copied
