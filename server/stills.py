"""Still video costs little: a frame that hardly differs from the last encoded one reuses its embedding.

The gate compares each frame with the frame that was really encoded, not with its neighbour, so that slow change adds
up and is noticed. A CNN is easily moved: five pixels of a flat picture that change by at most 11 levels cost a cosine
of .004, as much as noise of half a level everywhere. Their mean differences are as 1 to 1,500, their fourth-power
means as 1 to 1.7; of the means and block means that were tried this one foretells the cosine best.
tests/bench/stills.py prints how well.
"""

from __future__ import annotations

import numpy as np

from matchcut.server.records import Pixels

STRIDE = 8  # the first eighth of the rows is enough to tell most moving pictures apart


def difference(frame: Pixels, other: Pixels) -> float:
    """Fourth-power mean of the difference: the fourth root of the mean of its fourth power, in grey levels.

    Args:
        frame, other: (height, width, 3) uint8 of the same shape.
    """
    return float((fourth_powers(frame, other) / frame.size) ** 0.25)


def fourth_powers(frame: Pixels, other: Pixels) -> float:
    """Sum of the differences' fourth powers."""
    powers = np.subtract(frame, other, dtype=np.float32).ravel()
    powers *= powers
    return float(np.einsum("i,i->", powers, powers))  # as dot(), but that may wake up BLAS' threads


class StillGate:
    """Remembers the last encoded frame and says whether another is as good as the same.

    Args:
        threshold: the least difference() that counts as one, in grey levels; 0: everything does.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._encoded: Pixels | None = None

    def same(self, frame: Pixels) -> bool:
        """True if the embedding of the last encoded frame serves; else the frame becomes the last encoded one."""
        if self._threshold and self._encoded is not None and self._within(frame, self._encoded):
            return True
        self._encoded = frame
        return False

    def _within(self, frame: Pixels, encoded: Pixels) -> bool:
        """Whether difference() is below the threshold, without looking further than needed to deny it."""
        left = self._threshold**4 * frame.size
        for start in range(STRIDE):
            left -= fourth_powers(frame[start::STRIDE], encoded[start::STRIDE])
            if left <= 0:
                return False
        return True
