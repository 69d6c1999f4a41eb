"""Shots from the looks of the used pictures alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import Pixels
from matchcut.server.shots.history import mean_abs

COARSE_STEP = 14.0  # least difference between two used pictures that counts as a cut


class CoarseDetector:
    """Finds where a used picture shows something else than the one before, at once and without looking ahead.

    The cut is placed half way between both, where its error is smallest. A flash or a fast pan counts as a cut.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None
        self._before_us = 0

    @property
    def settled_us(self) -> int:
        """No cut at or before this time can still be found: that of the last picture, in microseconds."""
        return self._before_us

    def push(self, time_us: int, look: Pixels) -> list[int]:
        """Takes the next used picture's look, (height, width, 3) uint8; returns the cut before it, if there is one."""
        before, before_us = self._before, self._before_us
        self._before, self._before_us = look.astype(np.int16), time_us
        if before is None or mean_abs(self._before - before) < COARSE_STEP:
            return []
        return [before_us + (time_us - before_us + 1) // 2]

    def finish(self) -> list[int]:
        """There are no more pictures; nothing was open."""
        return []
