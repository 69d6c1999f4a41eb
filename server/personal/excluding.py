"""Which rows of a gallery are left when items are taken out, where each time few more are."""

from __future__ import annotations

from collections.abc import Set
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog import View
from matchcut.server.records import Floats, TagFilter

__all__ = ["Excluding"]

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
NOTHING: frozenset[str] = frozenset()


class Excluding:
    """Does what View.eligible does with items to exclude, and looks up only those that were not excluded last time.

    It remembers 8 bytes an item, and holds no view. Safe to be used by several threads at once: what it remembers is
    replaced whole.
    """

    def __init__(self) -> None:
        self._last: tuple[ReferenceType[Floats], frozenset[str], Ints] | None = None

    def eligible(self, view: View, exclude: Set[str], tags: TagFilter) -> Flags | None:
        """(n,) bool, not to be written to; see View.eligible.

        Args:
            view: with one row an item.
        """
        passing = view.eligible(NOTHING, tags)
        rows = self._rows(view, exclude)
        if not len(rows):
            return passing
        left = np.ones(len(view.rows), np.bool_) if passing is None else passing.copy()
        left[rows] = False
        return left

    def _rows(self, view: View, exclude: Set[str]) -> Ints:
        """The rows of those items that are there."""
        excluded = frozenset(exclude)
        last, fresh = self._last, excluded
        before = np.empty(0, np.int64)
        # Each view has an array of its own, which goes with it: what was read of another view has no place in this one.
        if last is not None and last[0]() is view.rows and last[1] <= excluded:
            before, fresh = last[2], excluded - last[1]
            if not fresh:
                return before
        numbers = view.numbers(tuple(fresh))
        rows = np.searchsorted(view.groups, numbers[numbers >= 0])
        if len(before):
            rows = np.concatenate([before, rows])
        self._last = ref(view.rows), excluded, rows
        return rows
