"""From frame vectors and cuts to the segments of an item: bounded in length and number, ready to be pooled.

A segment keeps its frames' vectors while they are few; where they are many, neighbours in time are averaged and weigh
as many as they stand for. The weighted mean of a segment is therefore always the mean of its frames, and memory is
bounded by the bounds, not by the media.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Floats, TimeRange

__all__ = ["Part", "SegmentBounds", "Segmenter"]

SLOTS = 16  # vectors that a segment keeps at most


@dataclass(frozen=True, slots=True)
class SegmentBounds:
    """How long segments may be, in microseconds, and how many there may be. Raises InvalidInput where they clash."""

    minimum_us: int = 500_000
    maximum_us: int = 10_000_000
    count: int = 512

    def __post_init__(self) -> None:
        if not (0 <= self.minimum_us <= self.maximum_us and self.maximum_us >= SLOTS and self.count >= 1):
            raise InvalidInput(
                f"Segment bounds must satisfy 0 <= minimum_us <= maximum_us, maximum_us >= {SLOTS} and count >= 1: "
                f"got {self}.",
                reason="BAD_SEGMENT_BOUNDS",
            )


class Part(NamedTuple):
    """One segment: its vectors (n, d) float32 and how many frames each stands for, (n,) float32. 1 <= n <= SLOTS."""

    range: TimeRange
    vectors: Floats
    weights: Floats


class Segmenter:
    """Gathers frames into segments as they come.

    A cut starts a new segment. A shot longer than `maximum_us` is split: parts of that length as they fill, and the
    rest, up to twice as long, into two halves; a part is longer only where frames are further apart than that, because
    every part has a frame. A segment shorter than `minimum_us` joins the neighbour whose mean vector is more alike.
    While there are more than `count`, the most alike neighbours are joined. Joining may exceed `maximum_us`. The
    ranges cover the media from 0 without gap or overlap; a stretch without frames belongs to the segment after it,
    at the end to the one before.

    Args:
        bounds: of the segments that are found; those given are kept as they are.
        given: segments known beforehand, in time order and without overlap; they take the place of cuts, frames
            outside them are dropped, and those without a frame yield no part. Raises InvalidInput on any other order.
    """

    def __init__(self, bounds: SegmentBounds, given: Sequence[TimeRange] = ()) -> None:
        _check(given)
        self._slot_us = bounds.maximum_us // SLOTS
        self._given = list(reversed(given))
        self._cuts = not given
        self._closed = _Closed(bounds if self._cuts else SegmentBounds(0, bounds.maximum_us, len(given)))
        self._open = self._next_given()
        self._last_us = -1

    def frame(self, time_us: int, vector: Floats) -> None:
        """Takes the next frame's vector, (d,) float32; it is copied. Times must not descend."""
        if not self._cuts and not self._enter_given(time_us):
            return
        self._last_us = time_us
        self._open.add(time_us, vector)
        if self._cuts:
            for part in self._open.fill(time_us):
                self._closed.append(part)

    def cut(self, time_us: int) -> None:
        """A new shot starts here; told after all frames before it. Means nothing where segments are given."""
        if self._cuts and self._open:
            for part in self._open.split(time_us):
                self._closed.append(part)
            self._open = _Open(time_us, self._slot_us)

    def parts(self, end_us: int) -> list[Part]:
        """Every segment so far, in the order of time, as if the media ended at `end_us`.

        The last one ends there, or just after the last frame if that is later. It can be asked again and again and
        changes nothing; a part that is as it was the time before is the same object.
        """
        if not self._cuts:
            return [*self._closed.parts, *([self._open.whole(self._given[-1])] if self._open else [])]
        closed = self._closed.copy()
        end_us = max(end_us, self._last_us + 1)
        if self._open:
            for part in self._open.copy().split(end_us):
                closed.append(part)
        return closed.ended(end_us)

    def _enter_given(self, time_us: int) -> bool:
        while self._given and time_us >= self._given[-1].end_us:
            if self._open:
                self._closed.append(self._open.whole(self._given[-1]))
            self._given.pop()
            self._open = self._next_given()
        return bool(self._given) and time_us >= self._given[-1].start_us

    def _next_given(self) -> _Open:
        if not self._given:
            return _Open(0, self._slot_us)
        start_us, end_us = self._given[-1]
        return _Open(start_us, max(1, -(-(end_us - start_us) // SLOTS)))


def _check(given: Sequence[TimeRange]) -> None:
    if any(one.start_us >= one.end_us for one in given) or any(a.end_us > b.start_us for a, b in pairwise(given)):
        raise InvalidInput(
            "Given segments must each end after they start, and follow each other in time without overlap.",
            reason="BAD_SEGMENTS",
            field="segments",
        )


class _Open:
    """The segment that is being filled: sums over slots of time, so that its size does not grow with the rate."""

    def __init__(self, start_us: int, slot_us: int) -> None:
        self._start_us = start_us
        self._slot_us = slot_us
        self._slots: list[int] = []
        self._sums: list[NDArray[np.float64]] = []
        self._weights: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._slots)

    def copy(self) -> _Open:
        other = _Open(self._start_us, self._slot_us)
        other._slots, other._sums, other._weights = self._slots[:], self._sums[:], self._weights[:]
        return other

    def add(self, time_us: int, vector: Floats) -> None:
        slot = (time_us - self._start_us) // self._slot_us
        if self._slots and self._slots[-1] == slot:
            # Not in place: a copy shares the array.
            self._sums[-1] = self._sums[-1] + vector
            self._weights[-1] += 1
        else:
            self._slots.append(slot)
            self._sums.append(vector.astype(np.float64))
            self._weights.append(1)

    def fill(self, end_us: int) -> Iterator[Part]:
        """Takes off full parts while more than two of them would fit before end_us."""
        while end_us - self._start_us > 2 * SLOTS * self._slot_us and self._slots[0] < self._slots[-1]:
            at = max(SLOTS, self._slots[0] + 1)
            if at > self._slots[-1]:
                return
            yield self._take(at)

    def split(self, end_us: int) -> Iterator[Part]:
        """Takes off everything, as parts that end at end_us."""
        yield from self.fill(end_us)
        length = -(-(end_us - self._start_us) // self._slot_us)
        middle = max((length + 1) // 2, self._slots[0] + 1)
        if length > SLOTS and middle <= self._slots[-1]:
            yield self._take(middle)
        yield self.whole(TimeRange(self._start_us, end_us))

    def whole(self, time: TimeRange) -> Part:
        return self._part(time, len(self._slots))

    def _take(self, slot: int) -> Part:
        """Takes off what lies before this slot."""
        count = bisect_left(self._slots, slot)
        boundary_us = self._start_us + slot * self._slot_us
        part = self._part(TimeRange(self._start_us, boundary_us), count)
        self._start_us = boundary_us
        self._slots = [later - slot for later in self._slots[count:]]
        del self._sums[:count], self._weights[:count]
        return part

    def _part(self, time: TimeRange, count: int) -> Part:
        weights = np.array(self._weights[:count], np.float32)
        vectors = (np.stack(self._sums[:count]) / weights[:, None]).astype(np.float32)
        return Part(time, vectors, weights)


class _Closed:
    """Segments that are over, in the order of time, joined as the bounds ask."""

    def __init__(self, bounds: SegmentBounds) -> None:
        self.parts: list[Part] = []
        self._bounds = bounds
        self._means: list[Floats] = []
        self._likeness: list[float] = []  # of each part with the next

    def copy(self) -> _Closed:
        other = _Closed(self._bounds)
        other.parts, other._means, other._likeness = self.parts[:], self._means[:], self._likeness[:]
        return other

    def append(self, part: Part) -> None:
        self.parts.append(part)
        self._means.append(_direction(part))
        before = len(self.parts) - 2
        if before >= 0:
            self._likeness.append(self._like(before))
            if self._is_short(before):
                left = before - 1
                self._join(left if left >= 0 and self._likeness[left] >= self._likeness[before] else before)
        if len(self.parts) > self._bounds.count:
            self._join(self._likeness.index(max(self._likeness)))

    def ended(self, end_us: int) -> list[Part]:
        """The parts when nothing more comes."""
        if len(self.parts) > 1 and self._is_short(len(self.parts) - 1):
            self._join(len(self.parts) - 2)
        if self.parts:
            last = self.parts[-1]
            if last.range.end_us != end_us:
                self.parts[-1] = last._replace(range=TimeRange(last.range.start_us, end_us))
        return self.parts

    def _is_short(self, index: int) -> bool:
        start_us, end_us = self.parts[index].range
        return end_us - start_us < self._bounds.minimum_us

    def _like(self, index: int) -> float:
        return float(self._means[index] @ self._means[index + 1])

    def _join(self, index: int) -> None:
        """Makes one of this part and the next."""
        self.parts[index : index + 2] = [_joined(*self.parts[index : index + 2])]
        self._means[index : index + 2] = [_direction(self.parts[index])]
        del self._likeness[index]
        for changed in (index - 1, index):
            if 0 <= changed < len(self._likeness):
                self._likeness[changed] = self._like(changed)


def _direction(part: Part) -> Floats:
    mean = part.weights @ part.vectors
    mean /= max(float(np.linalg.norm(mean)), 1e-30)
    direction: Floats = mean
    return direction


def _joined(one: Part, other: Part) -> Part:
    time = TimeRange(one.range.start_us, other.range.end_us)
    vectors = np.concatenate((one.vectors, other.vectors))
    weights = np.concatenate((one.weights, other.weights))
    while len(weights) > SLOTS:
        starts = np.arange(0, len(weights), 2)
        sums = np.add.reduceat(vectors * weights[:, None].astype(np.float64), starts)
        weights = np.add.reduceat(weights, starts)
        vectors = (sums / weights[:, None]).astype(np.float32)
    return Part(time, vectors, weights)
