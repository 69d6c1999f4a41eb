"""Whether what was measured now differs from what is committed by more than noise.

All figures are ratios of matchcut's cost to a baseline's in the same round, so that a machine that is slower today, or
busy, changes both sides. Noise is known from repetitions: of the rounds of a run, and of the runs that are committed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

LEAST = 0.05  # a change that is not worth a word, however little noise there is
SURE = 4.0  # standard errors from which a change is one
BLUNT = 0.20  # a change that has to be found: where noise hides it, nothing can be said
RUNS = 5  # of the committed ones, the last ones count
SPREAD = 1.4826  # the standard deviation of normal noise, in medians of absolute deviations
OF_MEDIAN = 1.2533  # the standard error of a median, in those of a mean

State = Literal["same", "slower", "faster", "noisy", "new"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio and its standard error, relative to it."""

    ratio: float
    noise: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one thing measured. change: 0.2 is a fifth slower; bound: the least that counts as a change."""

    what: str
    state: State
    now: Figure
    then: Figure | None = None
    change: float = 0.0
    bound: float = 0.0

    def __str__(self) -> str:
        told = f"{self.state:7} {self.what:52} {self.now.ratio:8.4f}"
        if self.then is None:
            return f"{told}  nothing committed to compare with"
        return f"{told}  committed {self.then.ratio:8.4f}  {self.change:+7.1%} of at least {self.bound:.1%}"


def spread(values: Sequence[float]) -> float:
    """Their standard deviation, estimated without regard to outliers."""
    middle = median(values)
    return SPREAD * median(abs(value - middle) for value in values)


def figure(ratios: Sequence[float]) -> Figure:
    """Of the rounds of a run.

    Raises:
        ValueError: there are fewer than three, or one is not above 0.
    """
    if len(ratios) < 3 or not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        raise ValueError(f"noise is known from three ratios above 0 or more, not from {list(ratios)}")
    middle = median(ratios)
    return Figure(middle, OF_MEDIAN * spread(ratios) / math.sqrt(len(ratios)) / middle)


def committed(runs: Sequence[Figure]) -> Figure:
    """Of all runs of one thing, oldest first; from three on, how much they differ counts as well."""
    last = runs[-RUNS:]
    ratios = [run.ratio for run in last]
    noise = median(run.noise for run in last)
    between = spread(ratios) / median(ratios) if len(last) >= 3 else 0.0
    return Figure(median(ratios), math.hypot(noise, between))


def judge(what: str, now: Figure, then: Figure | None) -> Verdict:
    """Compares with what is committed; None: nothing is."""
    if then is None:
        return Verdict(what, "new", now)
    change = now.ratio / then.ratio - 1
    bound = max(LEAST, SURE * math.hypot(now.noise, then.noise))
    state: State = "slower" if change > bound else "faster" if change < -bound else "same"
    if state != "slower" and bound > BLUNT:
        state = "noisy"
    return Verdict(what, state, now, then, change, bound)


def history(rows: Iterable[Mapping[str, str]], machine: Mapping[str, str]) -> dict[str, Figure]:
    """What is committed of each thing measured on such a machine.

    Args:
        rows: of the results, oldest first, with the columns what, ratio and noise.
        machine: columns that a row has to agree with.
    """
    runs: dict[str, list[Figure]] = {}
    for row in rows:
        if all(row.get(name) == value for name, value in machine.items()):
            runs.setdefault(row["what"], []).append(Figure(float(row["ratio"]), float(row["noise"])))
    return {what: committed(figures) for what, figures in runs.items()}
