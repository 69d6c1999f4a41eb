"""What is learnt from and what is to be found: splits of interactions, and samples of candidates.

A split is of rows of Interactions. Each function says how it breaks ties, as half of the time stamps of MovieLens-100K
are those of another interaction of the same user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import Bools, Indices

__all__ = ["LeaveOneOut", "chronological", "leave_one_out", "sampled", "since", "stratified"]


@dataclass(frozen=True, slots=True, eq=False)
class LeaveOneOut:
    """Each user's last interaction, the one before, and all that came earlier.

    order: (n,) int64, all rows by user and then time. train: (m,) int64, those that are neither of the following.
    validation, test: (users,) int64, one row a user, or -1 where the user has too few: a user with one interaction has
    it in train, with two in train and test.
    """

    order: Indices
    train: Indices
    validation: Indices
    test: Indices

    def before_test(self) -> Indices:
        """Train and validation together by user and then time: the history from which the test item is to be found."""
        return self.order[~np.isin(self.order, self.test)]


def chronological(data: Interactions, *, seed: int | None = None) -> Indices:
    """All rows by user and then time, (n,) int64.

    Args:
        seed: of the random order of a user's interactions at the same second; None: the order they are recorded in.
    """
    tie = np.arange(len(data)) if seed is None else np.random.default_rng(seed).permutation(len(data))
    return np.lexsort((tie, data.times, data.users)).astype(np.int64)


def leave_one_out(data: Interactions, *, seed: int | None = None) -> LeaveOneOut:
    """Leave-one-out by time: the last interaction of each user is the test's, the one before the validation's.

    Args:
        seed: see chronological().
    """
    order = chronological(data, seed=seed)
    counts = np.bincount(data.users, minlength=data.shape[0])
    ends = np.cumsum(counts)
    train = np.ones(len(data), bool)
    held = []
    for back, least in ((1, 2), (2, 3)):
        rows = np.full(len(counts), -1, np.int64)
        users = np.flatnonzero(counts >= least)
        places = ends[users] - back
        rows[users] = order[places]
        train[places] = False
        held.append(rows)
    return LeaveOneOut(order=order, train=order[train], validation=held[1], test=held[0])


def stratified(
    data: Interactions, *, seed: int, train: float = 0.75, by: Literal["user", "item"] = "user"
) -> tuple[Indices, Indices]:
    """Rows to learn from and to test with, at random within each user (or item), in the order they are recorded in.

    Of a user's n interactions in random order those whose place, counted from 1, by n is at most `train` are learnt
    from, which is the rule of `python_stratified_split` in the `recommenders` library. Time plays no part, so the
    future is learnt from: numbers of such a split compare models and promise nothing.

    Raises:
        InvalidInput: train is not between 0 and 1.
    """
    if not 0 < train < 1:
        raise InvalidInput(f"train is {train}; it must be between 0 and 1", field="train")
    groups = data.users if by == "user" else data.items
    order = np.lexsort((np.random.default_rng(seed).random(len(data)), groups))
    counts = np.bincount(groups, minlength=1)
    starts = np.cumsum(counts) - counts
    sorted_groups = groups[order]
    places = np.arange(len(data)) - starts[sorted_groups] + 1
    learnt = np.zeros(len(data), bool)
    learnt[order] = places / counts[sorted_groups] <= train
    return np.flatnonzero(learnt), np.flatnonzero(~learnt)


def since(data: Interactions, seconds: int) -> tuple[Indices, Indices]:
    """Rows before a time and those from it on, both by user and then time: yesterday's model against today."""
    order = chronological(data)
    late = data.times[order] >= seconds
    return order[~late], order[late]


def sampled(exclude: Bools, targets: Indices, n: int, *, seed: int) -> Bools:
    """An exclusion that leaves each user the target and n items drawn uniformly from the others, (users, items).

    Sampled metrics are higher than those of all items and may even order models otherwise (W. Krichene, S. Rendle, KDD
    2020): they are for comparison with numbers that others made so.

    Args:
        exclude: (users, items), True for what is no candidate in the first place.
        targets: (users,); a target that is excluded stays so.
        n: of a user with fewer others, all are taken.

    Raises:
        InvalidInput: n is below 1.
    """
    if n < 1:
        raise InvalidInput(f"n is {n}; at least 1 item must be drawn beside the target", field="n")
    rows = np.arange(len(targets))
    keys = np.random.default_rng(seed).random(exclude.shape)
    keys[exclude] = 2.0
    keys[rows, targets] = 3.0
    made = np.ones_like(exclude)
    drawn = np.argsort(keys, axis=1)[:, :n]
    made[rows[:, None], drawn] = np.take_along_axis(keys, drawn, axis=1) >= 2
    made[rows, targets] = exclude[rows, targets]
    return made
