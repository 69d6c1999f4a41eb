"""What all records are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class TimeRange(NamedTuple):
    """Media time start_us <= t < end_us; (0, 0) where it is unknown."""

    start_us: int = 0
    end_us: int = 0


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """Which encoder made a vector. `digest` alone decides whether two vectors may be compared."""

    name: str
    version: str
    digest: str
    dimensions: int
