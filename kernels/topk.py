"""The k best groups of rows, exactly as float64 ranks them, for little more than one float32 pass.

Dispatch: device.Cpu calls this reference; a GPU home scans and selects by itself and keeps the same certificate.

Why the answer is exact. Let e bound |score - exact_score| (score.rounding), let each group's float32 best be the
largest score of its pairs (query, row), and t the k-th largest of those. The k groups at or above t have an exact score
of at least t - e each, so the exact k-th best is at least t - e, and every pair that decides the answer has an exact
score of at least t - e, hence a float32 score of at least t - 2 e. Within its group the deciding pair likewise lies
at most 2 e under the group's float32 best. So a row whose own best lies under either decides nothing; decide.decide has
the last word on the others, by the same argument in float64 and then by exact_score itself.

Memory is bounded whatever ties: a float64 number or two for each row, and blocks of a fixed size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.decide import Leaders, decide, first_of_each, floors
from matchcut.kernels.score import check_vectors, largest_norm, rounding, score

_ROWS = 16_384  # rows scored at a time, if the queries are few
_SCORES = 4_194_304  # scores held at a time
_GATHER = 0.25  # under this share of eligible rows, they are copied out before they are scored

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The best groups, best first; iterating gives (score, group, row, query) for each.

    scores: (m,) float64, exact_score of the deciding pair.
    groups, rows, queries: (m,) int64, the group and the pair that decided.
    scanned: rows that were scored in float32, or whose codes were read. survivors: pairs that these did not rule out.
    pieces: 64-byte pieces of codes that were read of survivors. rescored: pairs that were scored by exact_score.
    variant: what ranked, where that is not what was asked for; a device fills it in.
    """

    scores: NDArray[np.float64]
    groups: Ints
    rows: Ints
    queries: Ints
    scanned: int = 0
    survivors: int = 0
    pieces: int = 0
    rescored: int = 0
    variant: str = ""

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[float, int, int, int]]:
        columns = (self.scores.tolist(), self.groups.tolist(), self.rows.tolist(), self.queries.tolist())
        return zip(*columns, strict=True)


def search(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    *,
    groups: Ints,
    k: int,
    eligible: Flags | None = None,
    minimum: float | None = None,
    radius: float | None = None,
    block: int = _ROWS,
    check: Callable[[], None] | None = None,
) -> Ranked:
    """The k groups whose best pair (query, row) has the largest inner product, each once, by that pair.

    Equal scores go by the lower row, then by the lower query. Fewer than k come back only where fewer are eligible.

    Args:
        queries: (b, dimensions) float32, at least one, finite.
        rows: (n, dimensions) float32; those that are eligible must be finite.
        groups: (n,) int64, the group of each row; cheapest where it does not fall.
        k: at least 1.
        eligible: (n,) bool; None: all rows.
        minimum: leaves out groups that score less.
        radius: at least the largest L2 norm of a row, if it is known, which saves a pass; None: it is computed.
        block: rows scored at a time, at most; bounds the memory, changes no answer.
        check: called every few milliseconds of work; raises where nobody waits for the answer any more.

    Raises:
        ValueError: a shape or type, no query, k below 1, NaN or infinity.
        Exception: what `check` raised.
    """
    check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
    check = check or _nobody_asks
    first, _ = first_of_each(queries)  # of equal queries the first decides
    queries = queries if len(first) == len(queries) else queries[first]
    block = max(1, min(block, _SCORES // len(queries)))
    reach = largest_norm(queries)
    if not np.isfinite(reach):
        raise ValueError("the queries hold NaN or infinity")
    if radius is None or not rounding(rows.shape[1], reach * radius) < np.inf:
        radius = _radius(rows, eligible, block, check)
    slack = rounding(rows.shape[1], reach * radius) * (2 + 2.0**-20)  # the rest covers the rounding of the floor
    best, scanned = _scan(queries, rows, eligible, block=block, bounded=slack < np.inf, check=check)
    floor = floors(best, groups, k) - slack
    if minimum is not None:
        np.maximum(floor, minimum - slack, out=floor)
    candidates = np.flatnonzero((best >= floor) & (best > -np.inf))
    leaders = Leaders(k, minimum)
    rescored = decide(
        queries,
        rows,
        groups=groups,
        candidates=candidates,
        radius=reach * radius,
        leaders=leaders,
        check=check,
    )
    scores, leading, row, query = leaders.settle()
    survivors = len(candidates)
    return Ranked(
        scores, leading, row, first[query], scanned=scanned, survivors=survivors, rescored=rescored, variant="numpy"
    )


def _blocks(eligible: Flags | None, count: int, block: int) -> Iterator[tuple[slice, Ints | None]]:
    """Blocks of rows, each with those that are eligible (relative to the block), None for all; empty ones left out."""
    for start in range(0, count, block):
        part = slice(start, min(start + block, count))
        inside = None if eligible is None else np.flatnonzero(eligible[part])
        if inside is None or len(inside) == part.stop - part.start:
            yield part, None
        elif len(inside):
            yield part, inside


def _radius(rows: NDArray[np.float32], eligible: Flags | None, block: int, check: Callable[[], None]) -> float:
    longest = 0.0
    for part, inside in _blocks(eligible, len(rows), block):
        check()
        longest = max(longest, largest_norm(rows[part] if inside is None else rows[part][inside]))
        if not np.isfinite(longest):
            raise _not_finite(part)
    return longest


def _scan(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    eligible: Flags | None,
    *,
    block: int,
    bounded: bool,
    check: Callable[[], None],
) -> tuple[NDArray[np.float64], int]:
    """Each row's float32 best as float64, -inf where it is not eligible, and how many rows were scored.

    Where the rounding is not bounded, each eligible row has 0, as if all were equal.
    """
    best = np.full(len(rows), -np.inf)
    if not bounded:
        best[... if eligible is None else eligible] = 0
        return best, 0
    scanned = 0
    for part, inside in _blocks(eligible, len(rows), block):
        check()
        sparse = inside is not None and len(inside) < _GATHER * (part.stop - part.start)
        piece = rows[part][inside] if sparse else rows[part]
        scores = score(queries, piece).max(axis=0)
        if inside is not None and not sparse:
            scores = scores[inside]
        if not np.isfinite(scores).all():  # no query hides a NaN or infinity of a row
            raise _not_finite(part)
        best[part][... if inside is None else inside] = scores
        scanned += len(piece)
    return best, scanned


def _nobody_asks() -> None:
    """No check."""


def _not_finite(part: slice) -> ValueError:
    return ValueError(f"rows {part.start} to {part.stop - 1} hold NaN or infinity")


def check_search(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    groups: Ints,
    eligible: Flags | None,
    *,
    k: int,
    minimum: float | None,
) -> None:
    """Raises ValueError where `search` cannot take these."""
    check_vectors("queries", queries)
    check_vectors("rows", rows)
    if not len(queries):
        raise ValueError("there is no query")
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, rows {rows.shape[1]}")
    if groups.shape != (len(rows),) or groups.dtype != np.int64:
        raise ValueError(f"groups must be ({len(rows)},) int64, not {groups.shape} {groups.dtype}")
    if eligible is not None and (eligible.shape != (len(rows),) or eligible.dtype != np.bool_):
        raise ValueError(f"eligible must be ({len(rows)},) bool, not {eligible.shape} {eligible.dtype}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if minimum is not None and np.isnan(minimum):
        raise ValueError("minimum must be a number, not NaN")
