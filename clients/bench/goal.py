"""The knee: the highest rate at which a goal such as "p99<50ms" is still met, by bracketing and bisection."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from matchcut.bench.errors import BadInput
from matchcut.bench.histogram import Durations

__all__ = ["Goal", "Knee", "Step", "goal", "search"]

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_FORM = re.compile(
    r"(?:(?P<kind>[a-z-]+)\.)?(?P<what>mean|max|p(?P<percent>\d+(?:\.\d+)?))<(?P<most>[\d.]+)(?P<unit>us|ms|s)"
)
TRIES = 3  # of a rate that the generator could not keep to; something else may have had the machine for a moment
Verdict = Literal["met", "missed", "unknown"]  # unknown: the generator could not keep to the rate


@dataclass(frozen=True, slots=True)
class Goal:
    """A latency that must stay below `most` seconds. kind: of which requests; "" for all together."""

    text: str
    kind: str
    percent: float | None  # None: the mean
    most: float

    def value(self, latencies: Durations) -> float:
        """What is compared, in seconds."""
        return latencies.mean if self.percent is None else latencies.at(self.percent)


@dataclass(frozen=True, slots=True)
class Step:
    """One rate that was tried."""

    rate: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Knee:
    """What a search found.

    rate: the highest rate that met the goal; 0 where none did. above: the lowest rate that did not; 0 where there is
    none: the search was ended by `why`, and the real knee may be higher.
    """

    rate: float
    above: float
    steps: tuple[Step, ...]
    why: str = ""

    @property
    def beyond(self) -> str:
        """What is known of higher rates, in words."""
        missed = [f"it is missed at {self.above:.4g}"] if self.above else []
        return "; ".join([*missed, *([f"the search ended there: {self.why}"] if self.why else [])])


def goal(text: str) -> Goal:
    """Reads "p99<50ms", "query.p95<0.1s", "mean<900us", "max<1s".

    Raises:
        BadInput: it is none of these.
    """
    found = _FORM.fullmatch("".join(text.split()))
    try:
        if found is None:
            raise ValueError
        percent = None if found["what"] == "mean" else 100.0 if found["what"] == "max" else float(found["percent"])
        most = float(found["most"]) * _UNITS[found["unit"]]
        if most <= 0 or (percent is not None and not 0 < percent <= 100):
            raise ValueError
    except ValueError:
        raise BadInput(f"{text!r} is no goal; write one like p99<50ms, query.p95<0.1s or mean<900us") from None
    return Goal(text, found["kind"] or "", percent, most)


def search(
    met: Callable[[float], Verdict],
    first: float,
    *,
    lowest: float = 0.0,
    highest: float = 1e6,
    within: float = 0.05,
    most_steps: int = 20,
) -> Knee:
    """Finds the highest rate for which `met` says "met".

    Doubles or halves from the first rate until the knee lies between two rates, then takes the geometric mean of the
    two until they are within a share of each other. It takes for granted that a higher rate is never better. A rate
    of which nothing is known is tried again before the search ends there.

    Args:
        met: tries a rate; each time a fresh run.
        first: where to begin, a second.
        lowest: where to end going down; a thousandth of the first at the latest.
        highest: where to end going up.
        within: how near the two rates must be, as a share.
        most_steps: rates to try at most.
    """
    steps: list[Step] = []
    low, high, why = 0.0, 0.0, ""
    rate = min(first, highest)
    lowest = max(lowest, rate / 1024)
    while True:
        for _ in range(TRIES):
            verdict = met(rate)
            steps.append(Step(rate, verdict))
            if verdict != "unknown":
                break
        if verdict == "met":
            low = rate
        elif verdict == "missed":
            high = rate
        else:
            why = f"the generator could not keep to {rate:g} a second; give it more --processes, or another machine"
            break
        if low and high and high / low - 1 <= within:
            break
        if not high and low >= highest:
            why = f"the highest rate to try is {highest:g} a second"
            break
        if not low and high <= lowest:
            why = f"the goal is missed even at {high:g} a second"
            break
        if len(steps) >= most_steps:
            why = f"{most_steps} rates were tried"
            break
        rate = (low * high) ** 0.5 if low and high else min(low * 2, highest) if low else max(high / 2, lowest)
    return Knee(low, high, tuple(steps), why)
