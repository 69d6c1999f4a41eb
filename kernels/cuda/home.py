"""The GPU as a device: what kernels.device.Device promises, with the codes of rows kept in its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.apart import listed, without
from matchcut.kernels.basis import Basis
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.cuda.errors import CudaAbsent
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.cuda.mirror import Mirror, Resident
from matchcut.kernels.cuda.one_pass import Answer, Task
from matchcut.kernels.cuda.ops import Ops
from matchcut.kernels.cuda.ranking import rank
from matchcut.kernels.decide import Leaders, first_of_each
from matchcut.kernels.launch.ranking import MOST, Questions, coded_questions, plain_questions
from matchcut.kernels.launch.scans import MANY, Kind
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.kernels.plan import GPU, choose
from matchcut.kernels.score import largest_norm
from matchcut.kernels.topk import Ranked, check_search, search

_KINDS: tuple[Kind, ...] = ("int8", "bf16", "fp32")
_OLDEST = 80  # compute capability from which int8 and bfloat16 are scanned

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class _Unbounded(Exception):
    """The norms are too large or too small for bounds in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class _Upload:
    """An array on the device. names: what the numbers there stand for; None: for themselves. distinct: they rise."""

    of: ref[NDArray[Any]]
    buffer: Buffer
    names: Ints | None
    distinct: bool = False


class Cuda(Ops):
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
        self._uploads: dict[int, _Upload] = {}

    @property
    def context(self) -> Context:
        """See Device."""
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
        eligible: Flags | None = None,
        excluded: Sequence[Ints] | None = None,
        minimum: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Ranked]:
        """A ranking of its own for each query, which share what is read.

        Args:
            excluded: for each query the groups that it does not want.

        Raises:
            ValueError: as topk.search; k above 4096; norms that codes do not bound.
        """
        check_search(queries, rows, groups, eligible, k=k, minimum=minimum)
        if coded is None:
            return [
                self._reference(
                    *(queries[at : at + 1], rows),
                    groups=groups,
                    k=k,
                    eligible=without(groups, unwanted, eligible),
                    minimum=minimum,
                    check=check,
                )
                for at, unwanted in enumerate(listed(len(queries), excluded))
            ]
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
        return Codes(choose(rows, check=check, prices=GPU), self._library)

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
        if (coded.count, coded.basis.dimensions) != rows.shape:
            raise ValueError(
                f"the codes are of {coded.count} rows of {coded.basis.dimensions} dimensions, not of {rows.shape}"
            )
        if not len(rows):
            none = np.empty(0, np.int64)
            return [Answer(none, none.astype(np.float64), 0, 0) for _ in queries]
        with self._context.lane() as lane, suppress(_Unbounded):
            resident = self._mirror(coded).resident(lane, rows, coded)
            mask = resident.ones if eligible is None else self._uploaded(lane, eligible, np.uint8).buffer
            known = self._uploaded(lane, groups, np.int32)
            lists = None if excluded is None else [_listed(one, known.names) for one in excluded]
            task = Task(resident, mask, known.buffer, k, minimum, known.distinct, lists)
            return rank(lane, task, self._asked(queries, coded, resident, check), groups)
        return None

    def _asked(
        self, queries: Floats, coded: CodedRows, resident: Resident, check: Callable[[], None] | None
    ) -> Iterator[Questions]:
        """The queries in passes, each made when it is its turn."""
        for start in range(0, len(queries), MANY):
            if check is not None:
                check()
            asked = self._questions(queries[start : start + MANY], coded, resident)
            if asked is None:
                raise _Unbounded
            yield asked

    def _questions(self, queries: Floats, coded: CodedRows, resident: Resident) -> Questions | None:
        radius = coded.radius
        if self._kind == "int8":
            return coded_questions(queries, coded, radius, resident.pitch, resident.width, self._context.capability)
        return plain_questions(queries, self._kind, radius, resident.pitch, self._context.capability)

    def _mirror(self, coded: CodedRows) -> Mirror:
        with self._lock:
            return self._mirrors.setdefault(coded.basis, Mirror(self._context, self._kind))

    def _uploaded(self, lane: Lane, array: NDArray[Any], dtype: type[np.generic]) -> _Upload:
        """The array on the device; one that cannot be written to stays there as long as it is referred to."""
        key = id(array)
        lasting = not array.flags.writeable
        if lasting:
            with self._lock:
                known = self._uploads.get(key)
            if known is not None and known.of() is array:
                return known
        names, values = _small(array) if dtype is np.int32 else (None, array)
        values = np.ascontiguousarray(values).astype(dtype, copy=False)
        if not lasting:
            return _Upload(ref(array), lane.upload(values), names)
        buffer = self._context.allocate(max(1, values.nbytes))
        lane.upload(values, buffer)
        lane.synchronize()  # others may use it from now on
        distinct = dtype is np.int32 and bool((array[1:] > array[:-1]).all())
        made = _Upload(ref(array, lambda _: self._uploads.pop(key, None)), buffer, names, distinct)
        with self._lock:
            self._uploads[key] = made
        return made

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


def _small(groups: Ints) -> tuple[Ints | None, NDArray[Any]]:
    """What the numbers of the groups stand for (None: for themselves), and numbers below 2**31."""
    if not len(groups) or (groups.min() >= 0 and groups.max() < 2**31):
        return None, groups
    names, numbers = np.unique(groups, return_inverse=True)
    return names, numbers


def _listed(excluded: Ints, names: Ints | None) -> NDArray[np.int32]:
    """The groups to leave out, ascending, by the numbers that the device knows."""
    some = np.unique(excluded)
    if names is not None:
        some = np.searchsorted(names, some[np.isin(some, names)])
    return some[(some >= 0) & (some < 2**31)].astype(np.int32)
