"""What all session models do with rows of numbers."""

from __future__ import annotations

import numpy as np

from matchcut.server.errors import EngineFailed
from matchcut.server.records import Floats

__all__ = ["directions", "finite"]


def finite(rows: Floats, what: str) -> Floats:
    """The same rows.

    Raises:
        EngineFailed: one of them holds NaN or infinity.
    """
    if not np.isfinite(rows).all():
        raise EngineFailed(f"{what} came out as NaN or infinity: the session model is broken; deploy another")
    return rows


def directions(rows: Floats) -> Floats:
    """(n, d) each row at unit length, float32; a row of zeros stays one."""
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.vecdot(wide, wide))
    norms[norms == 0] = 1
    units: Floats = (wide / norms[:, np.newaxis]).astype(np.float32)
    return units
