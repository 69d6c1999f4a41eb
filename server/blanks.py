"""Frames that show nothing: black, white, one colour.

Every film fades to black somewhere, and all black frames are alike: if they counted, everything would match everything
with a score of one. So they are left out, unless there is nothing else.
"""

from __future__ import annotations

import numpy as np

from matchcut.server.records import Pixels

STEP = 4  # every so many pixels are looked at, in both directions
SPREAD = 2.0  # grey levels; coding noise on black stays below 1, the darkest night scene tried has 6


def is_blank(frame: Pixels) -> bool:
    """Whether a frame is of one colour: its pixels' standard deviation, about each channel's mean, is below SPREAD.

    Args:
        frame: (height, width, 3) uint8.
    """
    seen = frame[::STEP, ::STEP].reshape(-1, frame.shape[-1])
    return bool(seen.std(axis=0, dtype=np.float32).max() < SPREAD)
