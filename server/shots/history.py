"""The last pictures that a detector has seen, and how much they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import Floats, Pixels

LOOKS_KEPT = 32
STEPS_KEPT = 128

BLANK = 1.5  # difference from its own mean colour below which a picture shows nothing


def mean_abs(difference: NDArray[np.int16]) -> float:
    """The mean of the absolute values, in levels of 255; the array is overwritten with them."""
    np.abs(difference, out=difference)
    return int(np.add.reduce(difference, axis=None, dtype=np.int64)) / difference.size


def energy(values: Floats) -> float:
    """The sum of the squares."""
    return float(np.square(values).sum())


class History:
    """The last pictures by their number: looks, times, and the step from each to the next."""

    def __init__(self) -> None:
        self.count = 0
        self._looks = np.zeros((LOOKS_KEPT, 0), np.int16)
        self._times_us = [0] * STEPS_KEPT
        self._steps = [0.0] * STEPS_KEPT

    def add(self, time_us: int, look: Pixels) -> None:
        number = self.count
        if number == 0:
            self._looks = np.zeros((LOOKS_KEPT, look.size), np.int16)
        self._looks[number % LOOKS_KEPT] = look.reshape(-1)
        self._times_us[number % STEPS_KEPT] = time_us
        self._steps[number % STEPS_KEPT] = self.difference(number - 1, number) if number else 0.0
        self.count = number + 1

    def time_us(self, number: int) -> int:
        return self._times_us[number % STEPS_KEPT]

    def step(self, number: int) -> float:
        return self._steps[number % STEPS_KEPT]

    def difference(self, one: int, other: int) -> float:
        return mean_abs(self._looks[one % LOOKS_KEPT] - self._looks[other % LOOKS_KEPT])

    def bend(self, first: int, last: int, quarter: int) -> float:
        """How far the picture after `quarter` quarters lies from the straight line between both ends."""
        looks = self._looks
        between = looks[(first + (last - first) * quarter // 4) % LOOKS_KEPT]
        line = (4 - quarter) * looks[first % LOOKS_KEPT] + quarter * looks[last % LOOKS_KEPT]
        return mean_abs(4 * between - line) / 4

    def mixture(self, first: int, last: int) -> float:
        """How far the picture half way between both ends is a mix of them: about 1 if it is, about 0 if it is not.

        Where two pictures that have nothing to do with each other are mixed, their contrast shrinks: with squared
        distances from any constant, |(a + b) / 2|^2 = (|a|^2 + |b|^2) / 2 - |a - b|^2 / 4. What moves keeps its
        contrast, however straight its way looks. Returned is how much is lost, as a part of what a mix would lose.
        """
        one, middle, other = (
            self._looks[number % LOOKS_KEPT].reshape(-1, 3).astype(np.float32)
            for number in (first, (first + last) // 2, last)
        )
        centre = (one.mean(axis=0) + other.mean(axis=0)) / 2
        lost = (energy(one - centre) + energy(other - centre)) / 2 - energy(middle - centre)
        return lost / (energy(one - other) / 4)

    def is_blank(self, number: int) -> bool:
        look = self._looks[number % LOOKS_KEPT].reshape(-1, 3)
        return mean_abs(look - np.rint(look.mean(axis=0)).astype(np.int16)) < BLANK
