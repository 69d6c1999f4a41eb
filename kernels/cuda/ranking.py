"""Exact ranking on a GPU: sample, threshold, scan, threshold, exact scores, threshold, places.

1. `sample` looks at some tiles; `kth` makes of them a score tau that k groups are known to reach.
2. `scan` reads all codes once and lists the pairs whose upper bound reaches tau; `tails` reads the rest of theirs.
3. Lower bounds of those make a higher tau, upper bounds that do not reach it go (`lowers`, `kth`, `narrow`).
4. `exact` scores what is left in float64, in the very order of score.exact_score; the k-th of these is the last tau.
5. `finalists`, `leaders`, `places`: the best pair of each group, best first, equal scores by the lower row.

No step drops a pair of the answer, as each drops only what lies under a score that k groups reach: the argument of
codes.py. Lists have room for so many pairs; one that overflows is counted on, and its query asked again with more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.memory import Buffer, Pending
from matchcut.kernels.cuda.mirror import Resident
from matchcut.kernels.decide import Leaders
from matchcut.kernels.launch.ranking import (
    EACH,
    ROWS,
    Questions,
    least_of,
    pairwise,
    slots_of,
    tiles_of,
)

_CAPACITY = 65_536  # pairs of a query that a list has room for at first
_LOWEST = 0x80000000  # of ordered int32
_LISTED = 256  # pairs of a program of the list kernels
_EXACT = 32
_PLACED = 128
_SEED = 1024
_PROGRAMS = 1024  # of a grid that goes through lists, all queries together

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

    mask: uint8 (count,) on the device. groups: int32 (count,) on the device. excluded: for each query the groups that
    it does not want, ascending; None: it wants all.
    """

    resident: Resident
    mask: Buffer
    groups: Buffer
    k: int
    minimum: float | None
    excluded: Sequence[Ints32] | None = None


class _Run:
    """One pass: the launches for b queries, and where their results lie."""

    def __init__(
        self, lane: Lane, task: Task, questions: Questions, excluded: Sequence[Ints32] | None, room: int
    ) -> None:
        self.lane, self.task, self.questions = lane, task, questions
        resident, count = task.resident, len(questions.margin)
        self.count, self.columns = count, questions.columns
        self.k = min(task.k, resident.count)
        self.slots = slots_of(self.k, resident.count)
        self.tiles, self.hop = tiles_of(resident.count)
        self.capacity = -(-min(room, resident.count) // 16) * 16
        self.room = -(-max(2 * self.k, self.k + 1024) // _PLACED) * _PLACED
        self.names = f"{resident.kind}_{self.columns}{'_tail' if resident.levels else ''}"
        self._put(excluded)
        self._make()

    def _put(self, excluded: Sequence[Ints32] | None) -> None:
        """Uploads all that the launches read, in one piece."""
        asked, count = self.questions, self.count
        lists = [np.empty(0, np.int32)] * count if excluded is None else list(excluded)
        plan, self.rest_from, self.rest = pairwise(self.task.resident.dimensions)
        self.leaves = len(plan)
        unused = np.full(self.columns, np.inf, np.float32)  # a column without a query reaches nothing
        least = np.full(count, least_of(self.task.minimum), np.float32)
        self.seeding = self.task.resident.levels > 0 or any(len(some) for some in lists)
        minimum = -np.inf if self.task.minimum is None else self.task.minimum
        pieces: dict[str, NDArray[np.generic]] = {
            "queries": asked.queries,
            "terms": asked.terms,
            "errors": asked.errors,
            "tail": asked.tail,
            "steps": asked.steps,
            "exact": asked.exact,
            "margin": asked.margin,
            "none": np.zeros(count, np.float32),
            "least": least,
            "all": np.full(count, -np.inf, np.float32),
            "minimum": np.full(count, minimum, np.float64),
            "tau": unused,
            "excluded": np.concatenate([*lists, np.zeros(1, np.int32)]),
            "excluded_from": np.cumsum([0, *map(len, lists)], dtype=np.int32),
            "plan": plan,
        }
        offsets = np.cumsum([0, *(-(-piece.nbytes // 256) * 256 for piece in pieces.values())]).tolist()
        packed = np.zeros(offsets[-1], np.uint8)
        for offset, piece in zip(offsets, pieces.values(), strict=False):
            packed[offset : offset + piece.nbytes] = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
        buffer = self.lane.upload(packed)
        self.at = {name: buffer.at(offset) for name, offset in zip(pieces, offsets, strict=False)}

    def _make(self) -> None:
        """Lists, slots, counters and results."""
        lane, count = self.lane, self.count
        pairs = count * self.capacity
        self.found_row, self.found_value = lane.temporary(4 * pairs), lane.temporary(4 * pairs)
        self.left_row, self.score = lane.temporary(4 * pairs), lane.temporary(8 * pairs)
        self.final_row, self.final_score = lane.temporary(4 * count * self.room), lane.temporary(8 * count * self.room)
        self.leads = lane.temporary(count * self.room)
        self.slot_bytes = 4 * count * self.slots
        slots = lane.temporary(4 * self.slot_bytes)
        lane.fill(slots, _LOWEST, 4 * self.slot_bytes, width=4)
        self.best = [slots.at(at * self.slot_bytes) for at in range(4)]
        self.counter_bytes = -(-4 * self.columns // 256) * 256
        self.score_bytes = -(-8 * count * self.k // 256) * 256
        self.result_bytes = 5 * self.counter_bytes + self.score_bytes + 4 * count * self.k
        self.results = lane.temporary(self.result_bytes)
        lane.fill(self.results, 0, 5 * self.counter_bytes, width=4)
        names = ("found", "left", "final", "out", "seeds")
        self.counters = {name: self.results.at(at * self.counter_bytes) for at, name in enumerate(names)}
        self.out_score = self.results.at(5 * self.counter_bytes)
        self.out_row = self.results.at(5 * self.counter_bytes + self.score_bytes)

    def launch(self) -> None:
        lane, task, at, resident = self.lane, self.task, self.at, self.task.resident
        operands = (resident.codes, resident.scale, resident.beyond, task.mask, at["queries"], at["terms"])
        sizes = (resident.count, resident.width, self.tiles, self.hop)
        sampled = min(self.tiles, self.slots // (ROWS // EACH))
        sampled_row = lane.temporary(self.slot_bytes) if self.seeding else self.best[0]
        lane.launch(
            f"sample_{self.names}",
            (sampled,),
            *(*operands, task.groups, self.best[0], sampled_row, *sizes, self.count, self.slots, int(not self.seeding)),
        )
        if self.seeding:
            self._seed(sampled_row)
        else:
            self._kth(self.best[0], "margin", "least", at["tau"], self.k)
        found = (self.counters["found"], self.found_row, self.found_value)
        lane.launch(f"scan_{self.names}", (self.tiles,), *operands, at["tau"], *found, *sizes, self.capacity)
        if resident.levels:
            lane.launch(
                "tails",
                self._grid(32),
                *(resident.tail, resident.tail_scale, at["tail"], at["steps"]),
                *(*found, resident.levels, self.capacity),
            )
        listed, rows = "found", self.found_row
        if resident.levels or self.count > 4:  # else there is less to gain than launches cost
            self._narrow()
            listed, rows = "left", self.left_row
        self._exact(listed, rows, self.best[2])
        last = self.lane.temporary(4 * self.columns)
        self._kth(self.best[2], "none", "least", last, self.k)
        self._place(listed, rows, last)

    def _seed(self, sampled_row: Buffer) -> None:
        """A threshold from exact scores of the best of the sample."""
        wanted, tau = min(4 * self.k, self.slots), self.lane.temporary(4 * self.columns)
        self._kth(self.best[0], "none", "all", tau, wanted)
        self.lane.launch(
            "seeds",
            (self.slots // _SEED, self.count),
            *(self.best[0], sampled_row, tau, self.counters["seeds"], self.left_row, self.slots, self.capacity),
        )
        self._exact("seeds", self.left_row, self.best[3])
        self._kth(self.best[3], "margin", "least", self.at["tau"], self.k)

    def _narrow(self) -> None:
        """Drops pairs by the bounds of the codes; `tau` rises."""
        resident, at = self.task.resident, self.at
        bounds = (resident.scale, resident.tail_scale, at["errors"])
        found = (self.counters["found"], self.found_row, self.found_value)
        self.lane.launch(
            "lowers",
            self._grid(_LISTED),
            *(*bounds, self.task.groups, *found, self.best[1], self.capacity, self.slots),
        )
        tau = self.lane.temporary(4 * self.columns)
        self._kth(self.best[1], "margin", "least", tau, self.k)
        left = (self.counters["left"], self.left_row)
        self.lane.launch("narrow", self._grid(_LISTED), *bounds, tau, *found, *left, self.capacity)

    def _exact(self, listed: str, rows: Buffer, best: Buffer) -> None:
        resident, at = self.task.resident, self.at
        self.lane.launch(
            "exact",
            self._grid(_EXACT),
            *(resident.rows, at["exact"], self.task.groups, at["plan"], at["excluded"], at["excluded_from"]),
            *(self.counters[listed], rows, self.score, best),
            *(resident.pitch, self.leaves, self.rest_from, self.rest, self.capacity, self.slots),
        )

    def _place(self, listed: str, rows: Buffer, tau: Buffer) -> None:
        final = (self.counters["final"], self.final_row, self.final_score)
        self.lane.launch(
            "finalists",
            self._grid(_LISTED),
            *(self.score, tau, self.at["minimum"], self.counters[listed], rows, *final, self.capacity, self.room),
        )
        grid = (self.room // _PLACED, self.count)
        self.lane.launch("leaders", grid, self.task.groups, *final, self.leads, self.room)
        out = (self.counters["out"], self.out_row, self.out_score)
        self.lane.launch("places", grid, *final, self.leads, *out, self.room, self.k)

    def _kth(self, best: Buffer, less: str, least: str, tau: Buffer, k: int) -> None:
        self.lane.launch(f"kth_{self.slots}", (self.count,), best, self.at[less], self.at[least], tau, k)

    def _grid(self, pairs: int) -> tuple[int, int]:
        """Programs that share the list of each query."""
        return max(1, min(-(-self.capacity // pairs), _PROGRAMS // self.count)), self.count

    def fetch(self) -> Pending:
        return self.lane.download(self.results, (self.result_bytes,), np.uint8)

    def answers(self, raw: NDArray[np.uint8], groups: Ints) -> list[Answer | None]:
        """One for each query; None: its lists have overflowed.

        Args:
            raw: what `fetch` brought.
            groups: (n,) int64, of the rows.
        """
        counts = raw[: 5 * self.counter_bytes].view(np.int32).reshape(5, -1)[:, : self.count].tolist()
        found, left, final, out, _ = counts
        listed = left if self.task.resident.levels or self.count > 4 else found
        at = 5 * self.counter_bytes
        scores = raw[at : at + 8 * self.count * self.k].view(np.float64).reshape(self.count, self.k)
        rows = raw[at + self.score_bytes :].view(np.int32).reshape(self.count, self.k)
        answers: list[Answer | None] = []
        for query in range(self.count):
            if found[query] > self.capacity:
                answers.append(None)
                continue
            if final[query] > self.room:
                best = self._settle(query, listed[query], groups, left=listed is left)
            else:
                best = rows[query, : out[query]].astype(np.int64), scores[query, : out[query]].copy()
            answers.append(Answer(*best, survivors=found[query], rescored=listed[query]))
        return answers

    def _settle(self, query: int, many: int, groups: Ints, *, left: bool) -> tuple[Ints, NDArray[np.float64]]:
        """The last step on the host, where more pairs tie than the device places."""
        at = query * self.capacity
        rows = self.lane.download(self.left_row if left else self.found_row, (many,), np.int32, 4 * at)
        scores = self.lane.download(self.score, (many,), np.float64, 8 * at)
        self.lane.synchronize()
        row, score = rows.array().astype(np.int64), scores.array().copy()
        counts = score > -np.inf
        row, score = row[counts], score[counts]
        leaders = Leaders(self.k, self.task.minimum)
        leaders.add(score, groups[row], row, np.zeros(len(row), np.int64))
        best, _, leading, _ = leaders.settle()
        return leading, best


def rank(lane: Lane, task: Task, questions: Sequence[Questions], groups: Ints) -> list[Answer]:
    """Answers of all queries, in order; each of `questions` holds those of one pass.

    Args:
        groups: (n,) int64, on the host.
    """
    answers: list[Answer] = []
    for asked in questions:
        excluded = None
        if task.excluded is not None:
            excluded = task.excluded[len(answers) : len(answers) + len(asked.margin)]
        answers += _pass(lane, task, asked, excluded, groups)
    return answers


def _pass(lane: Lane, task: Task, asked: Questions, excluded: Sequence[Ints32] | None, groups: Ints) -> list[Answer]:
    run = _Run(lane, task, asked, excluded, _CAPACITY)
    run.launch()
    pending = run.fetch()
    lane.synchronize()
    answers = run.answers(pending.array(), groups)
    for query, answer in enumerate(answers):
        if answer is None:
            more = _Run(lane, task, _one(asked, query), None if excluded is None else [excluded[query]], 2**31 - 1)
            more.launch()
            pending = more.fetch()
            lane.synchronize()
            (answers[query],) = more.answers(pending.array(), groups)
    assert all(answer is not None for answer in answers), "a list with room for all rows cannot overflow"
    return [answer for answer in answers if answer is not None]


def _one(asked: Questions, query: int) -> Questions:
    """One of the queries alone, in columns of the same number, whose kernel knows its parts."""
    columns, at = asked.columns, slice(query, query + 1)
    queries = np.zeros_like(asked.queries)
    queries[:, 0] = asked.queries[:, query]
    terms = np.zeros_like(asked.terms)
    terms[:, 0] = asked.terms[:, query]
    return Questions(
        columns=columns,
        queries=queries,
        terms=terms,
        errors=asked.errors[at],
        tail=asked.tail[at],
        steps=asked.steps[at],
        exact=asked.exact[at],
        margin=asked.margin[at],
    )
