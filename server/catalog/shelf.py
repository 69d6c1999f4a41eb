"""One tenant's vectors of one encoder, in memory or in a file, and the views that requests take of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.score import largest_norm
from matchcut.server.catalog.contract import Known, Stored
from matchcut.server.catalog.filed import Rows, held
from matchcut.server.catalog.growing import Growing
from matchcut.server.catalog.tags import TagMasks
from matchcut.server.records import Floats, Item, Segment, TagFilter, TimeRange

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
Copy = Callable[[CodedRows, Ints], Codes]  # the codes of some rows, in that order, to be extended apart

_BLOCK = 1024  # rows that are moved at once
_KEPT = 8  # filters whose rows a view remembers; a byte for each row


@dataclass(frozen=True, slots=True, eq=False)
class ShelfView:
    """See contract.View.

    ranges: (n, 2) int64. starts: (items + 1,) int64, the first row of each item. alive: (items,) bool.
    latest: the last number that an id was given, and earlier: (at each number) the one that it had before, or -1;
    both grow on and are read only as far as this view knows. passing: rows that pass each filter, as far as it was
    asked for.
    """

    rows: Floats
    groups: Ints
    radius: float
    ranges: Ints
    starts: Ints
    alive: Flags
    entries: Sequence[Known]
    latest: Mapping[str, int]
    earlier: Sequence[int]
    masks: TagMasks
    coded: CodedRows | None = None
    passing: dict[TagFilter, Flags | None] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.alive))

    def eligible(self, exclude: frozenset[str], tags: TagFilter) -> Flags | None:
        """See contract.View."""
        passing = self._passing(tags)
        groups = self.numbers(tuple(exclude))
        groups = groups[groups >= 0]
        if not len(groups):
            return passing
        left = np.ones(len(self.rows), np.bool_) if passing is None else passing.copy()
        starts, sizes = self.starts[groups], self.starts[groups + 1] - self.starts[groups]
        for at in range(int(sizes.max())):  # the first row of each, then the second of those that have one
            left[starts[sizes > at] + at] = False
        return left

    def item(self, group: int) -> Item:
        """See contract.View."""
        return self.entries[group].item

    def group(self, item_id: str) -> int:
        """See contract.View."""
        group = self._number(item_id)
        return group if group >= 0 and self.alive[group] else -1

    def numbers(self, item_ids: Sequence[str]) -> Ints:
        """See contract.View."""
        latest, count = self.latest, len(self.alive)
        found = [latest.get(item_id, -1) for item_id in item_ids]
        numbers = np.array(found, np.int64)
        for at in np.flatnonzero(numbers >= count).tolist():  # given after this view was taken
            numbers[at] = self._number(item_ids[at])
        known = np.flatnonzero(numbers >= 0)
        numbers[known[~self.alive[numbers[known]]]] = -1
        return numbers

    def range(self, row: int) -> TimeRange:
        """See contract.View."""
        start, end = self.ranges[row].tolist()
        return TimeRange(start, end)

    def stored(self, item_id: str) -> Stored | None:
        """The item with its segments."""
        group = self._number(item_id)
        if group < 0 or not self.alive[group]:
            return None
        known = self.entries[group]
        span = range(int(self.starts[group]), int(self.starts[group + 1]))
        return Stored(known.item, tuple(Segment(self.range(row), self.rows[row].copy()) for row in span), known.encoder)

    def arrays(self, item_id: str) -> tuple[Ints, Floats]:
        """Ranges and vectors of an item that is there, not to be written to."""
        group = self._number(item_id)
        rows = slice(int(self.starts[group]), int(self.starts[group + 1]))
        return self.ranges[rows], self.rows[rows]

    def _passing(self, tags: TagFilter) -> Flags | None:
        """The rows of items that are there and pass; None: all rows."""
        with suppress(KeyError):
            return self.passing[tags]
        items = self.alive & self.masks.mask(tags, self.entries, len(self.alive)) if tags else self.alive
        rows: Flags | None = None
        if not items.all():
            rows = np.repeat(items, np.diff(self.starts))
            rows.flags.writeable = False
        if len(self.passing) >= _KEPT:
            self.passing.clear()  # another thread has what it asked for
        self.passing[tags] = rows
        return rows

    def _number(self, item_id: str) -> int:
        """The item's number, be it alive or not; -1 where this view has none of that id."""
        group = self.latest.get(item_id, -1)
        while group >= len(self.alive):  # given after this view was taken
            group = self.earlier[group]
        return group


class Shelf:
    """The rows behind the views; one caller at a time may change it.

    Readers keep what they hold: rows are added behind it, and what has to change in its midst is copied first.

    Args:
        dimensions: of the vectors.
        rows: makes what the vectors are kept in.
    """

    def __init__(self, dimensions: int, rows: Rows = held) -> None:
        self._make = rows
        self._rows = rows(dimensions)
        self._none: Floats = np.empty((0, dimensions), np.float32)
        self._groups = Growing(np.int64)
        self._ranges = Growing(np.int64, (2,))
        self._starts = Growing(np.int64)
        self._starts.extend([0])
        self._alive = Growing(np.bool_)
        self._entries: list[Known] = []
        self._latest: dict[str, int] = {}
        self._earlier: list[int] = []
        self._masks = TagMasks()
        self._radius = 0.0
        self._codes: Codes | None = None
        self._copy: Copy | None = None
        self._tried = 0  # rows that there were when codes were last begun
        self._dead_rows = 0
        self._view: ShelfView | None = None
        self._shared = False  # whether a view knows the entries and the alive flags

    def __len__(self) -> int:
        """Rows of items that are there."""
        return len(self._rows) - self._dead_rows

    def view(self) -> ShelfView:
        """All that is there now."""
        if self._view is None:
            self._view = ShelfView(
                rows=self._none if self._rows.fleeting else self._rows.array,
                groups=self._groups.array,
                radius=self._radius,
                ranges=self._ranges.array,
                starts=self._starts.array,
                alive=self._alive.array,
                entries=self._entries,
                latest=self._latest,
                earlier=self._earlier,
                masks=self._masks,
                coded=None if self._codes is None else self._codes.view(),
            )
            self._shared = True
        return replace(self._view, rows=self._rows.array) if self._rows.fleeting else self._view

    def known(self, item_id: str) -> Known:
        """The entry of an item that is there."""
        return self._entries[self._latest[item_id]]

    def reserve(self, rows: int, items: int) -> None:
        """Makes room, so that `append` cannot fail.

        Raises:
            MemoryError: there is no room.
        """
        for column in (self._rows, self._groups, self._ranges):
            column.reserve(rows)
        for column in (self._starts, self._alive):
            column.reserve(items)
        if self._codes is not None:
            self._codes.reserve(rows)

    def append(self, items: Sequence[Known], ranges: Ints, vectors: Floats, counts: Sequence[int]) -> None:
        """Adds items behind all others; those of the same ids have to be dropped before.

        Args:
            ranges, vectors: (n, 2) and (n, dimensions), of one item after the other.
            counts: how many of these n each item has.
        """
        first, row = len(self._entries), len(self._rows)
        self._rows.extend(vectors)
        self._ranges.extend(ranges)
        self._groups.extend(np.repeat(np.arange(first, first + len(items)), counts))
        self._starts.extend(row + np.cumsum(counts))
        self._alive.extend(np.ones(len(items), np.bool_))
        for group, known in enumerate(items, first):
            item_id = known.item.item_id
            self._earlier.append(self._latest.get(item_id, -1))
            self._latest[item_id] = group
        self._entries += items
        self._radius = max(self._radius, largest_norm(vectors))
        self._view = None
        if self._codes is not None:
            try:
                self._codes.extend(vectors)
            except MemoryError:  # the change is durable already; rows are ranked without codes too
                self._codes = None

    def amend(self, item: Item) -> None:
        """Gives an item that is there other words."""
        self._detach()
        group = self._latest[item.item_id]
        before = self._entries[group]
        self._entries[group] = replace(before, item=item)
        if before.item.tags != item.tags:
            self._masks = TagMasks()
        self._view = None

    def drop(self, item_id: str) -> None:
        """Takes out an item that is there; its rows stay until the shelf is compacted."""
        self._detach()
        group = self._latest[item_id]
        self._alive.overwrite(group, False)
        starts = self._starts.array
        self._dead_rows += int(starts[group + 1] - starts[group])
        self._view = None

    @property
    def rows(self) -> Floats:
        """All rows, also those of items that are gone; what comes later lies behind them."""
        rows: Floats = self._rows.array
        return rows

    @property
    def coded(self) -> int:
        """Rows of items that are there and have codes: all of them, or none."""
        return 0 if self._codes is None else len(self)

    @property
    def unplanned(self) -> int:
        """Rows that came after the way in which they are coded had been chosen."""
        return 0 if self._codes is None else max(0, len(self._codes) - self._codes.basis.planned)

    def due(self, least: int) -> bool:
        """Whether it has so many rows and lacks codes, or better ones can be expected.

        What was tried is tried again only when the rows have become a quarter more.
        """
        count = len(self._rows)
        return count >= least and count > self._tried * 5 // 4 and (self._codes is None or self._codes.aged)

    def try_codes(self) -> Floats:
        """The rows that codes are to be made for."""
        self._tried = len(self._rows)
        return self.rows

    def adopt(self, codes: Codes, copy: Copy) -> None:
        """Takes codes of all its rows in the place of those that it has; views keep theirs.

        Args:
            copy: makes the codes of a compacted shelf.
        """
        assert len(codes) == len(self._rows), "the codes are of these very rows"
        self._codes, self._copy = codes, copy
        self._view = None

    @property
    def wasteful(self) -> bool:
        """Whether more than half of the rows are of items that are gone."""
        return self._dead_rows * 2 > len(self._rows)

    def compacted(self) -> Shelf:
        """A shelf of what is there alone, in the same order, in memory of its own, or in a file if this one is.

        Raises:
            MemoryError: there is no room for a second one.
        """
        old = self.view()
        kept = np.flatnonzero(old.alive)
        rows = old.alive[old.groups]
        lengths = np.diff(old.starts)[kept]
        fresh = Shelf(old.rows.shape[1], self._make)
        fresh._rows = self._rows.another(int(np.count_nonzero(rows)))
        for at in range(0, len(rows), _BLOCK):
            fresh._rows.extend(old.rows[at : at + _BLOCK][rows[at : at + _BLOCK]])
        fresh._ranges = Growing.of(old.ranges[rows])
        fresh._groups = Growing.of(np.repeat(np.arange(len(kept)), lengths))
        fresh._starts = Growing.of(np.concatenate([[0], np.cumsum(lengths)]))
        fresh._alive = Growing.of(np.ones(len(kept), np.bool_))
        fresh._entries = [old.entries[group] for group in kept.tolist()]
        fresh._latest = {known.item.item_id: group for group, known in enumerate(fresh._entries)}
        fresh._earlier = [-1] * len(kept)
        fresh._radius = old.radius
        if old.coded is not None and self._copy is not None:
            with suppress(MemoryError):  # then new ones are made in the background
                fresh.adopt(self._copy(old.coded, np.flatnonzero(rows)), self._copy)
        return fresh

    def _detach(self) -> None:
        if self._shared:
            self._alive.detach()
            self._entries = self._entries.copy()
            self._shared = False
