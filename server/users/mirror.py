"""Items with one vector each in memory, and what changed of them when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np

from matchcut.server.catalog.changes import Change, Decision, Put, Remove
from matchcut.server.catalog.coder import Coding
from matchcut.server.catalog.contract import Known, View
from matchcut.server.catalog.edition import LocalEdition
from matchcut.server.catalog.growing import Growing
from matchcut.server.catalog.keeper import Keeper
from matchcut.server.catalog.memory import Memory
from matchcut.server.records import EncoderIdentity
from matchcut.server.users.contract import Gallery

__all__ = ["Mirror"]

_TOLD = 16_384  # changes of a tenant, at least, that can be told apart


class Mirror:
    """A catalogue without a disk, changed by one thread and read by many.

    Filters, exclusions, tenants and the coded scan are the catalogue's own; beside each item stands when it was
    introduced, at the item's number, and both are read as of one moment.

    Args:
        encoder: whose vectors they are.
        coding, scan_from: see catalog.open_catalog.
    """

    def __init__(self, encoder: EncoderIdentity, *, coding: Coding | None, scan_from: int) -> None:
        self._encoder = encoder
        self._keeper = Keeper(Memory(), None, coding=coding, scan_from=scan_from)
        self._edition = LocalEdition(self._keeper.memory, self._keeper.lock)
        self._tenants: dict[str, _Tenant] = {}
        self._lock = Lock()  # so that items and times are of one moment; taken before the keeper's

    def gallery(self, tenant: str) -> Gallery:
        """A tenant's items as of now."""
        with self._lock:
            found = self._tenants.get(tenant)
            introduced = Growing(np.int64).array if found is None else found.introduced.array
            return Gallery(self._view(tenant), introduced)

    def changed_since(self, tenant: str, epoch: int) -> tuple[int, set[str] | None]:
        """See Galleries.changed_since."""
        with self._lock:
            found = self._tenants.get(tenant)
            if found is None:
                return 0, set() if epoch == 0 else None
            return found.changed_since(epoch)

    def known(self, tenant: str, item_id: str) -> Known | None:
        """What is there under that id."""
        with self._keeper.lock:
            return self._keeper.memory.known(tenant, item_id)

    def apply(self, changes: Sequence[Change], introduced: Mapping[tuple[str, str], int]) -> None:
        """Makes changes, all visible at once; no two of the same item.

        Args:
            introduced: when the items that are put in were, by tenant and id.

        Raises:
            Exception: some could not be made, the first one's error; all others are made.
        """
        with self._lock:
            verdicts = self._keeper.commit(changes)
            made: dict[str, list[Change]] = {}
            for verdict in verdicts:
                if isinstance(verdict, Decision) and verdict.change is not None:
                    made.setdefault(verdict.change.tenant, []).append(verdict.change)
            for tenant, its in made.items():
                found = self._tenants.setdefault(tenant, _Tenant())
                found.note(its, {change.item_id: introduced.get((tenant, change.item_id), 0) for change in its})
                found.number(self._view(tenant), its)
        for verdict in verdicts:
            if isinstance(verdict, Exception):
                raise verdict

    def close(self) -> None:
        """Ends the coding."""
        self._keeper.close()

    def _view(self, tenant: str) -> View:
        return self._edition.view(tenant, self._encoder)


class _Tenant:
    """When a tenant's items were introduced, and which of them changed last.

    introduced: by number, as of the last number().
    """

    def __init__(self) -> None:
        self.introduced = Growing(np.int64)
        self._times: dict[str, int] = {}
        self._changed: list[str] = []
        self._forgotten = 0  # changes before the first of _changed

    def changed_since(self, epoch: int) -> tuple[int, set[str] | None]:
        now = self._forgotten + len(self._changed)
        if not self._forgotten <= epoch <= now:
            return now, None
        return now, set(self._changed[epoch - self._forgotten :])

    def note(self, changes: Sequence[Change], times: Mapping[str, int]) -> None:
        """Remembers what was changed."""
        for change in changes:
            match change:
                case Put(item_id=item_id):
                    self._times[item_id] = times[item_id]
                    self._changed.append(item_id)
                case Remove(item_id=item_id):
                    self._times.pop(item_id, None)
                    self._changed.append(item_id)
        if len(self._changed) > 2 * _TOLD:
            self._forgotten += len(self._changed) - _TOLD
            del self._changed[:-_TOLD]

    def number(self, view: View, changes: Sequence[Change]) -> None:
        """Puts the times in the order of the items' numbers."""
        put = [change.item_id for change in changes if isinstance(change, Put)]
        count = int(view.groups[-1]) + 1 if len(view.groups) else 0
        if count == len(self.introduced) + len(put):  # only compaction, which drops at least one, numbers items anew
            self.introduced.extend([self._times[item_id] for item_id in put])
        else:
            times = [self._times.get(view.item(group).item_id, 0) for group in range(count)]
            self.introduced = Growing.of(np.array(times, np.int64))
