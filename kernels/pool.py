"""Many vectors to one for each stretch: their mean at unit length, or another of the ways in pooling.py.

Dispatch: device.Cpu calls this reference; a GPU home makes one pass over the same ragged offsets, kernels/gpu/pool.py,
launched as kernels/launch/pool.py plans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.pooling import BROKEN, EMPTY, ZERO, Attention, GeM, Max, Mean, MeanStd, Pooling, fault, width

_BLOCK = 1024  # rows widened to float64 at a time
_MEAN = Mean()


def pool(
    vectors: NDArray[np.float32],
    offsets: NDArray[np.int64],
    *,
    weights: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    normalise: bool = True,
    kind: Pooling = _MEAN,
) -> NDArray[np.float32]:
    """Each segment's vectors pooled, by default to their masked weighted mean, L2-normalised; computed in float64.

    Args:
        vectors: (n, dimensions) float32.
        offsets: (segments + 1,) int64, not falling, from 0 to n: segment s is vectors[offsets[s]:offsets[s + 1]].
        weights: (n,) float32, finite and not negative; None: all 1. A vector of weight 0 is not looked at.
        mask: (n,) bool, True where a vector counts; None: all. A masked vector is not looked at.
        normalise: scale each result to unit length.
        kind: how.

    Returns:
        (segments, dimensions) float32; for MeanStd (segments, 2 * dimensions).

    Raises:
        ValueError: a shape or type; a segment in which nothing counts, in which what counts is not finite or, where
            it is to be normalised, whose result is zero. The message names the segment.
    """
    return _pool(vectors, offsets, weights, mask, normalise, kind)[0]


def attend(
    vectors: NDArray[np.float32],
    offsets: NDArray[np.int64],
    kind: Attention,
    *,
    weights: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    normalise: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What pool gives for an Attention, and (n,) float32: each vector's share in it, 0 for one that does not count.

    The shares of a segment sum to 1.

    Raises:
        ValueError: as pool.
    """
    return _pool(vectors, offsets, weights, mask, normalise, kind)


def used(count: int, weights: NDArray[np.float32] | None, mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """(count,) float64: each vector's weight, 0 where it is masked."""
    made = np.ones(count, np.float64) if weights is None else weights.astype(np.float64)
    if mask is not None:
        made[~mask] = 0
    return made


def check(
    count: int,
    dimensions: int,
    offsets: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    kind: Pooling,
) -> None:
    """ValueError where these do not belong to `count` vectors of so many dimensions."""
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
    if isinstance(kind, Attention) and len(kind.query) != dimensions:
        raise ValueError(f"query must have the vectors' {dimensions} dimensions, not {len(kind.query)}")


def _pool(
    vectors: NDArray[np.float32],
    offsets: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    normalise: bool,
    kind: Pooling,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype != np.float32:
        raise ValueError(f"vectors must be (n, dimensions) float32, not {vectors.shape} {vectors.dtype}")
    count, dimensions = vectors.shape
    check(count, dimensions, offsets, weights, mask, kind)
    counts = used(count, weights, mask)
    out = np.empty((len(offsets) - 1, width(kind, dimensions)), np.float32)
    explained = np.zeros(count, np.float32)
    for segment, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        counted = start + np.flatnonzero(counts[start:stop])
        if not len(counted):
            raise fault(segment, EMPTY, kind)
        # So that no sum overflows or vanishes, however large or small the weights are.
        shares = counts[counted] / counts[counted].max()
        with np.errstate(invalid="ignore"):  # infinity minus infinity: it is told below
            if isinstance(kind, Attention):
                shares = _attention(vectors, counted, shares, kind)
            made = _one(vectors, counted, shares / shares.sum(), kind)
        norm = float(np.linalg.norm(made))
        if not np.isfinite(norm):
            raise fault(segment, BROKEN, kind)
        if normalise and norm == 0:
            raise fault(segment, ZERO, kind)
        out[segment] = made / norm if normalise else made
        explained[counted] = shares / shares.sum()
    return out, explained


def _attention(
    vectors: NDArray[np.float32], counted: NDArray[np.int64], shares: NDArray[np.float64], kind: Attention
) -> NDArray[np.float64]:
    """(counted,) float64: the shares by the exponentials of the scores, the largest of which is 1."""
    query = kind.query.astype(np.float64)
    scores = np.concatenate(
        [
            vectors[counted[start : start + _BLOCK]].astype(np.float64) @ query
            for start in range(0, len(counted), _BLOCK)
        ]
    )
    made: NDArray[np.float64] = shares * np.exp((scores - scores.max()) / kind.temperature)
    return made


def _one(
    vectors: NDArray[np.float32], counted: NDArray[np.int64], shares: NDArray[np.float64], kind: Pooling
) -> NDArray[np.float64]:
    """What is counted, pooled; NaN or infinity where it holds any. shares: (counted,), summing to 1."""

    def mean(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
        total = np.zeros(vectors.shape[1], np.float64)
        for start in range(0, len(counted), _BLOCK):
            rows = counted[start : start + _BLOCK]
            total += shares[start : start + _BLOCK] @ change(vectors[rows].astype(np.float64))
        return total

    if isinstance(kind, Max | GeM):
        largest: NDArray[np.float64] = vectors[counted].max(axis=0).astype(np.float64)
        if not (np.isfinite(largest).all() and np.isfinite(vectors[counted].min(axis=0)).all()):
            return np.full(vectors.shape[1], np.nan)
        if isinstance(kind, Max):
            return largest
        top = np.maximum(largest, kind.floor)  # nothing overflows in powers of what is at most 1
        ratio = mean(lambda rows: (np.maximum(rows, kind.floor) / top) ** kind.p)
        generalised: NDArray[np.float64] = top * ratio ** (1 / kind.p)
        return generalised
    middle = mean(lambda rows: rows)
    if not isinstance(kind, MeanStd):
        return middle
    return np.concatenate([middle, np.sqrt(mean(lambda rows: (rows - middle) ** 2))])
