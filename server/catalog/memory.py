"""All tenants' items in memory: what every read of the catalogue is answered from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice

import numpy as np

from matchcut.server.catalog.changes import Amend, Change, Put, Remove, Stage
from matchcut.server.catalog.contract import Known, Readiness, Sizes, Stored
from matchcut.server.catalog.filed import Rows, held
from matchcut.server.catalog.shelf import Shelf, ShelfView
from matchcut.server.records import EncoderIdentity, Item

_BLOCK = 16  # items put in at once at the start: few enough that no memory has to be asked of the system for them

Key = tuple[str, int]  # digest and dimensions of an encoder: vectors are compared where both agree


def key_of(encoder: EncoderIdentity) -> Key:
    """What decides on which shelf an encoder's vectors stand."""
    return encoder.digest, encoder.dimensions


class _Tenant:
    """One tenant's shelves, on which of them each item stands, in the order of ingest, and what is kept aside."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.shelves: dict[Key, Shelf] = {}
        self.home: dict[str, Key] = {}
        self.staged: dict[str, Stage] = {}
        self._sorted: list[str] | None = None  # made when the first page is asked for

    def known(self, item_id: str) -> Known | None:
        key = self.home.get(item_id)
        return None if key is None else self.shelves[key].known(item_id)

    def shelf(self, key: Key) -> Shelf:
        found = self.shelves.get(key)
        if found is None:
            found = self.shelves[key] = Shelf(key[1], self._rows)
        return found

    def put(self, change: Put) -> None:
        if change.item_id in self.home:
            self._leave(change.item_id)
        elif self._sorted is not None:
            insort(self._sorted, change.item_id)
        key = key_of(change.known.encoder)
        self.shelf(key).append([change.known], change.ranges, change.vectors, [len(change.vectors)])
        self.home.pop(change.item_id, None)  # so that it goes to the end
        self.home[change.item_id] = key
        self.staged.pop(change.item_id, None)

    def load(self, key: Key, puts: Sequence[Put]) -> None:
        ranges = np.concatenate([put.ranges for put in puts])
        vectors = np.concatenate([put.vectors for put in puts])
        self.shelf(key).append([put.known for put in puts], ranges, vectors, [len(put.vectors) for put in puts])
        self.home |= {put.item_id: key for put in puts}

    def amend(self, item: Item) -> None:
        self.shelves[self.home[item.item_id]].amend(item)

    def remove(self, item_id: str) -> None:
        self._leave(item_id)
        del self.home[item_id]
        self.staged.pop(item_id, None)
        if self._sorted is not None:
            del self._sorted[bisect_left(self._sorted, item_id)]

    def lacks(self, item_id: str, key: Key) -> bool:
        stage = self.staged.get(item_id)
        return self.home[item_id] != key and (stage is None or key_of(stage.known.encoder) != key)

    def ready(self, key: Key) -> int:
        shelf = self.shelves.get(key)
        aside = sum(key_of(stage.known.encoder) == key for stage in self.staged.values())
        return aside + (0 if shelf is None else shelf.view().count)

    def put_after(self, name: str, item_id: str, key: Key, views: Mapping[tuple[str, Key], ShelfView]) -> Put:
        """What puts an item into another memory, once that encoder has taken over."""
        home = self.home[item_id]
        known = self.shelves[home].known(item_id)
        stage = self.staged.get(item_id)
        if stage is not None and key_of(stage.known.encoder) == key:
            return stage.put(known.item)
        return Put(name, known, *views[name, home].arrays(item_id))

    def ids(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.home)
        return self._sorted

    def _leave(self, item_id: str) -> None:
        key = self.home[item_id]
        shelf = self.shelves[key]
        shelf.drop(item_id)
        if not len(shelf):
            del self.shelves[key]
        elif shelf.wasteful:
            with suppress(MemoryError):  # the change is durable already; waste is better than half of it
                self.shelves[key] = shelf.compacted()


class Memory:
    """Items by tenant and id, vectors by tenant and encoder. One thread at a time, save for the views it gives.

    Args:
        rows: makes what vectors are kept in.
    """

    def __init__(self, rows: Rows = held) -> None:
        self._rows = rows
        self._tenants: dict[str, _Tenant] = {}

    def reserve(self, rows: Iterable[tuple[str, Key, int, int]]) -> None:
        """Makes room for so many (tenant, key, rows, items), so that what follows cannot fail.

        Raises:
            MemoryError: there is no room.
        """
        for tenant, key, count, items in rows:
            self._tenant(tenant).shelf(key).reserve(count, items)

    def reserve_for(self, changes: Iterable[Change]) -> None:
        """Likewise for what the changes put in."""
        rows: Counter[tuple[str, Key]] = Counter()
        items: Counter[tuple[str, Key]] = Counter()
        for change in changes:
            if isinstance(change, Put):
                where = change.tenant, key_of(change.known.encoder)
                rows[where] += len(change.vectors)
                items[where] += 1
        self.reserve((tenant, key, count, items[tenant, key]) for (tenant, key), count in rows.items())

    def load(self, puts: Iterable[Put]) -> None:
        """Puts in items whose ids are not there yet, each once, many at a time.

        Raises:
            MemoryError: there is no room; some of them may be in.
        """
        for (tenant, key), run in groupby(puts, lambda put: (put.tenant, key_of(put.known.encoder))):
            while block := list(islice(run, _BLOCK)):
                self._tenant(tenant).load(key, block)

    def apply(self, change: Change) -> None:
        """Makes a change that `changes.decide` found to be due."""
        match change:
            case Put():
                self._tenant(change.tenant).put(change)
            case Stage(tenant=tenant):
                self._tenants[tenant].staged[change.item_id] = change
            case Amend(tenant=tenant, item=item):
                self._tenants[tenant].amend(item)
            case Remove(tenant=tenant, item_id=item_id):
                self._tenants[tenant].remove(item_id)
                if not self._tenants[tenant].home:
                    del self._tenants[tenant]

    def switched(self, key: Key, views: Mapping[tuple[str, Key], ShelfView]) -> Memory:
        """Another memory, in which what is kept aside of an encoder is the items' own; nothing of this one changes.

        May take long. Nothing may change this one meanwhile; it may be read.

        Args:
            views: of all shelves; see views().

        Raises:
            MemoryError: there is no room.
        """
        fresh = Memory(self._rows)
        for name, tenant in self._tenants.items():
            puts = [tenant.put_after(name, item_id, key, views) for item_id in tenant.home]  # in the order of ingest
            fresh.reserve_for(puts)
            for put in puts:
                fresh.apply(put)
        return fresh

    def views(self) -> dict[tuple[str, Key], ShelfView]:
        """What stands on all shelves now."""
        return {
            (name, key): shelf.view() for name, tenant in self._tenants.items() for key, shelf in tenant.shelves.items()
        }

    def items(self) -> Iterator[tuple[str, str]]:
        """Tenant and id of each item, one tenant after the other, each in the order of ingest."""
        for name, tenant in self._tenants.items():
            yield from ((name, item_id) for item_id in tenant.home)

    def lacking(self, key: Key) -> Iterator[tuple[str, str]]:
        """Tenant and id of each item that has no vectors of an encoder, neither aside nor as its own."""
        for name, tenant in self._tenants.items():
            yield from ((name, item_id) for item_id in tenant.home if tenant.lacks(item_id, key))

    def lacks(self, tenant: str, item_id: str, key: Key) -> bool:
        """Whether that item is there and has none."""
        found = self._tenants.get(tenant)
        return found is not None and item_id in found.home and found.lacks(item_id, key)

    def readiness(self, key: Key, tenant: str | None = None) -> Readiness:
        """How many items have vectors of an encoder, of one tenant or all."""
        found = self._tenants.values() if tenant is None else filter(None, [self._tenants.get(tenant)])
        counts = [(len(each.home), each.ready(key)) for each in found]
        return Readiness(sum(items for items, _ in counts), sum(ready for _, ready in counts))

    def known(self, tenant: str, item_id: str) -> Known | None:
        """The entry of that id."""
        found = self._tenants.get(tenant)
        return None if found is None else found.known(item_id)

    def stored(self, tenant: str, item_id: str) -> Stored | None:
        """The item of that id with its segments."""
        known = self.known(tenant, item_id)
        return None if known is None else self.view(tenant, key_of(known.encoder)).stored(item_id)

    def view(self, tenant: str, key: Key) -> ShelfView:
        """What stands on a shelf now; an empty one where there is none."""
        found = self._tenants.get(tenant)
        shelf = None if found is None else found.shelves.get(key)
        return (Shelf(key[1]) if shelf is None else shelf).view()

    def tenants(self) -> list[str]:
        """All that have items."""
        return list(self._tenants)

    def due(self, tenant: str, least: int) -> tuple[Key, Shelf] | None:
        """A shelf of the tenant that codes should be made for; see Shelf.due."""
        found = self._tenants.get(tenant)
        return None if found is None else next((one for one in found.shelves.items() if one[1].due(least)), None)

    def holds(self, tenant: str, key: Key, shelf: Shelf) -> bool:
        """Whether the shelf is still in use."""
        found = self._tenants.get(tenant)
        return found is not None and found.shelves.get(key) is shelf

    def sizes(self) -> Sizes:
        """How much there is."""
        shelves = [shelf for tenant in self._tenants.values() for shelf in tenant.shelves.values()]
        return Sizes(
            segments=sum(map(len, shelves)),
            coded=sum(shelf.coded for shelf in shelves),
            unplanned=sum(shelf.unplanned for shelf in shelves),
            items=sum(len(tenant.home) for tenant in self._tenants.values()),
            staged=sum(len(tenant.staged) for tenant in self._tenants.values()),
        )

    def count(self, tenant: str) -> int:
        """How many items the tenant has."""
        found = self._tenants.get(tenant)
        return 0 if found is None else len(found.home)

    def items_after(self, tenant: str, item_id: str, most: int) -> Sequence[Item]:
        """Up to so many items in the order of their ids, those after the given one."""
        found = self._tenants.get(tenant)
        if found is None:
            return ()
        start = bisect_right(found.ids(), item_id)
        return [known.item for id_ in found.ids()[start : start + most] if (known := found.known(id_))]

    def _tenant(self, name: str) -> _Tenant:
        """The tenant of that name, made where it is not there yet."""
        found = self._tenants.get(name)
        if found is None:
            found = self._tenants[name] = _Tenant(self._rows)
        return found
