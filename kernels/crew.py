"""Threads that scan coded rows with the library of kernels/native, and find the rows that cannot be ruled out.

Dispatch: sieve.py calls this.

Threads take chunks of rows in turn and share what is known of the k-th best. Each holds a bounded number of pairs that
are still in it: when there are more, it works on those until few are left before it scans on. Where too many are left,
as of copies by the million, nothing is found, as topk.search is faster then.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from ctypes import byref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedQueries, CodedRows
from matchcut.kernels.native.shared_library import Library, NativeCounts, Variant

_SEEDS = 32  # groups that are looked at in full at once, at least
_SLICE = 128  # chunks that a thread takes at a time, if there is one query
_PARALLEL = 16  # under so many chunks one thread is faster
_HELD = 1 << 20  # pairs that a thread holds before it works on them
_DIRECT = 4  # queries, at most, for which a block with few eligible rows is not worth reading
_BLOCK = 16  # MC_BLOCK of native/scan.h
_FEW = 1 << 16  # pairs that are scored in float64 whatever topk.search would take

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
class Job:
    """What every thread needs to know; see topk.search and mc_open in native/scan.h.

    taus: one for each ranking that is asked for.
    """

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
class Found:
    """The rows left for each ranking, in parts, no row twice; and what it took."""

    rows: list[list[Ints]]
    scanned: int = 0
    survivors: int = 0
    pieces: int = 0

    def add(self, other: Found) -> None:
        """What another thread has found."""
        for mine, theirs in zip(self.rows, other.rows, strict=True):
            mine += theirs
        self.scanned += other.scanned
        self.survivors += other.survivors
        self.pieces += other.pieces


class _TooManyLeft(Exception):
    """topk.search is faster."""


def find(job: Job, check: Callable[[], None]) -> Found | None:
    """The rows that the library cannot rule out; None where there are so many that topk.search is faster.

    Raises:
        MemoryError: there is no room.
        Exception: what `check` raised.
    """
    chunks = len(job.coded.table)
    step = max(1, _SLICE // len(job.queries))
    turns = itertools.count(0, step)  # next() is atomic
    helpers = 0 if chunks < _PARALLEL else min(job.crew.threads, -(-chunks // step)) - 1
    stop: list[bool] = []
    futures: list[Future[Found]] = []
    try:
        if job.crew.executor is not None:
            executor = job.crew.executor
            with suppress(RuntimeError):  # it was shut down meanwhile; the caller's own thread is enough
                futures.extend(executor.submit(_scan, job, turns, step, _stopper(stop)) for _ in range(helpers))
        found = _scan(job, turns, step, check)
        for future in futures:
            if not future.cancel():  # one that has not begun finds nothing to do, and may never begin
                found.add(future.result())
    except BaseException as error:
        stop.append(True)
        for future in futures:
            if not future.cancel():
                future.exception()
        if isinstance(error, _TooManyLeft):
            return None
        raise
    return found


def _scan(job: Job, turns: Iterator[int], step: int, check: Callable[[], None]) -> Found:
    """One thread's part."""
    found = Found([[] for _ in job.taus])
    while _scan_some(job, turns, step, check, found):
        pass
    return found


def _scan_some(job: Job, turns: Iterator[int], step: int, check: Callable[[], None], found: Found) -> bool:
    """Scans until there is enough to work on, and works on that; whether more rows may be left."""
    functions = job.crew.library.functions
    chunks, queries = len(job.coded.table), range(len(job.queries))
    counts = NativeCounts()
    with _opened(job) as scan:
        while counts.survivors <= _HELD and (begin := next(turns)) < chunks:
            check()
            _done(functions.mc_dense(scan, begin, min(begin + step, chunks)))
            functions.mc_count(scan, byref(counts))
        while _done(functions.mc_tail(scan)):
            check()
        functions.mc_count(scan, byref(counts))
        # To score a pair in float64 takes about as long as topk.search takes for a row and 16 queries.
        rivalled = counts.scanned * (len(job.taus) / 2 + len(queries) / 16)
        if sum(functions.mc_left(scan, query) for query in queries) > max(_FEW, rivalled):
            raise _TooManyLeft
        while _done(
            functions.mc_narrow(
                scan, job.rows.ctypes.data, job.rows.shape[1], job.queries.ctypes.data, job.margin.ctypes.data
            )
        ):
            check()
        left = [np.empty(functions.mc_left(scan, query), np.int64) for query in queries]
        for query in queries:
            functions.mc_take(scan, query, left[query].ctypes.data)
    if job.joint and len(left) > 1:
        left = [np.unique(np.concatenate(left))]
    for rows, more in zip(found.rows, left, strict=True):
        rows.append(more)
    found.scanned += counts.scanned
    found.survivors += counts.survivors
    found.pieces += counts.pieces
    return bool(counts.survivors > _HELD)


@contextmanager
def _opened(job: Job) -> Iterator[ctypes.c_void_p]:
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
    basis = job.coded.basis
    most = 0
    if eligible is not None and not basis.levels and len(job.queries) <= _DIRECT:
        most = (_BLOCK * basis.dense - 1) // (job.rows.itemsize * job.rows.shape[1])
    functions.mc_originals(
        scan, job.rows.ctypes.data, job.rows.shape[1], job.queries.ctypes.data, job.margin.ctypes.data, most
    )
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
