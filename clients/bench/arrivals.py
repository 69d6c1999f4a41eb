"""When requests are to be sent: planned before anything is measured, in seconds from the start, sorted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from matchcut.bench.errors import BadInput

__all__ = ["SCHEDULES", "Arrivals", "Camera", "Schedule", "Times", "draws", "read_trace"]

Schedule = Literal["constant", "poisson", "trace", "camera"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "poisson", "trace", "camera")
Times: TypeAlias = npt.NDArray[np.float64]  # seconds from the start, ascending
MOST = 20_000_000  # planned times, of 8 bytes each; more is a mistake in the rate


@dataclass(frozen=True, slots=True)
class Camera:
    """How a camera gives frames: so many a second, each off by a normally distributed jitter (its deviation, in s)."""

    fps: float = 10.0
    jitter: float = 0.002


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A kind of schedule.

    trace: of "trace": times in seconds, ascending from 0; it begins anew, a mean gap after its last time, where a run
    lasts longer. camera: of "camera".
    """

    schedule: Schedule = "poisson"
    trace: tuple[float, ...] = ()
    camera: Camera = Camera()

    @property
    def natural(self) -> float:
        """The mean rate of the trace as it was recorded, a second; 0 for other schedules."""
        return (len(self.trace) - 1) / self.trace[-1] if self.schedule == "trace" else 0.0

    def streams(self, rate: float) -> int:
        """How many cameras come nearest to this rate, at least 1."""
        return max(1, round(rate / self.camera.fps))

    def offered(self, rate: float) -> float:
        """The rate that is really planned: cameras come whole."""
        return self.streams(rate) * self.camera.fps if self.schedule == "camera" else rate

    def check(self, rate: float, seconds: float) -> None:
        """Whether so much can be planned, told before any of it is.

        Raises:
            BadInput: it cannot.
        """
        if not rate > 0 or not seconds > 0:
            raise BadInput(f"a rate of {rate:g} a second for {seconds:g} s makes no schedule; both must be above zero")
        if self.offered(rate) * seconds > MOST:
            raise BadInput(f"{rate:g} a second for {seconds:g} s are more than {MOST} requests; lower one of them")

    def times(self, rate: float, seconds: float, seed: int) -> Times:
        """When to send, without regard to which camera; for cameras see feeds().

        Raises:
            BadInput: there would be nothing to send, or too much.
        """
        self.check(rate, seconds)
        makers: dict[Schedule, Callable[[], Times]] = {
            "constant": lambda: np.arange(math.ceil(rate * seconds)) / rate,
            "poisson": lambda: _poisson(rate, seconds, draws(seed, "arrivals")),
            "trace": lambda: self._replayed(rate, seconds),
            "camera": lambda: np.sort(np.concatenate(self.feeds(rate, seconds, seed))),
        }
        times = makers[self.schedule]()
        if not times.size:
            raise BadInput(f"nothing would be sent in {seconds:g} s at {rate:g} a second; make it longer")
        return times

    def feeds(self, rate: float, seconds: float, seed: int) -> list[Times]:
        """The times of each camera's frames; cameras are not in phase."""
        self.check(rate, seconds)
        source = draws(seed, "cameras")
        return [self._feed(seconds, source) for _ in range(self.streams(rate))]

    def _feed(self, seconds: float, source: np.random.Generator) -> Times:
        gap = 1 / self.camera.fps
        phase = source.uniform(0, gap)
        frames = max(0, math.ceil((seconds - phase) / gap))
        ideal = phase + gap * np.arange(frames)
        return np.sort(np.maximum(0.0, ideal + source.normal(0, self.camera.jitter, frames)))

    def _replayed(self, rate: float, seconds: float) -> Times:
        stretch = self.natural / rate
        period = len(self.trace) / self.natural  # with the gap before it begins anew, so that the rate stays the same
        turns = np.arange(math.ceil(seconds / (period * stretch)))
        times: Times = ((turns[:, None] * period + np.asarray(self.trace)) * stretch).ravel()
        return times[times < seconds]


def draws(seed: int, *what: str | int) -> np.random.Generator:
    """A source of random numbers of its own for each of the things that are drawn; seeds may be of any size and sign.

    What is drawn of one does not depend on how much was drawn of another before.
    """
    return np.random.default_rng([*f"{seed} {' '.join(map(str, what))}".encode()])


def read_trace(path: Path) -> tuple[float, ...]:
    """The times of a recorded trace, one a line in seconds from anywhere; "#" begins a comment. The first becomes 0.

    Raises:
        BadInput: a line is no time, or there are fewer than two different ones.
        OSError: the file cannot be read.
    """
    found: list[float] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            time = float(text)
        except ValueError:
            time = math.nan
        if not math.isfinite(time):
            raise BadInput(f"{path}, line {number}: {text[:40]!r} is no time in seconds")
        found.append(time)
    found.sort()
    if len(found) < 2 or found[0] == found[-1]:
        raise BadInput(f"{path} has not even two different times; a trace needs one line for each request")
    return tuple(time - found[0] for time in found)


def _poisson(rate: float, seconds: float, source: np.random.Generator) -> Times:
    """Times whose gaps are exponentially distributed."""
    expected = rate * seconds
    many = math.ceil(expected + 6 * math.sqrt(expected)) + 16  # that more are needed is next to impossible
    parts = [np.cumsum(source.exponential(1 / rate, many))]
    while parts[-1][-1] < seconds:
        parts.append(parts[-1][-1] + np.cumsum(source.exponential(1 / rate, many)))
    times = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return times[: int(np.searchsorted(times, seconds))].copy()  # the rest is given back
