"""Where the ops run: one interface, one home for each kind of processor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.crew import Crew
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.kernels.plan import choose
from matchcut.kernels.pool import pool
from matchcut.kernels.preprocess import Layout, preprocess
from matchcut.kernels.sieve import search_coded
from matchcut.kernels.topk import Ranked, search


class Device(Protocol):
    """A processor that runs the ops; each is documented in its module. Safe to be used by several threads at once.

    name: what `open_device` takes. variant: which implementation of `preprocess` and `pool` runs, for the stage times.
    scan: which one searches rows that are coded.
    """

    @property
    def name(self) -> str: ...

    @property
    def variant(self) -> str: ...

    @property
    def scan(self) -> str: ...

    def preprocess(
        self, frames: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], layout: Layout
    ) -> NDArray[np.float32]:
        """See preprocess.preprocess."""
        ...

    def pool(
        self,
        vectors: NDArray[np.float32],
        offsets: NDArray[np.int64],
        *,
        weights: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        normalise: bool = True,
    ) -> NDArray[np.float32]:
        """See pool.pool."""
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: NDArray[np.int64],
        k: int,
        eligible: NDArray[np.bool_] | None = None,
        minimum: float | None = None,
        radius: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> Ranked:
        """See topk.search, which gives the same answer; `variant` of the result says which implementation ranked.

        Args:
            coded: the codes of these very rows, which make it faster.
        """
        ...

    def coding(self, rows: NDArray[np.float32], *, check: Callable[[], None] | None = None) -> Codes | None:
        """Codes for rows like these, still empty; None where this device ranks rows as they are.

        Takes seconds where there are many.

        Args:
            rows: (n, dimensions) float32, finite.
            check: called every few hundred milliseconds; what it raises comes through.
        """
        ...

    def copied(self, coded: CodedRows, rows: NDArray[np.int64]) -> Codes:
        """The codes of some of the rows, in that order, to be extended apart; see Codes.of."""
        ...

    def close(self) -> None:
        """Ends the threads; what runs finishes. Closing again does nothing."""
        ...


class Cpu:
    """The cores that the process may use: the native scan of coded rows, NumPy for all else.

    Args:
        scan: what searches coded rows: a variant of kernels/native by its name, "numpy", which codes no rows, or
            "auto", the best that this processor runs.
        threads: of one search, at most; 0: as many as there are cores.

    Raises:
        ValueError: that variant cannot run here; the message says why.
    """

    name: ClassVar[str] = "cpu"
    variant: ClassVar[str] = "cpu-numpy"
    preprocess = staticmethod(preprocess)
    pool = staticmethod(pool)

    def __init__(self, *, scan: str = "auto", threads: int = 0) -> None:
        if threads < 0:
            raise ValueError(f"threads must be at least 0, not {threads}")
        self._crew = _crew(scan, threads or cores())
        self.scan = self.variant if self._crew is None else f"cpu-{self._crew.variant.name}"

    def search(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: NDArray[np.int64],
        k: int,
        eligible: NDArray[np.bool_] | None = None,
        minimum: float | None = None,
        radius: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> Ranked:
        """See Device."""
        if coded is None or self._crew is None:
            found = search(
                queries, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, radius=radius, check=check
            )
            return replace(found, variant=self.variant)
        found = search_coded(
            queries,
            rows,
            coded,
            crew=self._crew,
            groups=groups,
            k=k,
            eligible=eligible,
            minimum=minimum,
            radius=radius,
            check=check,
        )
        return replace(found, variant=f"cpu-{found.variant}" if found.variant else self.scan)

    def coding(self, rows: NDArray[np.float32], *, check: Callable[[], None] | None = None) -> Codes | None:
        """See Device."""
        if self._crew is None:
            return None
        return Codes(choose(rows, check=check), self._crew.library, self._crew.variant)

    def copied(self, coded: CodedRows, rows: NDArray[np.int64]) -> Codes:
        """See Device."""
        assert self._crew is not None, "without a native variant nothing is coded"
        return Codes.of(coded, rows, self._crew.library, self._crew.variant)

    def close(self) -> None:
        """See Device."""
        if self._crew is not None and self._crew.executor is not None:
            executor = self._crew.executor
            self._crew = replace(self._crew, threads=1, executor=None)
            executor.shutdown()


def cores() -> int:
    """How many cores the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _crew(scan: str, threads: int) -> Crew | None:
    """Who searches coded rows; None: nobody, NumPy searches the rows themselves."""
    library = None if scan == "numpy" else load()
    if isinstance(library, Absent):
        if scan != "auto":
            raise ValueError(f"there is no native scan {scan!r}: {library.why}")
        return None
    if library is None:
        return None
    variant = library.best if scan == "auto" else library.variant(scan)
    executor = ThreadPoolExecutor(threads - 1, "scan") if threads > 1 else None  # starts threads as they are needed
    return Crew(library, variant, threads, executor)


_HOMES: dict[str, type[Cpu]] = {"auto": Cpu, Cpu.name: Cpu}


def open_device(name: str = "auto", *, scan: str = "auto", threads: int = 0) -> Device:
    """The device of that name; "auto" is the fastest that this machine has.

    Args:
        scan, threads: see Cpu.

    Raises:
        ValueError: there is no such device, or no such scan on it; the message says what there is.
    """
    if name not in _HOMES:
        raise ValueError(f"there is no device {name!r}; choose one of {', '.join(map(repr, _HOMES))}")
    return _HOMES[name](scan=scan, threads=threads)
