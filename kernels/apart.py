"""What each of several queries does not want, for rankings of their own: see Device.search_each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def listed(count: int, excluded: Sequence[Ints] | None) -> Sequence[Ints]:
    """The groups that each of `count` queries does not want.

    Raises:
        ValueError: there are not as many lists as queries.
    """
    if excluded is None:
        return [np.empty(0, np.int64)] * count
    if len(excluded) != count:
        raise ValueError(f"{count} queries need as many lists of excluded groups, not {len(excluded)}")
    return excluded


def without(groups: Ints, excluded: Ints, eligible: Flags | None) -> Flags | None:
    """(n,) bool: the eligible rows that are of none of the excluded groups; None: all."""
    if not len(excluded):
        return eligible
    wanted: Flags = ~np.isin(groups, excluded)
    return wanted if eligible is None else wanted & eligible
