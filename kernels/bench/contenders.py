"""What is timed: the coded scan in each variant, NumPy, FAISS, and a plain read of the codes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels import topk
from matchcut.kernels.bench.rounds import Answer, Contender, Flags, Floats, Ints
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.crew import Crew
from matchcut.kernels.sieve import search_each
from matchcut.kernels.topk import Ranked

READ = "plain read"
FLAT, PANORAMA = "FAISS flat", "FAISS Panorama"
NUMPY = "NumPy reference"
_RECORD = 8  # bytes beside the codes of a row's dense part: its scale and the norm of its tail
_THRESHOLDS = (800, 20)  # queries from which FAISS uses BLAS: what is best for few, its default
_ADDED = 65_536  # rows copied into FAISS at a time
_TRIES = 3


class PlainRead:
    """Reads every byte of some codes once, as fast as NumPy does: the least that a scan of all codes takes.

    Args:
        coded: whose chunks are read.
        size: bytes of them in use.
        helper: reads half of them, in a thread of its own; None: the caller reads all.
    """

    name = READ

    def __init__(self, coded: CodedRows, size: int, helper: Executor | None = None) -> None:
        self._helper = helper
        self._slabs: list[NDArray[np.uint8]] = []
        for slab in coded.keep:
            self._slabs.append(slab[:size])
            size -= len(self._slabs[-1])
        ways: dict[str, tuple[type[np.unsignedinteger[Any]], Callable[[Any], object]]] = {
            "xor of 8 bytes": (np.uint64, np.bitwise_xor.reduce),
            "largest of 8 bytes": (np.uint64, np.maximum.reduce),
            "largest byte": (np.uint8, np.maximum.reduce),
        }
        spent: dict[str, float] = {}
        for name in ways:
            self._type, self._reduce = ways[name]
            spent[name] = quickest(self._read)
        self.setting = min(spent, key=spent.__getitem__)
        self._type, self._reduce = ways[self.setting]
        self.setting += ", 2 threads" if helper is not None else ""

    def ask(self, queries: Floats, k: int) -> Answer:
        """Reads; ranks nothing."""
        self._read()
        return Answer(code_bytes=sum(map(len, self._slabs)))

    def _read(self) -> None:
        if self._helper is None:
            self._read_some(self._slabs)
            return
        half = self._helper.submit(self._read_some, self._slabs[::2])
        self._read_some(self._slabs[1::2])
        half.result()

    def _read_some(self, slabs: Sequence[NDArray[np.uint8]]) -> None:
        for slab in slabs:
            self._reduce(slab.view(self._type))


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """The coded scan, with one variant and one basis; every row is a group of its own."""

    crew: Crew
    rows: Floats
    coded: CodedRows
    groups: Ints
    eligible: Flags | None = None
    also: str = ""

    @property
    def name(self) -> str:
        """The variant's."""
        return f"matchcut {self.crew.variant.name}"

    @property
    def setting(self) -> str:
        """The basis, and what else is special."""
        basis = self.coded.basis
        turned = "plain" if basis.matrix is None else f"dense {basis.dense}"
        return f"{turned}{', ' if self.also else ''}{self.also}"

    def ask(self, queries: Floats, k: int) -> Answer:
        """search_each."""
        found = search_each(
            queries, self.rows, self.coded, crew=self.crew, groups=self.groups, k=k, eligible=self.eligible
        )
        read = found[0].scanned * (self.coded.basis.dense + _RECORD) + found[0].pieces * 64
        return replace(_answer(found, k), scanned=found[0].scanned, survivors=found[0].survivors, code_bytes=read)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """topk.search, which ranks where the native library is absent; a search for each query."""

    rows: Floats
    groups: Ints
    radius: float
    eligible: Flags | None = None
    name: str = NUMPY
    setting: str = ""

    def ask(self, queries: Floats, k: int) -> Answer:
        """topk.search."""
        groups, eligible, radius = self.groups, self.eligible, self.radius
        found = [
            topk.search(query[np.newaxis], self.rows, groups=groups, k=k, eligible=eligible, radius=radius)
            for query in queries
        ]
        return _answer(found, k)


class FaissIndex:
    """An index of FAISS with the rows in it."""

    def __init__(self, index: Any, *, name: str, setting: str = "") -> None:
        self.name, self.setting, self._index = name, setting, index

    def ask(self, queries: Floats, k: int) -> Answer:
        """Index.search."""
        _, ids = self._index.search(queries, k)
        return Answer(ids)


class FlatIndex(FaissIndex):
    """IndexFlatIP, asked with the BLAS threshold that suits the batch better."""

    def __init__(self, faiss: ModuleType, rows: Floats) -> None:
        super().__init__(filled(faiss.IndexFlatIP(rows.shape[1]), rows), name=FLAT)
        self._faiss, self._threshold = faiss, _THRESHOLDS[0]

    @property
    def index(self) -> Any:
        """With the rows in it."""
        return self._index

    def suit(self, queries: Floats, k: int) -> None:
        """Chooses the threshold for batches like this one; below both there is nothing to choose."""
        self.setting, self._threshold = "", _THRESHOLDS[0]
        if len(queries) < min(_THRESHOLDS):
            return
        spent = {}
        for self._threshold in _THRESHOLDS:
            spent[self._threshold] = quickest(lambda: self.ask(queries, k))
        self._threshold = min(spent, key=spent.__getitem__)
        self.setting = f"BLAS from {self._threshold}"

    def ask(self, queries: Floats, k: int) -> Answer:
        """Index.search."""
        self._faiss.cvar.distance_compute_blas_threshold = self._threshold
        return super().ask(queries, k)


def optional(name: str) -> tuple[ModuleType | None, str]:
    """A module that need not be installed, or why it cannot be used."""
    try:
        return importlib.import_module(name), ""
    except ImportError as error:
        return None, str(error)


def coded_rows(codes: Codes, rows: Floats, *, block: int = _ADDED) -> CodedRows:
    """Codes rows block by block, and gives them all."""
    for start in range(0, len(rows), block):
        codes.extend(rows[start : start + block])
    return codes.view()


def panorama_settings(dimensions: int) -> list[tuple[int, int]]:
    """Levels and batch sizes worth a try; 1280 dimensions were best with 40 levels and batches of 1024."""
    return [(max(1, dimensions // width), 1024) for width in (64, 32, 16) if width <= dimensions]


def panorama_setting(levels: int, size: int) -> str:
    """How a setting is told."""
    return f"{levels} x {size}"


def faiss_panorama(
    faiss: ModuleType, rows: Floats, queries: Floats, k: int, settings: Sequence[tuple[int, int]]
) -> tuple[Any, str, dict[str, float]]:
    """IndexFlatIPPanorama at its best levels and batch size, what those are, and the seconds of each setting."""
    spent: dict[str, float] = {}
    best: tuple[float, int, int] | None = None
    index = None
    for levels, size in settings:
        index = None  # before the next one is there: each holds all rows
        index = filled(faiss.IndexFlatIPPanorama(rows.shape[1], levels, size), rows)
        middle = _panorama_seconds(index, queries, k)
        spent[panorama_setting(levels, size)] = middle
        best = min(best or (np.inf, 0, 0), (middle, levels, size))
    assert best is not None, "there is no setting to try"
    _, levels, size = best
    if (levels, size) != tuple(settings[-1]):
        index = None
        index = filled(faiss.IndexFlatIPPanorama(rows.shape[1], levels, size), rows)
    return index, panorama_setting(levels, size), spent


def filled(index: Any, rows: Floats) -> Any:
    """The index with the rows added in blocks, so that no second copy of all is made."""
    for start in range(0, len(rows), _ADDED):
        index.add(np.ascontiguousarray(rows[start : start + _ADDED]))
    return index


def suit(contenders: Sequence[Contender], queries: Floats, k: int) -> None:
    """Lets those that can adapt to the size of a batch do so."""
    for contender in contenders:
        if isinstance(contender, FlatIndex):
            contender.suit(queries, k)


def _panorama_seconds(index: Any, queries: Floats, k: int) -> float:
    index.search(queries[:1], k)
    return float(np.median([_seconds(partial(index.search, query[np.newaxis], k)) for query in queries[:_TRIES]]))


def _answer(found: Sequence[Ranked], k: int) -> Answer:
    ids = np.full((len(found), k), -1, np.int64)
    for at, one in enumerate(found):
        ids[at, : len(one)] = one.rows
    return Answer(ids, rescored=sum(one.rescored for one in found))


def quickest(work: Callable[[], object]) -> float:
    """Seconds of the quickest of a few calls."""
    return min(_seconds(work) for _ in range(_TRIES))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
