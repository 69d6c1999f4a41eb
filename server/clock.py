"""Where a request's time goes: self time per stage, also across generators that pull from each other."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from matchcut.server.records import StageTime, StageTimes

T = TypeVar("T")
ORDER = (
    *("receive", "decode", "preprocess", "queue", "encode", "segment", "pool", "tag"),
    *("store", "recall", "rank", "arrange"),
)


@dataclass(slots=True)
class Tally:
    """What one stage has used so far."""

    wall_ns: int = 0
    cpu_ns: int = 0
    variant: str = ""
    counts: dict[str, int] = field(default_factory=dict)


class Clock:
    """The stopwatch of one request; one thread at a time uses it.

    Stages nest: while an inner one runs, the outer one's time stands still. So the sum over the stages is the time
    that was spent, each moment counted once.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter_ns()
        self._tallies: dict[str, Tally] = {}
        self._running: list[str] = []
        self._wall = self._cpu = 0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Counts the block's time as this stage's."""
        self._switch()
        self._running.append(stage)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def over(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """The same items; the time to produce each counts as this stage's. Closing it closes `items`."""
        iterator = iter(items)
        try:
            while True:
                with self(stage):
                    item = next(iterator, self)
                if item is self:
                    return
                yield item  # type: ignore[misc]
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def move(self, wall_ns: int, stage: str, to: str) -> None:
        """Counts so much of a stage's wall time as another's: what a block turned out to have spent otherwise."""
        for name, change in ((stage, -wall_ns), (to, wall_ns)):
            self._tallies.setdefault(name, Tally()).wall_ns += change

    def note(self, stage: str, *, variant: str = "", **counts: int) -> None:
        """Says which implementation of a stage ran and adds to what it counted."""
        tally = self._tallies.setdefault(stage, Tally())
        tally.variant = variant or tally.variant
        for name, count in counts.items():
            tally.counts[name] = tally.counts.get(name, 0) + count

    def times(self) -> StageTimes:
        """The times so far, in the order of the pipeline; stages that did not run are absent."""
        stages = [
            StageTime(name, tally.wall_ns // 1000, tally.cpu_ns // 1000, tally.variant, dict(tally.counts))
            for name, tally in sorted(self._tallies.items(), key=lambda entry: ORDER.index(entry[0]))
        ]
        return StageTimes(tuple(stages), (time.perf_counter_ns() - self._began) // 1000)

    def _switch(self) -> None:
        """Gives the time since the last switch to the stage that was running."""
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        if self._running:
            tally = self._tallies.setdefault(self._running[-1], Tally())
            tally.wall_ns += wall - self._wall
            tally.cpu_ns += cpu - self._cpu
        self._wall, self._cpu = wall, cpu
