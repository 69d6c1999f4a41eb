"""One pass of the exact ranking on a GPU: the memory that it takes, the launches, and what comes back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.cuda.memory import Buffer, Pending
from matchcut.kernels.cuda.mirror import Resident
from matchcut.kernels.cuda.workspace import Workspace
from matchcut.kernels.decide import Leaders
from matchcut.kernels.launch.ranking import Questions, alone, least_of, pairwise, slots_of, tiles_of
from matchcut.kernels.launch.scans import EACH, MANY

_LOWEST = 0x80000000  # of ordered int32
_LISTED = 256  # pairs of a program of the list kernels
_EXACT = 16
_TAILS = 32
_PLACED = 128
_SEED = 1024
_PROGRAMS = 1024  # of a grid that goes through lists, all queries together
_FIRST = 0.25  # of the tiles that are scanned before tau is raised
_COUNTERS = ("found", "left", "final", "out", "seeds", "done", "none")
_ALIGN = 256

Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The best pairs of one query, one for each group, best first; what it took.

    rows: (m,) int64. scores: (m,) float64, exact.
    """

    rows: Ints
    scores: NDArray[np.float64]
    survivors: int
    rescored: int


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is asked of resident rows.

    mask: uint8 (count,) on the device. groups: int32 (count,) on the device. distinct: whether no two rows are of the
    same group. excluded: for each query the groups that
    it does not want, ascending; None: it wants all.
    """

    resident: Resident
    mask: Buffer
    groups: Buffer
    k: int
    minimum: float | None
    distinct: bool = False
    excluded: Sequence[Ints32] | None = None


@functools.lru_cache(maxsize=256)
def _layout(sizes: tuple[tuple[str, int], ...]) -> tuple[dict[str, int], int]:
    """Where each of these pieces of memory begins, and how long all are."""
    offsets, end = {}, 0
    for name, size in sizes:
        offsets[name] = end
        end += -(-size // _ALIGN) * _ALIGN
    return offsets, end


class Pass:
    """One pass: the launches for b queries, and where their results lie."""

    def __init__(
        self, space: Workspace, task: Task, questions: Questions, excluded: Sequence[Ints32] | None, room: int
    ) -> None:
        self.space, self.lane = space, space.lane
        self.task, self.questions, self.excluded = task, questions, excluded
        self.taken: list[Buffer] = []
        resident, count = task.resident, len(questions.margin)
        self.count, self.columns = count, questions.scan.columns
        self.k = min(task.k, resident.count)
        self.slots = slots_of(self.k, resident.count)
        self.tiles, self.hop = tiles_of(resident.count, questions.scan.tile)
        self.capacity = -(-min(room, resident.count) // 16) * 16
        self.room = -(-max(2 * self.k, self.k + 1024) // _PLACED) * _PLACED
        self.scan = questions.scan
        self.prefix = self.scan.codes == "prefix"
        self.unwanted = max(map(len, excluded), default=0) if excluded is not None else 0
        self.seeding = self.prefix or self.unwanted > 0
        self.narrowing = resident.levels > 0 or count > 4  # else there is less to gain than launches cost
        self._put(excluded)
        self._make()

    def _put(self, excluded: Sequence[Ints32] | None) -> None:
        """Uploads all that the launches read, in one piece."""
        asked, count = self.questions, self.count
        lists = [np.empty(0, np.int32)] * count if excluded is None else list(excluded)
        plan, self.rest_from, self.rest = pairwise(self.task.resident.dimensions)
        self.leaves = len(plan)
        bounds = np.zeros((5, self.columns), np.float32)
        bounds[0] = np.inf  # a column without a query reaches nothing
        bounds[1, :count] = asked.margin
        bounds[3] = least_of(self.task.minimum)
        bounds[4] = -np.inf
        minimum = -np.inf if self.task.minimum is None else self.task.minimum
        pieces: dict[str, NDArray[np.generic]] = {
            "queries": asked.queries,
            "terms": asked.terms,
            "errors": asked.errors,
            "tail": asked.tail,
            "steps": asked.steps,
            "exact": asked.exact,
            "minimum": np.full(count, minimum, np.float64),
            "excluded": np.concatenate([*lists, np.zeros(1, np.int32)]),
            "excluded_from": np.cumsum([0, *map(len, lists)], dtype=np.int32),
            "plan": plan,
            "tau": bounds[0],
            "margin": bounds[1],
            "none": bounds[2],
            "least": bounds[3],
            "all": bounds[4],
        }
        offsets, size = _layout(tuple((name, piece.nbytes) for name, piece in pieces.items()))
        packed = np.empty(size, np.uint8)
        for name, piece in pieces.items():
            start = offsets[name]
            packed[start : start + piece.nbytes] = piece.reshape(-1).view(np.uint8)
        buffer = self.lane.upload(packed, self._taken(size))
        self.at = {name: buffer.at(offset) for name, offset in offsets.items()}

    def _make(self) -> None:
        """Lists, slots, counters and results, in one piece."""
        count, pairs = self.count, self.count * self.capacity
        slots, wide = 4 * count * self.slots, 4 * self.columns
        offsets, size = _layout(
            (
                ("slots of the sample", slots),
                ("slots of exact seeds", slots),
                ("slots of lower bounds", slots),
                ("slots of exact scores", slots),
                *((name, wide) for name in _COUNTERS),
                ("out_score", 8 * count * self.k),
                ("out_row", 4 * count * self.k),
                ("pairs", 8 * pairs),
                ("left_row", 4 * pairs),
                ("score", 8 * pairs),
                ("final_row", 4 * count * self.room),
                ("final_score", 8 * count * self.room),
                ("leads", count * self.room),
                ("raised", wide),
                ("last", wide),
                ("sampled_row", slots if self.seeding else 4),
            )
        )
        buffer = self._taken(size)
        self.to = {name: buffer.at(offset) for name, offset in offsets.items()}
        self.to["leads"] = buffer.at(offsets["leads"], count * self.room)
        self.results = buffer, offsets["found"], offsets["pairs"]
        self.within = {name: offset - offsets["found"] for name, offset in offsets.items()}
        self.lane.fill(buffer, _LOWEST, offsets["found"], width=4)
        self.lane.fill(buffer, 0, offsets["out_score"] - offsets["found"], offset=offsets["found"], width=4)

    def _taken(self, nbytes: int) -> Buffer:
        self.taken.append(self.space.take(nbytes))
        return self.taken[-1]

    def end(self) -> None:
        """Gives its memory back, once the answers have been read."""
        for buffer in self.taken:
            self.space.give(buffer)
        self.taken.clear()

    def launch(self) -> Pending:
        """All the launches, which wait for nothing; gives counters and results, on their way."""
        lane, task, at, to, resident = self.lane, self.task, self.at, self.to, self.task.resident
        operands = (
            *(resident.codes, resident.scale, resident.beyond, task.mask, at["queries"], at["terms"]),
            *(resident.tail, resident.tail_scale, at["tail"], at["steps"]),
        )
        sizes = (resident.levels, resident.count, resident.width)
        sampled = min(self.tiles, self.slots // (self.scan.tile // EACH))
        lane.launch(
            self.scan.kernel("sample"),
            (sampled,),
            *(*operands, task.groups, to["slots of the sample"], to["sampled_row"], *sizes, self.tiles, self.hop),
            *(self.count, self.slots, int(not self.seeding)),
        )
        if self.seeding:
            self._seed()
        else:
            self._kth("slots of the sample", "margin", "least", at["tau"])
        first = int(self.tiles * _FIRST) if self.columns == MANY and self.tiles > 2 * sampled else 0
        for start, stop in ((0, first), (first, self.tiles)):
            if start == stop:
                continue
            lane.launch(
                self.scan.kernel("scan"),
                (stop - start,),
                *(*operands, at["tau"], to["found"], to["pairs"], *sizes, start, self.tiles, self.hop, self.capacity),
            )
            self._refine(start, stop)
        listed, rows, stride = ("left", to["left_row"], 1) if self.narrowing else ("found", to["pairs"], 2)
        self._exact(listed, rows, stride, "slots of exact scores")
        self._kth("slots of exact scores", "none", "least", to["last"])
        self._place(listed, rows, stride)
        buffer, start, stop = self.results
        return lane.download(buffer, (stop - start,), np.uint8, start)

    def _seed(self) -> None:
        """A threshold from exact scores of the best of the sample."""
        to = self.to
        self._kth("slots of the sample", "none", "all", to["raised"], min(4 * self.k + self.unwanted, self.slots))
        self.lane.launch(
            "seeds",
            (self.slots // _SEED, self.count),
            *(to["slots of the sample"], to["sampled_row"], to["raised"], to["seeds"], to["left_row"]),
            *(self.slots, self.capacity),
        )
        self._exact("seeds", to["left_row"], 1, "slots of exact seeds")
        self._kth("slots of exact seeds", "margin", "least", self.at["tau"])

    def _refine(self, start: int, stop: int) -> None:
        """What follows a scan: more of the codes, a higher tau, and at the end fewer pairs."""
        lane, at, to, resident = self.lane, self.at, self.to, self.task.resident
        last = stop == self.tiles
        done, found = to["done"] if start else to["none"], (to["found"], to["pairs"])
        if self.prefix:
            lane.launch(
                "tails",
                self._grid(_TAILS),
                *(resident.tail, resident.tail_scale, at["tail"], at["steps"], done, *found),
                *(resident.levels, self.capacity),
            )
        if last and not self.narrowing:
            return
        bounds = (resident.scale, resident.tail_scale, at["errors"])
        best = to["slots of lower bounds"]
        lane.launch(
            "lowers",
            self._grid(_LISTED),
            *(*bounds, self.task.groups, done, *found, best, self.capacity, self.slots),
        )
        # Groups that a query does not want may be the best of so many slots, k others are left.
        self._kth("slots of lower bounds", "margin", "tau", to["raised"] if last else at["tau"], self.k + self.unwanted)
        if last:
            left = (to["left"], to["left_row"])
            lane.launch("narrow", self._grid(_LISTED), *bounds, to["raised"], *found, *left, self.capacity)
        else:
            lane.copy(to["found"], 0, to["done"], 0, 4 * self.count)

    def _exact(self, listed: str, rows: Buffer, stride: int, best: str) -> None:
        resident, at, to = self.task.resident, self.at, self.to
        self.lane.launch(
            "exact",
            self._grid(_EXACT),
            *(resident.rows, at["exact"], self.task.groups, at["plan"], at["excluded"], at["excluded_from"]),
            *(to[listed], rows, to["score"], to[best], stride),
            *(resident.pitch, self.leaves, self.rest_from, self.rest, self.capacity, self.slots),
        )

    def _place(self, listed: str, rows: Buffer, stride: int) -> None:
        to = self.to
        final = (to["final"], to["final_row"], to["final_score"])
        self.lane.launch(
            "finalists",
            self._grid(_LISTED),
            *(to["score"], to["last"], self.at["minimum"], to[listed], rows, *final),
            *(stride, self.capacity, self.room),
        )
        grid = (self.room // _PLACED, self.count)
        if self.task.distinct:  # each leads
            self.lane.fill(to["leads"], 1)
        else:
            self.lane.launch("leaders", grid, self.task.groups, *final, to["leads"], self.room)
        out = (to["out"], to["out_row"], to["out_score"])
        self.lane.launch("places", grid, *final, to["leads"], *out, self.room, self.k)

    def _kth(self, best: str, less: str, least: str, tau: Buffer, k: int = 0) -> None:
        at = self.at
        self.lane.launch(f"kth_{self.slots}", (self.count,), self.to[best], at[less], at[least], tau, k or self.k)

    def _grid(self, pairs: int) -> tuple[int, int]:
        """Programs that share the list of each query."""
        return max(1, min(-(-self.capacity // pairs), _PROGRAMS // self.count)), self.count

    def answers(self, raw: NDArray[np.uint8], groups: Ints) -> list[Answer | None]:
        """One for each query; None: its lists have overflowed.

        Args:
            raw: what `launch` brought.
            groups: (n,) int64, of the rows.
        """
        count, k = self.count, self.k

        def piece(name: str, size: int, dtype: type[np.generic]) -> NDArray[np.generic]:
            start = self.within[name]
            return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)

        found, left, final, out = (piece(name, count, np.int32).tolist() for name in _COUNTERS[:4])
        scores: NDArray[np.float64] = piece("out_score", count * k, np.float64).reshape(count, k)  # type: ignore[assignment]
        rows = piece("out_row", count * k, np.int32).reshape(count, k).astype(np.int64)
        listed = left if self.narrowing else found
        answers: list[Answer | None] = []
        for query in range(count):
            if found[query] > self.capacity:
                answers.append(None)
                continue
            if final[query] > self.room:
                best = self._settle(query, listed[query], groups)
            else:
                best = rows[query, : out[query]], scores[query, : out[query]]
            answers.append(Answer(*best, survivors=found[query], rescored=listed[query]))
        return answers

    def _settle(self, query: int, many: int, groups: Ints) -> tuple[Ints, NDArray[np.float64]]:
        """The last step on the host, where more pairs tie than the device places."""
        at = query * self.capacity
        if self.narrowing:
            rows = self.lane.download(self.to["left_row"], (many, 1), np.int32, 4 * at)
        else:
            rows = self.lane.download(self.to["pairs"], (many, 2), np.int32, 8 * at)
        scores = self.lane.download(self.to["score"], (many,), np.float64, 8 * at)
        self.lane.synchronize()
        row, score = rows.array()[:, 0].astype(np.int64), scores.array().copy()
        counts = score > -np.inf
        row, score = row[counts], score[counts]
        leaders = Leaders(self.k, self.task.minimum)
        leaders.add(score, groups[row], row, np.zeros(len(row), np.int64))
        best, _, leading, _ = leaders.settle()
        return leading, best

    def again(self, query: int, groups: Ints) -> Answer:
        """The answer of one query, with room for all rows."""
        excluded = None if self.excluded is None else [self.excluded[query]]
        run = Pass(self.space, self.task, alone(self.questions, query), excluded, self.task.resident.count)
        pending = run.launch()
        self.lane.synchronize()
        (answer,) = run.answers(pending.array(), groups)
        run.end()
        assert answer is not None, "a list with room for all rows cannot overflow"
        return answer
