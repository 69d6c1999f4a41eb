"""Which request goes out when: a schedule's times, each with a kind of request drawn by weight.

A plan is arrays: 9 bytes a request, 180 MB of the most that there may be, less than twice that while it is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from matchcut.bench.arrivals import Arrivals, Times, draws
from matchcut.bench.errors import BadInput

__all__ = ["Mix", "Plan", "Send", "Sends", "check", "make", "mix", "share"]

CHUNK = 4096  # requests that are made objects at a time
FEW = 1000  # requests; where more are expected there is always one
MOST_FRAMES = 1_000_000  # of one live query


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


@dataclass(frozen=True, slots=True, eq=False)
class Sends:
    """Planned requests in the order of their times; each becomes a Send when its turn comes.

    at: [requests] seconds from the start. kinds: [requests] indices into the mix's names. feeds: frames of streams that
    last from beginning to end, by the number of their request. first, step: numbers of these requests in the plan.
    """

    plan: Plan
    at: Times
    kinds: npt.NDArray[np.uint8]
    feeds: Mapping[int, Times] = field(default_factory=dict)
    first: int = 0
    step: int = 1

    def __len__(self) -> int:
        return self.at.size

    def __iter__(self) -> Iterator[Send]:
        live = [name in self.plan.live for name in self.plan.mix.names]
        number = self.first
        for begin in range(0, len(self), CHUNK):
            part = slice(begin, begin + CHUNK)
            for at, kind in zip(self.at[part].tolist(), self.kinds[part].tolist(), strict=True):
                yield Send(at, kind, number, self._frames(at, number) if live[kind] else ())
                number += self.step

    def _frames(self, at: float, number: int) -> Sequence[float]:
        frames: list[float]
        if number in self.feeds:
            frames = self.feeds[number].tolist()
            return frames
        gap, jitter = 1 / self.plan.arrivals.camera.fps, self.plan.arrivals.camera.jitter
        count = max(1, round(self.plan.live_seconds / gap))
        # A source for each, so that a stream is the same whichever process makes it.
        off = draws(self.plan.seed, "frames", number).normal(0, jitter, count)
        frames = np.sort(np.maximum(at, at + gap * np.arange(count) + off)).tolist()
        return frames


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


def check(plan: Plan) -> None:
    """Tells what cannot be planned, without planning much.

    Raises:
        BadInput: there would be nothing to send, or too much.
    """
    plan.arrivals.check(plan.rate, plan.seconds)
    if plan.live_seconds * plan.arrivals.camera.fps > MOST_FRAMES:
        raise BadInput(f"a live query of {plan.live_seconds:g} s has more than {MOST_FRAMES} frames; make it shorter")
    if plan.rate * plan.seconds < FEW:
        make(plan)


def make(plan: Plan) -> Sends:
    """All sends of a plan; the same plan gives the same sends.

    Raises:
        BadInput: there would be nothing to send, or too much.
    """
    if plan.arrivals.schedule != "camera":
        times = plan.arrivals.times(plan.rate, plan.seconds, plan.seed)
        return Sends(plan, times, _kinds(plan, times.size))
    cameras = [feed for feed in plan.arrivals.feeds(plan.rate, plan.seconds, plan.seed) if feed.size]
    if not cameras:
        raise BadInput(f"no camera has a frame within {plan.seconds:g} s; make it longer")
    kinds = _kinds(plan, len(cameras))
    streams = [plan.mix.names[kind] in plan.live for kind in kinds]
    each = [feed[:1] if stream else feed for feed, stream in zip(cameras, streams, strict=True)]
    at = np.concatenate(each)
    camera = np.repeat(np.arange(len(each)), [times.size for times in each])
    order = np.argsort(at, kind="stable")
    at, camera = at[order], camera[order]
    feeds = {int(number): cameras[camera[number]] for number in np.flatnonzero(np.asarray(streams)[camera])}
    return Sends(plan, at, kinds[camera], feeds)


def share(sends: Sends, process: int, processes: int) -> Sends:
    """The sends of one of so many processes: every so manyeth, so that all have the same kinds at the same times."""
    mine = slice(process, None, processes)
    return replace(sends, at=sends.at[mine].copy(), kinds=sends.kinds[mine].copy(), first=process, step=processes)


def _kinds(plan: Plan, count: int) -> npt.NDArray[np.uint8]:
    """Indices into the mix's names, drawn by weight. Not influenced by how the times were drawn."""
    weights = np.array(list(plan.mix.weights.values()))
    upto = np.cumsum(weights / weights.sum())
    source = draws(plan.seed, "kinds")
    drawn = np.empty(count, np.uint8)
    for begin in range(0, count, 1 << 20):  # or the draws would take eight times the room of what they give
        part = drawn[begin : begin + (1 << 20)]
        part[:] = np.minimum(np.searchsorted(upto, source.random(part.size), side="right"), len(weights) - 1)
    return drawn
