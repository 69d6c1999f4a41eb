"""What is known of a user, as rankings need it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

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
        groups = [(item_id, self.view.group(item_id)) for item_id in item_ids]
        there = [(item_id, group) for item_id, group in groups if group >= 0]
        rows = np.searchsorted(self.view.groups, [group for _, group in there])
        return [item_id for item_id, _ in there], self.view.rows[rows]
