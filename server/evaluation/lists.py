"""How good whole lists are: by what users went on to, and by what else a list should be.

A list is a row of item indices, best first, that ends where -1 begins. Accuracy follows the `recommenders` library
(github.com/recommenders-team/recommenders, python_evaluation.py), which follows Spark's RankingMetrics, so that its
published numbers can be compared with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import Bools, Doubles, Indices

__all__ = ["accuracy", "best", "coverage", "diversity", "gini", "popularity"]


def best(scores: NDArray[np.floating[Any]], k: int, *, exclude: Bools | None = None) -> Indices:
    """The k best items of each row, (n, k) int64, the lower index first where scores are equal.

    Args:
        scores: (n, items); an item at -inf is never in a list.
        exclude: (n, items), True for what may not be in it, e.g. items seen before.

    Raises:
        InvalidInput: k is below 1, NaN, or shapes that do not go together.
    """
    if k < 1:
        raise InvalidInput(f"k is {k}; it must be at least 1", field="k")
    if scores.ndim != 2 or (exclude is not None and exclude.shape != scores.shape):
        raise InvalidInput("scores and exclude must have one row a user and one column an item", field="scores")
    if np.isnan(scores).any():
        raise InvalidInput("scores hold NaN, which has no rank; score such items -inf or exclude them", field="scores")
    masked = scores if exclude is None else np.where(exclude, -np.inf, scores)
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    made = np.full((len(scores), k), -1, np.int64)
    made[:, : order.shape[1]] = np.where(np.take_along_axis(masked, order, axis=1) == -np.inf, -1, order)
    return made


def accuracy(lists: Indices, relevant: Bools) -> dict[str, Doubles]:
    """What each user adds to the means of the usual metrics for lists of k, each (n,) float64.

    With hits the relevant items in the list and r how many are relevant at all:
    precision: hits / k, also where the list is shorter than k. recall: hits / r.
    ndcg: sum over hits of 1/log2(1 + place), by that of a list with min(r, k) hits in front (binary gains).
    map: sum over hits of (hits up to that place / place), by r; so a user with many relevant items never reaches 1.
    map_at_k: the same sum by min(r, k). What that library's README calls MAP is the former.

    Args:
        lists: (n, k) int64, see above.
        relevant: (n, items).

    Raises:
        InvalidInput: shapes that do not go together, an item that is none, or a user for whom nothing is relevant:
            such users are to be left out, as there is nothing to find.
    """
    listed = _listed(lists, relevant.shape[1])
    if len(lists) != len(relevant):
        raise InvalidInput(f"there are {len(lists)} lists and {len(relevant)} users", field="relevant")
    wanted = np.count_nonzero(relevant, axis=1)
    if not np.all(wanted):
        user = int(np.argmin(wanted))
        raise InvalidInput(
            f"nothing is relevant for user {user}: leave out users without a test item", field="relevant"
        )
    k = lists.shape[1]
    hits = np.take_along_axis(relevant, np.maximum(lists, 0), axis=1) & listed
    places = np.arange(1, k + 1)
    gains = 1 / np.log2(1 + places)
    most = np.minimum(wanted, k)
    found = np.count_nonzero(hits, axis=1)
    precisions = (hits * (np.cumsum(hits, axis=1) / places)).sum(axis=1)
    return {
        "map": precisions / wanted,
        "map_at_k": precisions / most,
        "ndcg": (hits * gains).sum(axis=1) / np.cumsum(gains)[most - 1],
        "precision": found / k,
        "recall": found / wanted,
    }


def coverage(lists: Indices, items: int) -> float:
    """Share of the items that are in at least one list."""
    listed = _listed(lists, items)
    return len(np.unique(lists[listed])) / items


def diversity(lists: Indices, vectors: NDArray[np.floating[Any]]) -> Doubles:
    """Mean of 1 - cosine over the pairs of each list, (n,) float64; 0 where a list has no two items.

    Args:
        vectors: (items, d), of any length; a zero vector is like nothing, itself included.
    """
    listed = _listed(lists, len(vectors))
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = vectors / np.where(norms == 0, 1, norms)
    rows = unit[np.maximum(lists, 0)] * listed[..., None]
    sums = rows.sum(axis=1)
    # |sum|^2 is every pair twice and each item with itself.
    twice = (sums * sums).sum(axis=1) - (rows * rows).sum(axis=(1, 2))
    count = np.count_nonzero(listed, axis=1)
    pairs = count * (count - 1)
    made: Doubles = np.where(pairs > 0, 1 - twice / np.maximum(pairs, 1), 0.0)
    return made


def popularity(lists: Indices, counts: NDArray[np.integer[Any]], users: int) -> Doubles:
    """Mean over each list of the share of all users who took to the item, (n,) float64: how much it follows the crowd.

    Args:
        counts: (items,) users who took to each item in what was learnt from.
        users: how many there are.
    """
    listed = _listed(lists, len(counts))
    shares = np.where(listed, counts[np.maximum(lists, 0)] / max(users, 1), 0.0)
    made: Doubles = shares.sum(axis=1) / np.maximum(np.count_nonzero(listed, axis=1), 1)
    return made


def gini(lists: Indices, items: int) -> float:
    """Gini coefficient of how often each item is in a list: 0 if all are equally often, towards 1 if few are always."""
    listed = _listed(lists, items)
    often = np.sort(np.bincount(lists[listed], minlength=items))
    total = int(often.sum())
    if not total:
        return 0.0
    return float(((2 * np.arange(1, items + 1) - items - 1) * often).sum() / (items * total))


def _listed(lists: Indices, items: int) -> Bools:
    """(n, k) True where a list holds an item."""
    if lists.ndim != 2:
        raise InvalidInput(f"lists have shape {lists.shape}; there must be one row a user", field="lists")
    if items < 1 or (lists.size and not (lists.min() >= -1 and lists.max() < items)):
        raise InvalidInput(f"lists hold an index that is none of {items} items", field="lists")
    return lists >= 0
