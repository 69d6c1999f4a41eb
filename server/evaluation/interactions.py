"""Who did what when, as plain arrays: what splits, baselines and training take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import Bools, Doubles, Indices

__all__ = ["Interactions"]


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """n interactions of users with items, in the order they were recorded in.

    users, items: (n,) int64, positions in user_ids and item_ids. weights: (n,) float64, e.g. ratings or strengths.
    times: (n,) int64, seconds since the epoch. Users and items without an interaction are allowed.

    Raises:
        InvalidInput: arrays of different lengths, a position that is none, or a weight that is not finite.
    """

    users: Indices
    items: Indices
    weights: Doubles
    times: Indices
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.users)
        for name in ("users", "items", "weights", "times"):
            if getattr(self, name).shape != (n,):
                raise InvalidInput(f"{name} must be one number for each of the {n} interactions", field=name)
        for name, ids in (("users", self.user_ids), ("items", self.item_ids)):
            positions = getattr(self, name)
            if n and not (positions.min() >= 0 and positions.max() < len(ids)):
                raise InvalidInput(f"{name} must be positions in {len(ids)} ids", field=name)
        if not np.all(np.isfinite(self.weights)):
            raise InvalidInput("weights hold NaN or infinity", field="weights")

    def __len__(self) -> int:
        return len(self.users)

    @property
    def shape(self) -> tuple[int, int]:
        """How many users and items there are."""
        return len(self.user_ids), len(self.item_ids)

    def take(self, rows: Indices) -> Interactions:
        """Those of the rows, in that order, of the same users and items."""
        return Interactions(
            self.users[rows], self.items[rows], self.weights[rows], self.times[rows], self.user_ids, self.item_ids
        )

    def table(self) -> Bools:
        """(users, items), True where a user did anything with an item."""
        made = np.zeros(self.shape, bool)
        made[self.users, self.items] = True
        return made

    def counts(self) -> Indices:
        """(items,) how many users did anything with each item."""
        counts: Indices = self.table().sum(axis=0, dtype=np.int64)
        return counts

    def by_user(self) -> list[Indices]:
        """For each user the rows of their interactions, in the order they are in here."""
        order = np.argsort(self.users, kind="stable")
        ends = np.cumsum(np.bincount(self.users, minlength=self.shape[0]))
        return np.split(order, ends[:-1]) if len(ends) else []
