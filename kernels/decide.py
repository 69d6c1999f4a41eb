"""The last word of a ranking: of the few rows that float32 could not rule out, which groups lead, and by which pairs.

Dispatch: topk.search uses this for what its float32 pass leaves over.

Rows may tie by the million: still footage, black frames, copies of copies. Three things keep what that costs low. Equal
rows are scored once. What float32 cannot tell apart, a product in float64 mostly can, at BLAS speed: it is within e of
exact_score (score.wide_rounding), so a row's deciding pair lies at most 2 e under the row's best product, and a row
that lies more than 2 e under its group's best, or under the k-th best group, decides nothing. Only the pairs left are
scored by exact_score. And all of it is folded, tile by tile, into the k best groups so far, whose last one is the bar
for the tiles that follow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.score import exact_score, wide_rounding, wide_score

_WIDE = 524_288  # float64 products of elements held at a time
_TALL = 4_096  # rows of a tile, at most
_SCORES = 1_048_576  # scores of a tile

Ints = NDArray[np.int64]
Wide = NDArray[np.float64]


class Leaders:
    """The k groups that lead among the pairs seen so far, each by its best pair.

    Equal scores go by the lower row, then by the lower query. Memory: the groups kept and at most about as many pairs
    that wait to be compared with them.

    Args:
        k: at least 1.
        minimum: leaves out pairs that score less.
    """

    def __init__(self, k: int, minimum: float | None) -> None:
        self.k = k
        self._minimum = -np.inf if minimum is None else minimum
        none = np.empty(0, np.int64)
        self._seen: list[tuple[Wide, Ints, Ints, Ints]] = [(np.empty(0), none, none, none)]
        self._kept = self._waiting = 0
        self.bar = self._minimum
        """A pair that scores less than this cannot come in any more."""

    def add(self, scores: Wide, groups: Ints, rows: Ints, queries: Ints) -> None:
        """Pairs with their exact scores, all (m,), in any order."""
        self._seen.append((scores, groups, rows, queries))
        self._waiting += len(scores)
        if self._waiting >= max(self._kept, min(self.k, _TALL)):
            self.settle()

    def settle(self) -> tuple[Wide, Ints, Ints, Ints]:
        """Scores, groups, rows and queries of those who lead, best first."""
        scores, groups, rows, queries = map(np.concatenate, zip(*self._seen, strict=True))
        order = np.lexsort((queries, rows, -scores))
        order = order[scores[order] >= self._minimum]
        _, first = np.unique(groups[order], return_index=True)
        chosen = order[np.sort(first)][: self.k]
        leading = scores[chosen], groups[chosen], rows[chosen], queries[chosen]
        self._seen, self._kept, self._waiting = [leading], len(chosen), 0
        if len(chosen) == self.k:
            self.bar = float(leading[0][-1])
        return leading


def decide(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    *,
    groups: Ints,
    candidates: Ints,
    radius: float,
    leaders: Leaders,
    check: Callable[[], None],
) -> int:
    """Shows the leaders all pairs of the candidate rows that may decide; returns how many were scored exactly.

    Args:
        queries: (b, dimensions) float32, finite.
        rows: (n, dimensions) float32.
        groups: (n,) int64, the group of each row.
        candidates: (m,) int64, the rows to look at, which must be finite.
        radius: at least |query| |row| of every pair.
        leaders: who leads so far.
        check: called before each tile and each chunk of exact scores; what it raises comes through.
    """
    margin = 3 * wide_rounding(rows.shape[1], radius)  # two as proved, the third covers the rounding of the floor
    height = max(1, min(_TALL, _WIDE // rows.shape[1]))
    width = max(1, _SCORES // height)
    rescored = 0
    for left in range(0, len(queries), width):
        tile = queries[left : left + width]
        wide = tile.astype(np.float64)
        for top in range(0, len(candidates), height):
            check()
            some = candidates[top : top + height]
            piece, which = _distinct(rows[some])
            products = wide_score(wide, piece.astype(np.float64))
            peak = products.max(axis=0)
            floor = np.maximum(floors(peak[which], groups[some], leaders.k), leaders.bar) - margin
            open_ = np.flatnonzero(peak[which] >= floor)
            needed, place = np.unique(which[open_], return_inverse=True)
            at, query = np.nonzero(products.T[needed] >= (peak[needed] - margin)[:, np.newaxis])
            exact = _exact(tile, piece, query, needed[at], check)
            rescored += len(exact)
            best = _best_of_each(exact, at)
            leaders.add(exact[best][place], groups[some[open_]], some[open_], query[best][place] + left)
    return rescored


def floors(best: Wide, groups: Ints, k: int) -> Wide:
    """For each row the best of its group or the k-th best of all groups, whichever is more.

    Args:
        best: (n,) float64, each row's best.
        groups: (n,) int64; cheapest where it does not fall.
        k: at least 1.
    """
    order = None if (groups[1:] >= groups[:-1]).all() else np.argsort(groups, kind="stable")
    sorted_groups, sorted_best = (groups, best) if order is None else (groups[order], best[order])
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=sorted_groups[:1] - 1))
    of_group = np.maximum.reduceat(sorted_best, starts) if len(starts) else best
    at = len(of_group) - k
    kth = np.partition(of_group, at)[at] if at > 0 else -np.inf
    floor = np.repeat(np.maximum(of_group, kth), np.diff(starts, append=len(groups)))
    if order is None:
        return floor
    unsorted = np.empty_like(floor)
    unsorted[order] = floor
    return unsorted


def first_of_each(vectors: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """Which rows differ: (u,) the first of each kind, ascending, and (n,) for each row the place of its kind in there.

    Rows of one kind are equal bit by bit. Where two kinds share a hash, rows of one of them may count as kinds of their
    own.
    """
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    odd = np.arange(bits.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B1) | np.uint32(1)
    hashes = np.einsum("ij,j->i", bits, odd)  # modulo 2**32
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    own = np.arange(len(bits))
    kind = first[which]
    step = max(1, _WIDE // bits.shape[1])
    again = np.flatnonzero(kind != own)
    for part in (again[start : start + step] for start in range(0, len(again), step)):
        other = part[(bits[part] != bits[kind[part]]).any(axis=1)]
        kind[other] = other
    heads = np.flatnonzero(kind == own)
    return heads, np.searchsorted(heads, kind)


def _distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], Ints]:
    """One row of each kind, and which of them each row is."""
    heads, which = first_of_each(vectors)
    return (vectors if len(heads) == len(vectors) else vectors[heads]), which


def _exact(
    queries: NDArray[np.float32], rows: NDArray[np.float32], query: Ints, row: Ints, check: Callable[[], None]
) -> Wide:
    step = max(1, _WIDE // rows.shape[1])
    exact = np.empty(len(row))
    for start in range(0, len(row), step):
        check()
        part = slice(start, start + step)
        exact[part] = exact_score(queries[query[part]], rows[row[part]])
    return exact


def _best_of_each(scores: Wide, at: Ints) -> Ints:
    """Where the largest score of each run of equal values in `at` first occurs."""
    if not len(at):
        return at
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    peaks = np.repeat(np.maximum.reduceat(scores, starts), np.diff(starts, append=len(at)))
    hits = np.flatnonzero(scores == peaks)
    return hits[np.flatnonzero(np.diff(at[hits], prepend=-1))]
