"""Shots to the picture, from the looks of all pictures.

It counts pictures, not time, so a variable frame rate needs no care; only what it reports is a time.
"""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple

from matchcut.server.records import Pixels
from matchcut.server.shots.history import LOOKS_KEPT, STEPS_KEPT, History

SHORTEST_SHOT = 5  # pictures; what comes back sooner is a flash, what is cut sooner is one cut

CUT_STEP = 6.0  # least step of a hard cut; night scenes need less than the 10 that daylight would bear
CUT_CONTRAST = 2.5  # a cut's step above CUT_FLOOR, against the mean of the four steps around it
CUT_FLOOR = 2.0  # so that little noise is not taken for a calm in which every step stands out
CUT_LONELY = 1.3  # and against the largest farther off: low frame rates in doubled pictures jump at regular intervals
FLASH_RETURN = 0.5  # a picture nearer than this part of the step has come back

REACHES = (4, 8, 12)  # half lengths of the transitions that are looked for, in pictures
REACH = REACHES[-1]
GRADUAL_STEP = 12.0  # least difference between both ends of a transition
GRADUAL_BEND = 0.35  # how far it may leave the straight line, as a part of that; motion and hard cuts leave it by 0.5
GRADUAL_MIXTURE = 0.72  # see History.mixture; a camera over soft pictures moves straight too, but hardly reaches 0.7
GRADUAL_APART = 24  # pictures from the cut before: a fade out and the fade in after it are one cut
RUN_GAP = 2  # pictures by which a transition may be interrupted
RUN_MOST = 48  # pictures after which a transition is over even if it goes on, so that waiting has an end
SAME = 2.0  # least difference between what fades and the blank that it fades to

assert LOOKS_KEPT > 2 * REACH
assert STEPS_KEPT > RUN_MOST + RUN_GAP + 2 * REACH


class _Boundary(NamedTuple):
    """A cut that has been found: the number of the first picture of the new shot."""

    number: int
    gradual: bool


class ShotDetector:
    """Finds hard cuts to the picture, dissolves and fades; told of every picture, it answers REACH pictures later.

    A hard cut is placed at the first picture of the new shot. A dissolve or a fade in is placed at its middle; a fade
    out where the picture has become blank, so that what is blank belongs to what follows. A picture that comes back
    within four is a flash and no cut. A shot has at least SHORTEST_SHOT pictures, the first and the last one too;
    of cuts closer than that the first counts, and a gradual one gives way to any cut less than GRADUAL_APART before
    it or less than REACH around it. Gradual is what is linear in time and a mix of both ends; motion is not both.
    """

    def __init__(self) -> None:
        self._seen = History()
        self._front = 0  # the next picture to be judged as the middle of a transition
        self._run: tuple[int, int] | None = None  # first and last middle of the transition under way
        self._found: list[_Boundary] = []
        self._shot = 0  # first picture of the current shot

    @property
    def settled_us(self) -> int:
        """No cut before this time can still be returned. Microseconds; 0 before the first picture."""
        number = self._front if self._run is None else self._run[0]
        if 0 < number == self._seen.count:
            return self._seen.time_us(number - 1) + 1
        return self._seen.time_us(number)

    def push(self, time_us: int, look: Pixels) -> list[int]:
        """Takes the next picture's look, (height, width, 3) uint8; returns the times of cuts now certain, ascending."""
        self._seen.add(time_us, look)
        newest = self._seen.count - 1
        candidate = newest - (SHORTEST_SHOT - 1)
        if candidate >= SHORTEST_SHOT and self._is_hard(candidate):
            insort(self._found, _Boundary(candidate, False))
        if newest - REACH >= self._front:
            self._judge_front()
        return self._release(self._front if self._run is None else self._run[0])

    def finish(self) -> list[int]:
        """There are no more pictures; returns the times of the cuts that were still open, ascending."""
        while self._front < self._seen.count:
            self._judge_front()
        if self._run is not None:
            self._close(*self._run)
        return self._release(self._seen.count - SHORTEST_SHOT + 1)

    def _is_hard(self, number: int) -> bool:
        step = self._seen.step
        size = step(number)
        if size < CUT_STEP:
            return False
        near = (step(number - 2) + step(number - 1) + step(number + 1) + step(number + 2)) / 4
        if size < CUT_FLOOR + CUT_CONTRAST * near:
            return False
        # Steps right beside it are left out: a cut may go over one blended picture.
        if size < CUT_LONELY * max(step(number + far) for far in (-4, -3, -2, 2, 3, 4)):
            return False
        back = FLASH_RETURN * size
        return all(
            self._seen.difference(number - 1, number + later) >= back
            and self._seen.difference(number, number - 1 - later) >= back
            for later in range(1, SHORTEST_SHOT)
        )

    def _judge_front(self) -> None:
        middle = self._front
        self._front += 1
        if self._is_gradual(middle):
            self._run = (middle if self._run is None else self._run[0], middle)
        if self._run is not None:
            first, last = self._run
            if middle - last >= RUN_GAP or middle - first >= RUN_MOST:
                self._close(first, last)

    def _is_gradual(self, middle: int) -> bool:
        seen = self._seen
        for reach in REACHES:
            first, last = middle - reach, middle + reach
            if first < 0 or last >= seen.count:
                return False
            size = seen.difference(first, last)
            if (
                size >= GRADUAL_STEP
                and all(seen.bend(first, last, quarter) <= GRADUAL_BEND * size for quarter in (1, 2, 3))
                and seen.mixture(first, last) >= GRADUAL_MIXTURE
            ):
                return True
        return False

    def _close(self, first: int, last: int) -> None:
        self._run = None
        middle = (first + last) // 2
        if all(abs(found.number - middle) >= REACH for found in self._found):
            insort(self._found, _Boundary(self._after_fade_out(middle, last), True))

    def _after_fade_out(self, middle: int, last: int) -> int:
        """The first blank picture where the transition leads to one; otherwise its middle."""
        seen = self._seen
        after = range(max(middle, seen.count - LOOKS_KEPT), min(last + REACH + 1, seen.count))
        blank = next((number for number in reversed(after) if seen.is_blank(number)), None)
        if blank is None:
            return middle
        return next(number for number in after if seen.difference(number, blank) < SAME)

    def _release(self, before: int) -> list[int]:
        times: list[int] = []
        while self._found and self._found[0].number < before:
            found = self._found.pop(0)
            if found.number - self._shot >= (GRADUAL_APART if found.gradual else SHORTEST_SHOT):
                self._shot = found.number
                times.append(self._seen.time_us(found.number))
        return times
