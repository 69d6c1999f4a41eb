"""How long runs take, as measured: what admission and the size of a run are decided by."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Measured", "Timing", "best_size", "confirmed", "measured"]

REMEMBERED = 8  # runs of each size; their lower median counts, so that neither a hiccup nor a lucky run does
GAIN = 1.05  # what twice the rows must gain in rows a second to be worth the wait
ROUNDS = 3  # runs of each size in a measurement, at most
BUDGET = 0.25  # seconds after which a measurement begins nothing more: a server that starts is waited for
AGREES = 2.0  # by what factor a run may differ from what an earlier measurement says of it
FRESH = 10.0  # seconds after which an estimate alone refuses nobody: the machine may have become faster


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measurement found. size: rows that are worth joining. seconds: of a run, by its number of rows."""

    size: int
    seconds: Mapping[int, float]


class Timing:
    """Seconds of a run by its number of rows, learnt from runs. Not locked: its owner does that.

    warm: whether anything has run; the first run of all is not learnt, as it may have had to set up much.
    """

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._sizes: list[int] = []
        self.warm = False
        self._learnt_at = float("-inf")

    def learn(self, rows: int, seconds: float) -> None:
        """A run of so many rows took so long."""
        if not self.warm:
            self.warm = True
            return
        if rows not in self._recent:
            self._recent[rows] = deque(maxlen=REMEMBERED)
            self._medians[rows] = seconds
            self._sizes.insert(bisect_left(self._sizes, rows), rows)
        recent = self._recent[rows]
        if not self.fresh and seconds < self._medians.get(rows, 0.0):
            recent.clear()  # the machine has become faster since
        recent.append(seconds)
        self._medians[rows] = sorted(recent)[(len(recent) - 1) // 2]
        self._learnt_at = time.monotonic()

    @property
    def fresh(self) -> bool:
        """Whether something was learnt lately."""
        return time.monotonic() - self._learnt_at < FRESH

    def known(self) -> dict[int, float]:
        """What is known now: seconds of a run by its number of rows."""
        return dict(self._medians)

    def seconds(self, rows: int) -> float:
        """What a run of so many rows takes; 0 while nothing is known.

        Between measured sizes it is interpolated; outside of them it is in proportion to the nearest.
        """
        if rows in self._medians:
            return self._medians[rows]
        if not self._sizes:
            return 0.0
        at = bisect_left(self._sizes, rows)
        if at == 0 or at == len(self._sizes):
            nearest = self._sizes[0 if at == 0 else -1]
            return self._medians[nearest] * rows / nearest
        low, high = self._sizes[at - 1], self._sizes[at]
        share = (rows - low) / (high - low)
        return self._medians[low] * (1 - share) + self._medians[high] * share

    def work(self, rows: int, size: int) -> float:
        """What so many rows take, one run after another of at most `size` each."""
        full, rest = divmod(rows, size)
        return full * self.seconds(size) + (self.seconds(rest) if rest else 0.0)


def measured(run: Callable[[int], None], most: int, found: Measured | None = None) -> tuple[Measured, Timing]:
    """What an earlier measurement found, if that still holds, else what one finds now; and all that is known by that.

    Args:
        run, most: see best_size().
    """
    timing = Timing()
    if found is None or not confirmed(run, found, most, timing):
        found = Measured(best_size(run, most, timing), timing.known())
    return found, timing


def best_size(run: Callable[[int], None], most: int, timing: Timing) -> int:
    """Times runs of 1, 2, 4, ... rows and gives the least size that is within 5 % of the most rows a second.

    Args:
        run: runs so many rows; what it raises passes.
        most: no size is larger; it is tried itself, too.
        timing: learns the measured seconds.
    """
    run(1)  # not timed: the first run may set up memory, threads and kernels
    timing.warm = True
    rates: dict[int, float] = {}
    began, size, vain = time.perf_counter(), 1, 0
    while vain < 2:  # one doubling without gain may be noise, or a size that does not suit the vector units
        seconds: list[float] = []
        while len(seconds) < ROUNDS and not (seconds and time.perf_counter() - began > BUDGET):
            start = time.perf_counter()
            run(size)
            seconds.append(time.perf_counter() - start)
            timing.learn(size, seconds[-1])
        rate = size / max(min(seconds), 1e-9)
        vain = vain + 1 if rates and rate < max(rates.values()) * GAIN else 0
        rates[size] = rate
        if size == most or time.perf_counter() - began > BUDGET:
            break
        size = min(size * 2, most)
    enough = max(rates.values()) / GAIN
    return min(size for size, rate in rates.items() if rate >= enough)


def confirmed(run: Callable[[int], None], found: Measured, most: int, timing: Timing) -> bool:
    """Whether an earlier measurement still holds, by one run: then it is learnt; else nothing is.

    Args:
        run, most: as for best_size().
        found: of the same model, on the same kind of machine.
    """
    expected = found.seconds.get(1)
    if not expected or not 1 <= found.size <= most:
        return False
    run(1)  # not timed, as in best_size()
    start = time.perf_counter()
    run(1)
    if not expected / AGREES <= time.perf_counter() - start <= expected * AGREES:
        return False
    timing.warm = True
    for rows, seconds in found.seconds.items():
        timing.learn(rows, seconds)
    return True
