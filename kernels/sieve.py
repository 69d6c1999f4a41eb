"""topk.search and its like over coded rows: the same answers, for a fraction of the memory traffic.

Dispatch: device.Cpu calls this where the library of kernels/native is there, topk.search where it is not.

The library rules out what cannot be among the k best groups (codes.py proves by what), first by the codes and then in
float64; decide.decide has the last word on the pairs that are left, as it has in topk.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, code_queries
from matchcut.kernels.crew import Crew as Crew
from matchcut.kernels.crew import Found, Job, find
from matchcut.kernels.decide import Leaders, decide, first_of_each
from matchcut.kernels.score import largest_norm, wide_rounding
from matchcut.kernels.topk import Ranked, check_search, search

_TOGETHER = 64  # queries that share a pass, at most

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
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
    first, _ = first_of_each(queries)
    distinct = np.ascontiguousarray(queries if len(first) == len(queries) else queries[first])
    check = check or _nobody_asks
    reach = _finite_norm(distinct)
    found = _find(
        distinct, rows, coded, crew, groups=groups, k=k, eligible=eligible, minimum=minimum, joint=True, check=check
    )
    if found is None:
        return search(queries, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, radius=radius, check=check)
    leaders = Leaders(k, minimum)
    rescored = decide(
        distinct,
        rows,
        groups=groups,
        candidates=np.sort(np.concatenate(found.rows[0])),
        radius=reach * coded_radius(coded),
        leaders=leaders,
        check=check,
    )
    scores, leading, row, query = leaders.settle()
    return Ranked(
        scores,
        leading,
        row,
        first[query],
        scanned=found.scanned,
        survivors=found.survivors,
        pieces=found.pieces,
        rescored=rescored,
    )


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
    _finite_norm(queries)
    ranked: list[Ranked] = []
    for start in range(0, len(queries), _TOGETHER):
        some = np.ascontiguousarray(queries[start : start + _TOGETHER])
        found = _find(
            some, rows, coded, crew, groups=groups, k=k, eligible=eligible, minimum=minimum, joint=False, check=check
        )
        for at in range(len(some)):
            query = some[at : at + 1]
            if found is None:
                ranked.append(search(query, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, check=check))
                continue
            leaders = Leaders(k, minimum)
            rescored = decide(
                query,
                rows,
                groups=groups,
                candidates=np.sort(np.concatenate(found.rows[at])),
                radius=largest_norm(query) * coded_radius(coded),
                leaders=leaders,
                check=check,
            )
            ranked.append(
                Ranked(
                    *leaders.settle(),
                    scanned=found.scanned,
                    survivors=found.survivors,
                    pieces=found.pieces,
                    rescored=rescored,
                )
            )
    return ranked


def coded_radius(coded: CodedRows) -> float:
    """At least the norm of each row."""
    return coded.span + float(np.linalg.norm(coded.basis.mean.astype(np.float64))) * (1 + 1e-9)


def _find(
    queries: Floats,
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
    """The rows that the library cannot rule out; None where topk.search has to do without it."""
    asked = code_queries(queries, coded, crew.variant.limit)
    if asked is None:
        return None
    radius = coded_radius(coded)
    wide = queries.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    with np.errstate(over="ignore"):
        least = np.nextafter(np.float32(-np.inf if minimum is None else minimum), np.float32(-np.inf))
    job = Job(
        crew=crew,
        rows=rows,
        coded=coded,
        queries=queries,
        asked=asked,
        margin=np.array([wide_rounding(rows.shape[1], norm * radius) for norm in norms.tolist()]),
        groups=groups,
        eligible=eligible,
        k=min(k, len(rows)),
        minimum=float(least),
        joint=joint,
        taus=np.zeros(1 if joint else len(queries), np.uint32),
    )
    return find(job, check)


def _nobody_asks() -> None:
    """No check."""


def _finite_norm(queries: Floats) -> float:
    norm = largest_norm(queries)
    if not np.isfinite(norm):
        raise ValueError("the queries hold NaN or infinity")
    return norm


def _check_coded(rows: Floats, coded: CodedRows) -> None:
    if coded.count != len(rows) or coded.basis.dimensions != rows.shape[1]:
        raise ValueError(
            f"the codes are of {coded.count} rows of {coded.basis.dimensions} dimensions, not of {rows.shape}"
        )
    if not rows.flags.c_contiguous:
        raise ValueError("the rows must be contiguous")
