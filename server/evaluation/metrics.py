"""How well one item was ranked that a user went on to: its rank, what is counted of it, and how sure the mean is.

For users with several such items see lists.py. Every function takes and gives plain arrays; what is printed beside a
number (split, candidates, seen filter, tie rule, seed) is in report.py.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput

__all__ = ["TIES", "Bools", "Doubles", "Indices", "Interval", "Ties", "at_k", "difference", "interval", "ranks"]

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

Ties = Literal["expected", "lower", "worst"]
TIES: dict[Ties, str] = {
    "expected": "mean rank over all orders of the tied",
    "lower": "lower index first",
    "worst": "target last",
}

RESAMPLES = 2000
MOST_VALUES = 20_000  # beyond, the bootstrap's interval is the normal one to three digits, and slow
AT_ONCE = 1 << 22  # indices drawn at a time


class Interval(NamedTuple):
    """A mean and between which numbers it lies with the level asked for."""

    mean: float
    low: float
    high: float


def ranks(
    scores: NDArray[np.floating[Any]], targets: Indices, *, exclude: Bools | None = None, ties: Ties = "expected"
) -> Doubles:
    """The rank of each row's target among its candidates, (n,) float64 from 1.

    Args:
        scores: (n, items), more is better; -inf is allowed, NaN is not.
        targets: (n,) index of the item that was to be found.
        exclude: (n, items), True for what is no candidate, e.g. items seen before. A target that is excluded itself
            has rank infinity: it can never be shown.
        ties: what a target that scores the same as others gets: "expected" the mean over all orders of the tied, which
            may end in .5; "lower" its place when the lower index goes first (as sorting stably does); "worst" the last.

    Raises:
        InvalidInput: shapes that do not go together, a target that is no item, NaN, or an unknown rule.
    """
    n, items = _table(scores, "scores")
    if ties not in TIES:
        raise InvalidInput(f"ties is {ties!r}; it must be one of {', '.join(TIES)}", field="ties")
    if targets.shape != (n,) or (n and not (targets.min() >= 0 and targets.max() < items)):
        raise InvalidInput(f"targets must be ({n},) indices of {items} items", field="targets")
    if exclude is not None and exclude.shape != scores.shape:
        raise InvalidInput(f"exclude has shape {exclude.shape}, scores {scores.shape}", field="exclude")
    if np.isnan(scores).any():
        raise InvalidInput("scores hold NaN, which has no rank; score such items -inf or exclude them", field="scores")
    rows = np.arange(n)
    own = scores[rows, targets][:, None]
    candidates = np.ones_like(scores, dtype=bool) if exclude is None else ~exclude
    shown = candidates[rows, targets]
    above = np.count_nonzero((scores > own) & candidates, axis=1)
    tied = (scores == own) & candidates
    if ties == "lower":
        tied &= np.arange(items) < targets[:, None]
        beside = np.count_nonzero(tied, axis=1).astype(np.float64)
    else:
        beside = np.count_nonzero(tied, axis=1) - 1.0  # without the target itself
        beside = beside / 2 if ties == "expected" else beside
    return np.where(shown, 1 + above + beside, np.inf)


def at_k(ranks: Doubles, k: int) -> dict[str, Doubles]:
    """What each user's one target adds to the means of the usual metrics, each (n,) float64.

    recall: 1 where the rank is at most k (also called hit rate, as there is one target). mrr: 1/rank there, else 0.
    ndcg: 1/log2(1 + rank) there, else 0. A rank between two whole ones is taken as it is.

    Raises:
        InvalidInput: k is below 1, or a rank is below 1 or NaN.
    """
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1", field="k")
    if not np.all(ranks >= 1):
        raise InvalidInput("ranks must be numbers from 1", field="ranks")
    found = ranks <= k
    inside = np.where(found, ranks, 1.0)
    return {
        "recall": found.astype(np.float64),
        "mrr": np.where(found, 1 / inside, 0.0),
        "ndcg": np.where(found, 1 / np.log2(1 + inside), 0.0),
    }


def interval(values: Doubles, *, seed: int, level: float = 0.95) -> Interval:
    """Mean of the values, (n,), one a user, with a confidence interval.

    Percentiles of the means of 2000 bootstrap samples (B. Efron, Annals of Statistics 1979); above 20,000 values the
    normal interval. It tells what another draw of users from the same population would give, not of another seed of
    training or another split.

    Raises:
        InvalidInput: no values, one that is not finite, or a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level is {level}; it must be between 0 and 1", field="level")
    if values.ndim != 1 or not len(values):
        raise InvalidInput("there must be one value a user, and at least one user", field="values")
    if not np.all(np.isfinite(values)):
        raise InvalidInput("values hold NaN or infinity, which have no mean", field="values")
    mean = float(values.mean())
    n = len(values)
    if n > MOST_VALUES:
        half = NormalDist().inv_cdf((1 + level) / 2) * float(values.std(ddof=1)) / math.sqrt(n)
        return Interval(mean, mean - half, mean + half)
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    step = max(1, AT_ONCE // n)
    for begin in range(0, RESAMPLES, step):
        part = means[begin : begin + step]
        part[:] = values[random.integers(n, size=(len(part), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def difference(ours: Doubles, theirs: Doubles, *, seed: int, level: float = 0.95) -> Interval:
    """By how much ours is better for the same users, (n,) each: an interval without 0 in it is a gain.

    Much narrower than the two intervals apart, as a user who is hard is hard for both.

    Raises:
        InvalidInput: they are not of the same users, and as interval().
    """
    if ours.shape != theirs.shape:
        raise InvalidInput(f"{ours.shape} and {theirs.shape} values are not of the same users", field="theirs")
    return interval(ours - theirs, seed=seed, level=level)


def _table(values: NDArray[Any], name: str) -> tuple[int, int]:
    if values.ndim != 2:
        raise InvalidInput(f"{name} has shape {values.shape}; it must have one row a user", field=name)
    return values.shape[0], values.shape[1]
