"""The GPU as a device: what kernels.device.Device promises, with the codes of rows kept in its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.basis import Basis
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.cuda.errors import CudaAbsent
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.cuda.mirror import Kind, Mirror, Resident
from matchcut.kernels.cuda.ranking import Answer, Task, rank
from matchcut.kernels.decide import Leaders, first_of_each
from matchcut.kernels.launch.ranking import MANY, MOST, Questions, coded_questions, plain_questions
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.kernels.plan import choose
from matchcut.kernels.score import largest_norm
from matchcut.kernels.topk import Ranked, check_search, search

_KINDS: tuple[Kind, ...] = ("int8", "bf16", "fp32")
_OLDEST = 80  # compute capability from which int8 and bfloat16 are scanned

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Cuda:
    """One GPU. Rows that are coded are ranked there; few rows, which have no codes, by NumPy.

    Device memory holds coded rows twice, as they are and as codes; a view that is older than another shares it. What is
    given in arrays that cannot be written to (`groups`, `eligible`) is uploaded once for each array object.

    Args:
        scan: how rows are scanned: "int8", "bf16" or "fp32"; "auto" is the fastest that the GPU can.
        threads: not used; the Device of a CPU takes it.
        ordinal: which GPU.
        context: an open one to use instead.

    Raises:
        CudaAbsent: there is no GPU that can be used; the message says why.
        ValueError: it cannot scan like that.
    """

    name: ClassVar[str] = "cuda"

    def __init__(
        self, *, scan: str = "auto", threads: int = 0, ordinal: int = 0, context: Context | None = None
    ) -> None:
        library = load()
        if isinstance(library, Absent):
            raise CudaAbsent(f"rows for the GPU are coded by the native library, which is absent: {library.why}")
        self._library = library
        self._context = context or Context.open(ordinal)
        try:
            self._kind = _kind(scan, self._context.capability)
        except ValueError:
            self._context.close()
            raise
        self.variant = f"cuda-{self._context.capability}"
        self.scan = f"cuda-{self._kind}"
        self._lock = Lock()
        self._mirrors: WeakKeyDictionary[Basis, Mirror] = WeakKeyDictionary()
        self._uploads: dict[int, tuple[ref[NDArray[Any]], Buffer]] = {}

    @property
    def context(self) -> Context:
        """For measurements."""
        return self._context

    def search(
        self,
        queries: Floats,
        rows: Floats,
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
        if coded is None or k > MOST:
            return self._reference(
                queries, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, radius=radius, check=check
            )
        check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
        first, _ = first_of_each(queries)
        distinct = queries if len(first) == len(queries) else queries[first]
        answers = self._answers(distinct, rows, coded, groups, k, eligible, minimum, None, check)
        if answers is None:
            return self._reference(
                queries, rows, groups=groups, k=k, eligible=eligible, minimum=minimum, radius=radius, check=check
            )
        leaders = Leaders(k, minimum)
        for at, answer in enumerate(answers):
            number = np.full(len(answer.rows), first[at])
            leaders.add(answer.scores, groups[answer.rows], answer.rows, number)
        scores, leading, row, query = leaders.settle()
        return Ranked(scores, leading, row, query, **self._cost(coded, answers))

    def search_each(
        self,
        queries: Floats,
        rows: Floats,
        *,
        groups: Ints,
        k: int,
        coded: CodedRows,
        eligible: Flags | None = None,
        excluded: Sequence[Ints] | None = None,
        minimum: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Ranked]:
        """A ranking of its own for each query, which share what is read.

        Args:
            excluded: for each query the groups that it does not want.

        Raises:
            ValueError: as topk.search; k above 4096; norms that codes do not bound.
        """
        check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
        if k > MOST:
            raise ValueError(f"k must be at most {MOST}, not {k}")
        if excluded is not None and len(excluded) != len(queries):
            raise ValueError(f"{len(queries)} queries need as many lists of excluded groups, not {len(excluded)}")
        answers = self._answers(queries, rows, coded, groups, k, eligible, minimum, excluded, check)
        if answers is None:
            raise ValueError("the norms of queries or rows are too large or too small to be bounded")
        ranked = []
        for answer in answers:
            which = groups[answer.rows]
            none = np.zeros(len(which), np.int64)
            ranked.append(Ranked(answer.scores, which, answer.rows, none, **self._cost(coded, [answer])))
        return ranked

    def prepare(self, rows: Floats, coded: CodedRows) -> None:
        """See Device."""
        with self._context.lane() as lane:
            self._mirror(coded).resident(lane, rows, coded)

    def coding(self, rows: Floats, *, check: Callable[[], None] | None = None) -> Codes | None:
        """See Device."""
        return Codes(choose(rows, check=check), self._library)

    def copied(self, coded: CodedRows, rows: Ints) -> Codes:
        """See Device."""
        apart = replace(coded, basis=replace(coded.basis))  # a basis of its own stands for memory of its own
        return Codes.of(apart, rows, self._library)

    def close(self) -> None:
        """See Device."""
        self._context.close()

    def _answers(
        self,
        queries: Floats,
        rows: Floats,
        coded: CodedRows,
        groups: Ints,
        k: int,
        eligible: Flags | None,
        minimum: float | None,
        excluded: Sequence[Ints] | None,
        check: Callable[[], None] | None,
    ) -> list[Answer] | None:
        """The best pairs of each query; None where norms are too large or too small for bounds."""
        if not np.isfinite(largest_norm(queries)):
            raise ValueError("the queries hold NaN or infinity")
        if not len(rows):
            none = np.empty(0, np.int64)
            return [Answer(none, none.astype(np.float64), 0, 0) for _ in queries]
        names, small = _small(groups)
        answers: list[Answer] = []
        with self._context.lane() as lane:
            resident = self._mirror(coded).resident(lane, rows, coded)
            mask = resident.ones if eligible is None else self._uploaded(lane, eligible, np.uint8)
            on_device = self._uploaded(lane, groups if names is None else small, np.int32)
            for start in range(0, len(queries), MANY):
                if check is not None:
                    check()
                some = slice(start, start + MANY)
                asked = self._questions(queries[some], coded, resident)
                if asked is None:
                    return None
                lists = None if excluded is None else [_listed(one, names) for one in excluded[some]]
                task = Task(resident, mask, on_device, k, minimum, lists)
                answers += rank(lane, task, [asked], groups)
        return answers

    def _questions(self, queries: Floats, coded: CodedRows, resident: Resident) -> Questions | None:
        radius = coded.radius
        if self._kind == "int8":
            return coded_questions(queries, coded, radius, resident.pitch)
        return plain_questions(queries, self._kind, radius, resident.pitch)

    def _mirror(self, coded: CodedRows) -> Mirror:
        with self._lock:
            return self._mirrors.setdefault(coded.basis, Mirror(self._context, self._kind))

    def _uploaded(self, lane: Lane, array: NDArray[Any], dtype: type[np.generic]) -> Buffer:
        """The array on the device; one that cannot be written to stays there as long as it is referred to."""
        if array.flags.writeable:
            return lane.upload(array.astype(dtype, copy=False))
        key = id(array)
        with self._lock:
            known = self._uploads.get(key)
            if known is not None and known[0]() is array:
                return known[1]
        values = np.ascontiguousarray(array).astype(dtype, copy=False)
        buffer = self._context.allocate(max(1, values.nbytes))
        lane.upload(values, buffer)
        lane.synchronize()  # others may use it from now on
        with self._lock:
            self._uploads[key] = ref(array, lambda _: self._uploads.pop(key, None)), buffer
        return buffer

    def _reference(self, queries: Floats, rows: Floats, **rest: Any) -> Ranked:
        return replace(search(queries, rows, **rest), variant="cpu-numpy")

    def _cost(self, coded: CodedRows, answers: Sequence[Answer]) -> dict[str, Any]:
        survivors = sum(answer.survivors for answer in answers)
        levels = coded.basis.levels if self._kind == "int8" else 0
        return {
            "scanned": coded.count,
            "survivors": survivors,
            "pieces": survivors * levels,
            "rescored": sum(answer.rescored for answer in answers),
            "variant": self.scan,
        }


def _kind(scan: str, capability: int) -> Kind:
    if scan == "auto":
        return "int8" if capability >= _OLDEST else "fp32"
    for kind in _KINDS:
        if scan == kind:
            if kind != "fp32" and capability < _OLDEST:
                raise ValueError(f"a GPU of compute capability {capability / 10} scans no {kind} rows; choose 'fp32'")
            return kind
    raise ValueError(f"there is no scan {scan!r} on a GPU; choose one of 'auto', {', '.join(map(repr, _KINDS))}")


def _small(groups: Ints) -> tuple[Ints | None, NDArray[np.int32]]:
    """Numbers below 2**31 for the groups, and what they stand for; None: themselves."""
    if not len(groups) or (groups[0] >= 0 and groups[-1] < 2**31 and groups.min() >= 0 and groups.max() < 2**31):
        return None, np.empty(0, np.int32)
    names, numbers = np.unique(groups, return_inverse=True)
    return names, numbers.astype(np.int32)


def _listed(excluded: Ints, names: Ints | None) -> NDArray[np.int32]:
    """The groups to leave out, ascending, by the numbers that the device knows."""
    some = np.unique(excluded)
    if names is not None:
        some = np.searchsorted(names, some[np.isin(some, names)])
    return some[(some >= 0) & (some < 2**31)].astype(np.int32)
