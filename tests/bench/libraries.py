"""The libraries that scan.py compares with, each in its best setting for exact or nearly exact ranking.

FAISS, numkong and usearch are not needed by matchcut; those that are missing are reported as absent. What a library
cannot promise, it gets the chance to reach: candidates are taken in ever larger numbers until the answers are those of
float64, and scored again from the float32 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.bench.contenders import FlatIndex, filled, optional, quickest
from matchcut.kernels.bench.rounds import Answer, Floats, Ints

PACKAGES = ("faiss-cpu", "numkong", "usearch")
FACTORS = (2, 4, 8, 16, 32)
_BLOCK = 16_384  # rows scored at a time
_PACKED = 32_768  # rows of a packed block of numkong
_SQ8_TRAINED = 65_536

Wide = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


class Shortlist:
    """The `count` rows of largest score for each of b queries, from blocks of scores."""

    def __init__(self, b: int, count: int) -> None:
        self._count = count
        self._scores: list[Floats] = [np.empty(0, np.float32)] * b
        self._rows: list[Ints] = [np.empty(0, np.int64)] * b

    def add(self, scores: Numbers, start: int) -> None:
        """Takes the (b, n) scores of rows start, start + 1, ..."""
        for at, own in enumerate(scores):
            known = self._scores[at]
            floor = known[0] if len(known) == self._count else -np.inf
            more = np.flatnonzero(own >= floor)
            known = np.concatenate([known, own[more].astype(np.float32)])
            rows = np.concatenate([self._rows[at], more + start])
            if len(known) >= self._count:
                kept = np.argpartition(known, -self._count)[-self._count :]  # the least of them first
                known, rows = known[kept], rows[kept]
            self._scores[at], self._rows[at] = known, rows

    def best(self, queries: Floats, rows: Floats, k: int) -> Ints:
        """The k best of each list, scored again in float64."""
        found = np.empty((len(queries), k), np.int64)
        for at, (query, listed) in enumerate(zip(queries, self._rows, strict=True)):
            scores = rows[listed].astype(np.float64) @ query.astype(np.float64)
            found[at] = listed[np.lexsort((listed, -scores))[:k]]
        return found


class Product:
    """NumPy: products of blocks that stay in the cache, the best kept in float32 and scored again in float64."""

    name, setting = "NumPy product", ""

    def __init__(self, rows: Floats) -> None:
        self._rows = rows

    def ask(self, queries: Floats, k: int) -> Answer:
        """See Contender."""
        listed = Shortlist(len(queries), k + 8)
        for start in range(0, len(self._rows), _BLOCK):
            block = self._rows[start : start + _BLOCK]
            listed.add((block @ queries[0])[np.newaxis] if len(queries) == 1 else queries @ block.T, start)
        return Answer(listed.best(queries, self._rows, k))


class Refined:
    """FAISS: bytes of IndexScalarQuantizer scanned, IndexRefineFlat over the float32 vectors of another index."""

    def __init__(self, faiss: ModuleType, rows: Floats, flat: Any) -> None:
        self.name, self.factor = "FAISS SQ8 + refine", FACTORS[0]
        dimensions = rows.shape[1]
        kind = faiss.ScalarQuantizer.QT_8bit
        self._bytes = faiss.IndexScalarQuantizer(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
        self._bytes.train(np.ascontiguousarray(rows[:_SQ8_TRAINED]))
        self._refined = faiss.IndexRefineFlat(self._bytes)
        filled(self._bytes, rows)
        self._flat = flat  # shared: a copy of its own would double the memory and change nothing else
        self._refined.refine_index, self._refined.own_refine_index = flat, False
        self._refined.ntotal = len(rows)

    @property
    def setting(self) -> str:
        """How many more candidates than asked for."""
        return f"{self.factor} k candidates"

    def ask(self, queries: Floats, k: int) -> Answer:
        """See Contender."""
        self._refined.k_factor = self.factor
        _, ids = self._refined.search(queries, k)
        return Answer(ids, rescored=self.factor * k * len(queries))


class Numkong:
    """numkong: dot products of int8 rows with a scale each, by the quicker of its two ways, then float64."""

    name = "numkong int8 + rescore"

    def __init__(self, numkong: ModuleType, rows: Floats) -> None:
        self._numkong, self._rows, self.factor, self._way = numkong, rows, FACTORS[0], "cdist"
        self._codes = np.empty(rows.shape, np.int8)
        self._scales = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._codes[block], self._scales[block] = _coded(rows[block])
        starts = range(0, len(rows), _PACKED)
        self._packed = [numkong.dots_pack(self._codes[at : at + _PACKED], dtype="int8") for at in starts]

    @property
    def setting(self) -> str:
        """Which way, and how many more candidates than asked for."""
        return f"{self._way}, {self.factor} k candidates"

    def suit(self, queries: Floats, k: int) -> None:
        """Chooses the way for batches like this one."""
        spent = {}
        for self._way in ("cdist", "packed"):
            spent[self._way] = quickest(lambda: self.ask(queries, k))
        self._way = min(spent, key=spent.__getitem__)

    def ask(self, queries: Floats, k: int) -> Answer:
        """See Contender."""
        codes, _ = _coded(queries)  # a query's own scale does not change the order
        listed = Shortlist(len(queries), self.factor * k)
        for start, dots in self._dots(codes):
            listed.add(np.multiply(dots, self._scales[start : start + dots.shape[1]], dtype=np.float32), start)
        return Answer(listed.best(queries, self._rows, k), rescored=self.factor * k * len(queries))

    def _dots(self, codes: NDArray[np.int8]) -> Iterator[tuple[int, Numbers]]:
        if self._way == "packed":
            for at, packed in enumerate(self._packed):
                yield at * _PACKED, np.asarray(self._numkong.dots_packed(codes, packed))
            return
        for start in range(0, len(self._codes), _BLOCK):
            yield start, np.asarray(self._numkong.cdist(codes, self._codes[start : start + _BLOCK], "dot"))


class Usearch:
    """usearch.index.search(exact=True) of the float32 rows where they lie."""

    name, setting = "usearch exact", ""

    def __init__(self, usearch: ModuleType, rows: Floats) -> None:
        self._usearch, self._rows = usearch, rows

    def ask(self, queries: Floats, k: int) -> Answer:
        """See Contender."""
        metric = self._usearch.MetricKind.IP
        found = self._usearch.search(self._rows, queries, k, metric, exact=True, threads=1)
        return Answer(np.asarray(found.keys).astype(np.int64).reshape(len(queries), k))


def fit(contender: object, queries: Floats, truth: Ints, k: int) -> None:
    """Sets a contender for batches like this one: the quickest way, the fewest candidates that suffice, if any do."""
    if isinstance(contender, Numkong | FlatIndex):
        contender.suit(queries, k)
    if isinstance(contender, Numkong | Refined):
        for contender.factor in FACTORS:
            ids = contender.ask(queries, k).ids
            if ids is not None and np.array_equal(ids, truth[: len(queries), :k]):
                break


def present(name: str, make: Callable[[ModuleType], object]) -> list[Any]:
    """What is made with a module; nothing, and a line that says so, where it is missing."""
    module, why = optional(name)
    if module is None:
        print(f"{name} is absent: {why}")
        return []
    return [make(module)]


def _coded(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    return np.rint(rows / scales[:, np.newaxis]).astype(np.int8), scales
