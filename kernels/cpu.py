"""The CPU as a device: the native scan of coded rows, NumPy for all else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.apart import listed, without
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.crew import Crew
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.plan import choose
from matchcut.kernels.pool import attend, pool
from matchcut.kernels.preprocess import Layout, preprocess
from matchcut.kernels.sieve import search_coded, search_each
from matchcut.kernels.topk import Ranked, check_search, search

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Cpu:
    """The cores that the process may use.

    Args:
        scan: what searches coded rows: a variant of kernels/native by its name, "numpy", which codes no rows, or
            "auto", the best that this processor runs.
        threads: of one search, at most; 0: as many as there are cores.

    Raises:
        ValueError: that variant cannot run here; the message says why.
    """

    name: ClassVar[str] = "cpu"
    title: ClassVar[str] = "the CPU"
    variant: ClassVar[str] = "cpu-numpy"
    context: ClassVar[None] = None
    pool = staticmethod(pool)
    attend = staticmethod(attend)

    def __init__(self, *, scan: str = "auto", threads: int = 0) -> None:
        if threads < 0:
            raise ValueError(f"threads must be at least 0, not {threads}")
        self._crew = _crew(scan, threads or cores())
        self.scan = self.variant if self._crew is None else f"cpu-{self._crew.variant.name}"

    @staticmethod
    def preprocess(
        frames: NDArray[np.uint8] | Yuv420,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Layout,
        *,
        size: tuple[int, int] | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> NDArray[Any]:
        """See Device."""
        return preprocess(frames, mean, std, layout, size=size, dtype=dtype)

    def search(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: Ints,
        k: int,
        eligible: Flags | None = None,
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
        return self._named(found)

    def search_each(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: Ints,
        k: int,
        eligible: Flags | None = None,
        excluded: Sequence[Ints] | None = None,
        minimum: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Ranked]:
        """See Device. Queries that exclude nothing share what is read; the others are searched one by one."""
        check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
        lists = listed(len(queries), excluded)
        together = np.array([not len(one) for one in lists])
        shared: list[Ranked] = []
        if coded is not None and self._crew is not None and together.any():
            shared = search_each(
                queries[together],
                rows,
                coded,
                crew=self._crew,
                groups=groups,
                k=k,
                eligible=eligible,
                minimum=minimum,
                check=check,
            )
        ranked: list[Ranked] = []
        waiting = iter(shared)
        for at, one in enumerate(lists):
            if shared and together[at]:
                ranked.append(self._named(next(waiting)))
                continue
            ranked.append(
                self.search(
                    queries[at : at + 1],
                    rows,
                    groups=groups,
                    k=k,
                    eligible=without(groups, one, eligible),
                    minimum=minimum,
                    coded=coded,
                    check=check,
                )
            )
        return ranked

    def coding(self, rows: NDArray[np.float32], *, check: Callable[[], None] | None = None) -> Codes | None:
        """See Device."""
        if self._crew is None:
            return None
        return Codes(choose(rows, check=check), self._crew.library, self._crew.variant)

    def copied(self, coded: CodedRows, rows: Ints) -> Codes:
        """See Device."""
        assert self._crew is not None, "without a native variant nothing is coded"
        return Codes.of(coded, rows, self._crew.library, self._crew.variant)

    def prepare(self, rows: NDArray[np.float32], coded: CodedRows) -> None:
        """See Device: rows and codes are where they are searched."""

    def failure(self, error: BaseException) -> None:
        """See Device: nothing is known that would say more of a CPU than the exception itself."""

    def close(self) -> None:
        """See Device."""
        if self._crew is not None and self._crew.executor is not None:
            executor = self._crew.executor
            self._crew = replace(self._crew, threads=1, executor=None)
            executor.shutdown()

    def _named(self, found: Ranked) -> Ranked:
        """With the variant as stage times show it."""
        return replace(found, variant=f"cpu-{found.variant}" if found.variant else self.scan)


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
