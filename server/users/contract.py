"""What is known of a user, as rankings need it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog import View
from matchcut.server.records import Floats, SessionIdentity


@dataclass(frozen=True, slots=True, eq=False)
class Taste:
    """What is known of a user now; a snapshot.

    query: (d,) float32 of unit length, what the model says the user wants; None: nothing is known. seen: ids of items
    that the user did anything with but have them shown. liked: items that spoke for themselves, newest first, each
    once, at most as many as the ring holds; disliked: the same of those that spoke against. events: that the state is
    made of, those of items unknown by now not included.
    """

    query: Floats | None
    seen: Set[str]
    liked: tuple[str, ...]
    disliked: tuple[str, ...]
    events: int
    model: SessionIdentity


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """One tenant's items as a session model sees them; a snapshot.

    view: one row an item, (n, d). introduced_us: (groups,) int64, at each item's number when it was first heard of, in
    microseconds since the epoch; 0: long ago.
    """

    view: View
    introduced_us: NDArray[np.int64]

    def vectors(self, item_ids: Sequence[str]) -> tuple[list[str], Floats]:
        """Those of the items that are there, in the order given, and their vectors (m, d)."""
        if len(item_ids) == 1:  # as an event's item is
            group = self.view.group(item_ids[0])
            row = int(np.searchsorted(self.view.groups, group))
            return ([], self.view.rows[:0]) if group < 0 else ([item_ids[0]], self.view.rows[row : row + 1])
        numbers = self.view.numbers(item_ids)
        there = numbers >= 0
        ids = list(item_ids if there.all() else compress(item_ids, there.tolist()))
        return ids, self.view.rows[np.searchsorted(self.view.groups, numbers[there])]
