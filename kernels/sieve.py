"""topk.search and its like over coded rows: the same answers, for a fraction of the memory traffic.

Dispatch: device.Cpu calls this where the library of kernels/native is there, topk.search where it is not.

The library rules out what cannot be among the k best groups (codes.py proves by what), first by the codes and then in
float64; decide.decide has the last word on the pairs that are left, as it has in topk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedQueries, CodedRows, code_queries
from matchcut.kernels.crew import Crew as Crew
from matchcut.kernels.crew import Found, Job, find
from matchcut.kernels.decide import Leaders, decide, first_of_each
from matchcut.kernels.score import exact_score, wide_rounding, wide_score
from matchcut.kernels.topk import Ranked, check_search, search

_TOGETHER = 64  # queries that share a pass, at most
_PAIRS = 1024  # so few pairs are decided at once

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Wide = NDArray[np.float64]
Flags = NDArray[np.bool_]


def search_coded(
    queries: Floats,
    rows: Floats,
    coded: CodedRows,
    *,
    crew: Crew,
    groups: Ints,
    k: int,
    eligible: Flags | None = None,
    minimum: float | None = None,
    radius: float | None = None,
    check: Callable[[], None] | None = None,
) -> Ranked:
    """topk.search, with the rows coded as well; `scanned` counts rows whose codes were read.

    Args:
        coded: the codes of these very rows.
        crew: what scans.

    Raises:
        ValueError: as topk.search; or the codes are not of these rows.
    """
    check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
    _check_coded(rows, coded)
    first = np.zeros(1, np.int64) if len(queries) == 1 else first_of_each(queries)[0]
    distinct = np.ascontiguousarray(queries if len(first) == len(queries) else queries[first])
    check = check or _nobody_asks
    asked = code_queries(distinct, coded, crew.variant.limit)
    found = None
    if asked is not None:
        found = _find(
            distinct,
            asked,
            rows,
            coded,
            crew,
            groups=groups,
            k=k,
            eligible=eligible,
            minimum=minimum,
            joint=True,
            check=check,
        )
    if asked is None or found is None:
        return search(queries, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, radius=radius, check=check)
    reach = float(asked.norms.max()) * coded.radius
    ranked = _decided(distinct, rows, found, 0, groups=groups, k=k, minimum=minimum, radius=reach, check=check)
    return ranked if len(first) == len(queries) else replace(ranked, queries=first[ranked.queries])


def search_each(
    queries: Floats,
    rows: Floats,
    coded: CodedRows,
    *,
    crew: Crew,
    groups: Ints,
    k: int,
    eligible: Flags | None = None,
    minimum: float | None = None,
    check: Callable[[], None] | None = None,
) -> list[Ranked]:
    """A ranking of its own for each query, which share what is read; see search_coded.

    `scanned`, `survivors` and `pieces` are those of all queries that shared a pass.
    """
    check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
    _check_coded(rows, coded)
    check = check or _nobody_asks
    ranked: list[Ranked] = []
    for start in range(0, len(queries), _TOGETHER):
        some = np.ascontiguousarray(queries[start : start + _TOGETHER])
        asked = code_queries(some, coded, crew.variant.limit)
        found = None
        if asked is None:
            _check_finite(some)
        else:
            found = _find(
                some,
                asked,
                rows,
                coded,
                crew,
                groups=groups,
                k=k,
                eligible=eligible,
                minimum=minimum,
                joint=False,
                check=check,
            )
        for at in range(len(some)):
            query = some[at : at + 1]
            if asked is None or found is None:
                ranked.append(search(query, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, check=check))
                continue
            reach = float(asked.norms[at]) * coded.radius
            ranked.append(
                _decided(query, rows, found, at, groups=groups, k=k, minimum=minimum, radius=reach, check=check)
            )
    return ranked


def _find(
    queries: Floats,
    asked: CodedQueries,
    rows: Floats,
    coded: CodedRows,
    crew: Crew,
    *,
    groups: Ints,
    k: int,
    eligible: Flags | None,
    minimum: float | None,
    joint: bool,
    check: Callable[[], None],
) -> Found | None:
    """The rows that the library cannot rule out; None where there are so many that topk.search is faster."""
    least = float("-inf")
    if minimum is not None:
        with np.errstate(over="ignore"):
            least = float(np.nextafter(np.float32(minimum), np.float32(-np.inf)))
    job = Job(
        crew=crew,
        rows=rows,
        coded=coded,
        queries=queries,
        asked=asked,
        margin=np.array([wide_rounding(rows.shape[1], norm * coded.radius) for norm in asked.norms.tolist()]),
        groups=groups,
        eligible=eligible,
        k=min(k, len(rows)),
        minimum=least,
        joint=joint,
        taus=np.zeros(1 if joint else len(queries), np.uint32),
    )
    return find(job, check)


def _decided(
    queries: Floats,
    rows: Floats,
    found: Found,
    ranking: int,
    *,
    groups: Ints,
    k: int,
    minimum: float | None,
    radius: float,
    check: Callable[[], None],
) -> Ranked:
    """The answer of one ranking. Of a few rows it takes all pairs that may decide; of many, decide.decide knows how.

    Args:
        queries: (b, dimensions), those of this ranking.
        radius: at least |query| |row| of every pair.
    """
    check()
    parts = found.rows[ranking]
    candidates = parts[0] if len(parts) == 1 else np.concatenate(parts)
    candidates.sort()
    if len(queries) * len(candidates) > _PAIRS:
        leaders = Leaders(k, minimum)
        rescored = decide(
            queries, rows, groups=groups, candidates=candidates, radius=radius, leaders=leaders, check=check
        )
        best = leaders.settle()
    else:
        best, rescored = _best(queries, rows, groups, candidates, k, minimum, radius)
    return Ranked(*best, scanned=found.scanned, survivors=found.survivors, pieces=found.pieces, rescored=rescored)


def _best(
    queries: Floats, rows: Floats, groups: Ints, candidates: Ints, k: int, minimum: float | None, radius: float
) -> tuple[tuple[Wide, Ints, Ints, Ints], int]:
    """What Leaders.settle gives after `decide`, and how many pairs were scored exactly."""
    some = rows[candidates]
    if len(queries) == 1:
        at, query = np.arange(len(candidates)), np.zeros(len(candidates), np.int64)
        scores = exact_score(queries, some)
    else:  # a row's deciding pair lies at most twice the rounding under its best product; see decide.py
        products = wide_score(queries.astype(np.float64), some.astype(np.float64)).T
        floor = products.max(axis=1, keepdims=True) - 3 * wide_rounding(rows.shape[1], radius)
        at, query = np.nonzero(products >= floor)
        scores = exact_score(queries[query], some[at])
    order = np.argsort(-scores, kind="stable")  # pairs lie by row, then by query
    if minimum is not None:
        order = order[scores[order] >= minimum]
    row = candidates[at]
    first = _first_of_groups(order, groups[row[order]].tolist(), k)
    return (scores[first], groups[row[first]], row[first], query[first]), len(scores)


def _first_of_groups(order: Ints, groups: list[int], k: int) -> Ints:
    """Of places in their order, each with its group: the first of each of the first k groups."""
    if len(set(groups)) == len(groups):
        return order[:k]
    chosen: list[int] = []
    seen: set[int] = set()
    for place, group in zip(order.tolist(), groups, strict=True):
        if group not in seen:
            seen.add(group)
            chosen.append(place)
            if len(chosen) == k:
                break
    return np.array(chosen, np.int64)


def _nobody_asks() -> None:
    """No check."""


def _check_finite(queries: Floats) -> None:
    if not np.isfinite(queries).all():
        raise ValueError("the queries hold NaN or infinity")


def _check_coded(rows: Floats, coded: CodedRows) -> None:
    if coded.count != len(rows) or coded.basis.dimensions != rows.shape[1]:
        raise ValueError(
            f"the codes are of {coded.count} rows of {coded.basis.dimensions} dimensions, not of {rows.shape}"
        )
    if not rows.flags.c_contiguous:
        raise ValueError("the rows must be contiguous")
