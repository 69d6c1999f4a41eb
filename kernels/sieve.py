"""topk.search and its like over coded rows: the same answers, for a fraction of the memory traffic.

Dispatch: device.Cpu calls this where the library of kernels/native is there, topk.search where it is not.

The library rules out what cannot be among the k best groups (codes.py proves by what), first by the codes and then in
float64; decide.decide has the last word on the pairs that are left, as it has in topk. Threads take chunks of rows in
turn and share what is known of the k-th best.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from ctypes import byref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedQueries, CodedRows, code_queries
from matchcut.kernels.decide import Leaders, decide, first_of_each
from matchcut.kernels.native.library import Library, NativeCounts, Variant
from matchcut.kernels.score import largest_norm, wide_rounding
from matchcut.kernels.topk import Ranked, check_search, search

_SEEDS = 64  # groups that are looked at in full at once, at least
_SLICE = 128  # chunks that a thread takes at a time, if there is one query
_PARALLEL = 16  # under so many chunks one thread is faster
_TOGETHER = 64  # queries that share a pass, at most

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Crew:
    """What scans: the library, one of its variants, and threads beside the caller's own.

    threads: at most so many scan at once, the caller's included.
    """

    library: Library
    variant: Variant
    threads: int = 1
    executor: Executor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """What every thread needs to know."""

    crew: Crew
    rows: Floats
    coded: CodedRows
    queries: Floats
    asked: CodedQueries
    margin: NDArray[np.float64]
    groups: Ints
    eligible: Flags | None
    k: int
    minimum: float
    joint: bool
    taus: NDArray[np.uint32]


@dataclass(slots=True)
class _Found:
    """The rows left for each query, and what it took."""

    rows: list[list[Ints]]
    scanned: int = 0
    survivors: int = 0
    pieces: int = 0


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
    candidates = np.unique(np.concatenate([np.empty(0, np.int64), *itertools.chain.from_iterable(found.rows)]))
    rescored = decide(
        distinct,
        rows,
        groups=groups,
        candidates=candidates,
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
) -> _Found | None:
    """The rows that the library cannot rule out; None where the bounds say nothing."""
    asked = code_queries(queries, coded, crew.variant.limit)
    if asked is None:
        return None
    radius = coded_radius(coded)
    wide = queries.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    floor = -np.inf if minimum is None else minimum
    job = _Search(
        crew=crew,
        rows=rows,
        coded=coded,
        queries=queries,
        asked=asked,
        margin=np.array([wide_rounding(rows.shape[1], norm * radius) for norm in norms.tolist()]),
        groups=groups,
        eligible=eligible,
        k=k,
        minimum=float(np.nextafter(np.float32(floor), np.float32(-np.inf))),
        joint=joint,
        taus=np.zeros(1 if joint else len(queries), np.uint32),
    )
    chunks = len(coded.table)
    step = max(1, _SLICE // len(queries))
    turns = itertools.count(0, step)  # next() is atomic
    helpers = 0 if crew.executor is None or chunks < _PARALLEL else min(crew.threads, -(-chunks // step)) - 1
    stop: list[bool] = []
    futures: list[Future[_Found]] = []
    try:
        if crew.executor is not None:
            futures = [crew.executor.submit(_scan, job, turns, step, _stopper(stop)) for _ in range(helpers)]
        found = _scan(job, turns, step, check)
    except BaseException:
        stop.append(True)
        for future in futures:
            future.exception()
        raise
    for future in futures:
        other = future.result()
        for mine, theirs in zip(found.rows, other.rows, strict=True):
            mine += theirs
        found.scanned += other.scanned
        found.survivors += other.survivors
        found.pieces += other.pieces
    return found


def _scan(job: _Search, turns: Iterator[int], step: int, check: Callable[[], None]) -> _Found:
    """One thread's part."""
    functions = job.crew.library.functions
    chunks = len(job.coded.table)
    with _opened(job) as scan:
        for begin in iter(lambda: next(turns), None):
            if begin >= chunks:
                break
            check()
            _done(functions.mc_dense(scan, begin, min(begin + step, chunks)))
        while _done(functions.mc_tail(scan)):
            check()
        while _done(
            functions.mc_narrow(
                scan, job.rows.ctypes.data, job.rows.shape[1], job.queries.ctypes.data, job.margin.ctypes.data
            )
        ):
            check()
        left: list[list[Ints]] = []
        for at in range(len(job.queries)):
            rows = np.empty(functions.mc_left(scan, at), np.int64)
            functions.mc_take(scan, at, rows.ctypes.data)
            left.append([rows])
        counts = NativeCounts()
        functions.mc_count(scan, byref(counts))
    return _Found(left, counts.scanned, counts.survivors, counts.pieces)


@contextmanager
def _opened(job: _Search) -> Iterator[ctypes.c_void_p]:
    functions = job.crew.library.functions
    eligible = None if job.eligible is None else np.ascontiguousarray(job.eligible)
    groups = np.ascontiguousarray(job.groups)
    codes, asked = job.coded.native(), job.asked.native(joint=job.joint)
    scan = functions.mc_open(
        job.crew.variant.index,
        byref(codes),
        byref(asked),
        groups.ctypes.data,
        None if eligible is None else eligible.ctypes.data,
        job.k,
        job.minimum,
        job.taus.ctypes.data,
        max(_SEEDS, job.k + job.k // 4),
    )
    if not scan:
        raise MemoryError("no memory to search")
    try:
        yield scan
    finally:
        functions.mc_close(scan)


def _done(code: int) -> bool:
    """Whether there is more to do."""
    if code < 0:
        raise MemoryError("no memory to search")
    return code > 0


def _stopper(stop: list[bool]) -> Callable[[], None]:
    def check() -> None:
        if stop:
            raise RuntimeError("the search was given up")

    return check


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
