"""Contenders take turns, so that all meet the same noise; what each took; whether its answers are right."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16_384  # rows multiplied in float64 at a time
_MOST = 101  # rounds

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was found for each query of a batch.

    ids: (b, k) rows, best first, -1 where there are no more; None: it does not rank.
    The others are of the whole batch: rows whose codes were read, those left after that, those scored in float64 at
    last, and bytes of codes read; None: not known.
    """

    ids: Ints | None = None
    scanned: int | None = None
    survivors: int | None = None
    rescored: int | None = None
    code_bytes: int | None = None


class Contender(Protocol):
    """Something that answers a batch of queries. `name` says who, `setting` how it is set."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str: ...

    def ask(self, queries: Floats, k: int) -> Answer:
        """The k best rows for each of (b, dimensions) queries."""
        ...


@dataclass(slots=True)
class Taken:
    """The seconds of each call, by the wall and by the CPU clock, and the answer to each batch."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)

    def ms(self, share: float = 0.5) -> float:
        """A quantile of the wall time of a call, in milliseconds."""
        return float(np.quantile(self.wall, share)) * 1e3

    def cpu_ms(self) -> float:
        """The median of the CPU time of a call, all threads together, in milliseconds."""
        return float(np.median(self.cpu)) * 1e3

    def each(self, what: str, batch: int) -> float | None:
        """Mean count a query, e.g. of "survivors"; None where it is not known."""
        counts = [getattr(answer, what) for answer in self.answers.values()]
        return None if not counts or None in counts else sum(counts) / len(counts) / batch

    def right(self, truth: Ints, batch: int, k: int) -> tuple[int, int]:
        """How many of the queries that were answered have exactly the rows of `truth`, in order."""
        pairs = [
            (answer.ids[at], truth[number * batch + at])
            for number, answer in self.answers.items()
            if answer.ids is not None
            for at in range(batch)
        ]
        return sum(bool(np.array_equal(ids, wanted[:k])) for ids, wanted in pairs), len(pairs)


def take_turns(
    contenders: Sequence[Contender],
    queries: Floats,
    *,
    batch: int,
    k: int,
    seconds: float,
    least: int = 0,
    tell: Callable[[str], None] | None = None,
) -> list[Taken]:
    """Times each contender on the same batches of queries, in rounds.

    Args:
        queries: a multiple of `batch` of them; each round asks the next batch.
        seconds: what a contender may take in all. A slow one sits out rounds, evenly.
        least: rounds of a slow one. At 0, one that takes longer than `seconds` for a call is judged by its first.
        tell: is told what is done.
    """
    batches = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
    taken: list[Taken] = []
    turns: list[int] = []
    for contender in contenders:
        first = Taken()
        _once(contender, batches, 0, k, first)  # warms up
        turns.append(min(_MOST, max(least, int(seconds / first.wall[0]))))
        if turns[-1]:
            first.wall.clear()
            first.cpu.clear()
        if tell is not None:
            tell(f"{contender.name}: {turns[-1] or 1} rounds")
        taken.append(first)
    rounds = max(turns, default=0)
    for number in range(rounds):
        for contender, of, own in zip(contenders, taken, turns, strict=True):
            if (number + 1) * own // rounds > number * own // rounds:
                _once(contender, batches, number % len(batches), k, of)
    return taken


def _once(contender: Contender, batches: list[Floats], number: int, k: int, taken: Taken) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    answer = contender.ask(batches[number], k)
    taken.wall.append(time.perf_counter() - wall)
    taken.cpu.append(time.process_time() - cpu)
    taken.answers[number] = answer


def exact(queries: Floats, rows: Floats, k: int, eligible: Flags | None = None) -> Ints:
    """The k best rows of each query as float64 products rank them, equal ones by the lower row: (b, k), -1 for none."""
    wide = queries.astype(np.float64)
    best = [(np.empty(0), np.empty(0, np.int64)) for _ in queries]
    for start in range(0, len(rows), _BLOCK):
        scores = wide @ rows[start : start + _BLOCK].astype(np.float64).T
        if eligible is not None:
            scores[:, ~eligible[start : start + _BLOCK]] = -np.inf
        for at, (known, ids) in enumerate(best):
            floor = known[-1] if len(known) == k else -np.inf
            more = np.flatnonzero((scores[at] >= floor) & (scores[at] > -np.inf))
            known, ids = np.concatenate([known, scores[at, more]]), np.concatenate([ids, more + start])
            order = np.lexsort((ids, -known))[:k]
            best[at] = known[order], ids[order]
    found = np.full((len(queries), k), -1, np.int64)
    for at, (_, ids) in enumerate(best):
        found[at, : len(ids)] = ids
    return found
