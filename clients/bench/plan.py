"""Which request goes out when: a schedule's times, each with a kind of request drawn by weight."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from matchcut.bench.arrivals import Arrivals, Times
from matchcut.bench.errors import BadInput

__all__ = ["Mix", "Plan", "Send", "make", "mix", "share"]

NO_FRAMES: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Mix:
    """Kinds of requests by weight, e.g. {"query": 8, "events": 2}; weights are above zero."""

    weights: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds, in the order given."""
        return tuple(self.weights)

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class Send:
    """One planned request.

    at: seconds from the start. kind: index into the mix's names. number: which one it is of the whole plan.
    frames: of a live query: when each frame is to be sent, in seconds from the start.
    """

    at: float
    kind: int
    number: int
    frames: Sequence[float] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is needed to make the same sends in every process.

    live: names of kinds that are live streams; each lasts `live_seconds`, with the camera's frame rate. With cameras
    as the schedule, each camera has one kind, and a live one is one stream from beginning to end.
    seconds: with the warm-up.
    """

    arrivals: Arrivals
    mix: Mix
    rate: float
    seconds: float
    seed: int = 1
    live: frozenset[str] = frozenset()
    live_seconds: float = 5.0


def mix(text: str, known: Sequence[str]) -> Mix:
    """Reads "query=8,events=2"; a name without a weight has 1.

    Raises:
        BadInput: a name is not known or comes twice, or a weight is not a number above zero.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise BadInput(f"there is no workload {name!r}; there are {', '.join(known)}")
        if name in weights:
            raise BadInput(f"{name} is twice in {text!r}; give it one weight")
        try:
            weights[name] = float(weight) if equals else 1.0
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise BadInput(f"the weight {weight!r} of {name} is not a number above zero")
    if sum(weights.values()) == math.inf:
        raise BadInput(f"the weights in {text!r} add up to more than a number can hold; give smaller ones")
    return Mix(weights)


def make(plan: Plan) -> list[Send]:
    """All sends of a plan, in the order of their times; the same plan gives the same sends.

    Raises:
        BadInput: there would be nothing to send, or too much.
    """
    # The draws have a source of their own, so that the kinds do not depend on how the times were made.
    source = random.Random(f"kinds-{plan.seed}")
    bounds = list(accumulate(plan.mix.weights.values()))
    names = plan.mix.names

    def kinds(count: int) -> list[int]:
        return source.choices(range(len(names)), cum_weights=bounds, k=count)

    if plan.arrivals.schedule == "camera":
        feeds = [feed for feed in plan.arrivals.feeds(plan.rate, plan.seconds, plan.seed) if feed]
        planned = [
            entry
            for feed, kind in zip(feeds, kinds(len(feeds)), strict=True)
            for entry in (
                [(feed[0], kind, feed)] if names[kind] in plan.live else [(at, kind, NO_FRAMES) for at in feed]
            )
        ]
        planned.sort(key=lambda entry: entry[0])
        if not planned:
            raise BadInput(f"no camera has a frame within {plan.seconds:g} s; make it longer")
    else:
        times = plan.arrivals.times(plan.rate, plan.seconds, plan.seed)
        planned = [
            (at, kind, _frames(plan, at, source) if names[kind] in plan.live else NO_FRAMES)
            for at, kind in zip(times, kinds(len(times)), strict=True)
        ]
    return [Send(at, kind, number, frames) for number, (at, kind, frames) in enumerate(planned)]


def share(sends: list[Send], process: int, processes: int) -> list[Send]:
    """The sends of one of so many processes: every so manyeth, so that all have the same kinds at the same times."""
    return sends[process::processes]


def _frames(plan: Plan, at: float, source: random.Random) -> Times:
    gap, jitter = 1 / plan.arrivals.camera.fps, plan.arrivals.camera.jitter
    count = max(1, round(plan.live_seconds / gap))
    return array("d", sorted(max(at, at + number * gap + source.gauss(0, jitter)) for number in range(count)))
