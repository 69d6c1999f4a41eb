"""Many vectors to one: the mean of each stretch, at unit length.

Dispatch: device.Cpu calls this reference; a GPU home makes one pass over the same ragged offsets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024  # rows widened to float64 at a time


def pool(
    vectors: NDArray[np.float32],
    offsets: NDArray[np.int64],
    *,
    weights: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    normalise: bool = True,
) -> NDArray[np.float32]:
    """The masked weighted mean of each segment's vectors, L2-normalised, accumulated in float64.

    Args:
        vectors: (n, dimensions) float32.
        offsets: (segments + 1,) int64, not falling, from 0 to n: segment s is vectors[offsets[s]:offsets[s + 1]].
        weights: (n,) float32, finite and not negative; None: all 1. A vector of weight 0 is not looked at.
        mask: (n,) bool, True where a vector counts; None: all. A masked vector is not looked at.
        normalise: scale each mean to unit length.

    Returns:
        (segments, dimensions) float32.

    Raises:
        ValueError: a shape or type; a segment in which nothing counts, whose mean is not finite or, where it is to
            be normalised, zero. The message names the segment.
    """
    _check(vectors, offsets, weights, mask)
    used = np.ones(len(vectors), np.float64) if weights is None else weights.astype(np.float64)
    if mask is not None:
        used[~mask] = 0
    out = np.empty((len(offsets) - 1, vectors.shape[1]), np.float32)
    for segment, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        mean = _mean(vectors[start:stop], used[start:stop])
        if mean is None:
            raise ValueError(f"segment {segment} has no vector that counts")
        norm = float(np.linalg.norm(mean))
        if not np.isfinite(norm):
            raise ValueError(f"segment {segment} holds NaN or infinity")
        if normalise and norm == 0:
            raise ValueError(f"segment {segment} has the mean zero, which has no direction")
        out[segment] = mean / norm if normalise else mean
    return out


def _mean(vectors: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(dimensions,), or None where no weight is above zero."""
    counted = np.flatnonzero(weights)
    if not len(counted):
        return None
    weights = weights[counted] / weights.max()  # so that no sum overflows or vanishes, however large the weights
    total = np.zeros(vectors.shape[1], np.float64)
    for start in range(0, len(counted), _BLOCK):
        rows = counted[start : start + _BLOCK]
        with np.errstate(invalid="ignore"):  # infinity minus infinity: the caller reports what is not finite
            total += weights[start : start + _BLOCK] @ vectors[rows].astype(np.float64)
    mean: NDArray[np.float64] = total / weights.sum()
    return mean


def _check(
    vectors: NDArray[np.float32],
    offsets: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
) -> None:
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype != np.float32:
        raise ValueError(f"vectors must be (n, dimensions) float32, not {vectors.shape} {vectors.dtype}")
    count = len(vectors)
    if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets):
        raise ValueError(f"offsets must be (segments + 1,) int64, not {offsets.shape} {offsets.dtype}")
    if offsets[0] != 0 or offsets[-1] != count or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets must not fall and must go from 0 to the {count} vectors")
    if weights is not None:
        if weights.shape != (count,) or weights.dtype != np.float32:
            raise ValueError(f"weights must be ({count},) float32, not {weights.shape} {weights.dtype}")
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError("weights must be finite and not negative")
    if mask is not None and (mask.shape != (count,) or mask.dtype != np.bool_):
        raise ValueError(f"mask must be ({count},) bool, not {mask.shape} {mask.dtype}")
