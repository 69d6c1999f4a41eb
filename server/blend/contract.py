"""What a list for a user is arranged of, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The n items that a list may be made of.

    vectors: (n, d) float32. history, current: (n,) float64, cosine of the item with what the user's history, and what
    the current interest asks for; None: there is none. against: (n,) float64, cosine with what the user disliked, at
    least 0; None: nothing. age_us: (n,) int64, at least 0. popularity: (n,) int64, users. caps: value of the attribute
    that is capped, "" where an item has none (which is never capped).
    """

    vectors: Floats
    history: Doubles | None
    current: Doubles | None
    against: Doubles | None
    age_us: NDArray[np.int64]
    popularity: NDArray[np.int64]
    caps: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Arranged:
    """The list. Each is of its m positions, best first.

    chosen: (m,) int64, index of the candidate. scores: (m,) float64. propensities: (m,) float64, see Shown.
    shares: see Reason.
    """

    chosen: NDArray[np.int64]
    scores: Doubles
    propensities: Doubles
    shares: tuple[dict[str, float], ...]
