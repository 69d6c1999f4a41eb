"""Weights of an antialiased resize along one axis.

The filter is the triangle that Pillow's Image.resize calls BILINEAR (libImaging/Resample.c, precompute_coeffs), which
torch's interpolate(mode="bilinear", antialias=True) also is: an output sample at the centre c of its share of the
input weighs the input sample at x by max(0, 1 - |x - c| / r), where r is the number of input samples to one output
sample, or 1 where that is less; the weights are scaled to the sum 1 and samples outside of the input do not count. So
nothing changes where the sizes are equal, and enlarging is linear interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """What each output sample is made of: the input samples first, first + 1, ... by their weights.

    first: (outputs,) int32, such that first + taps never exceeds the input. weights: (outputs, taps) float64, each
    row summing to 1; filled up with 0. count: of input samples.
    """

    first: NDArray[np.int32]
    weights: NDArray[np.float64]
    count: int

    @property
    def dense(self) -> NDArray[np.float64]:
        """(outputs, count) float64: the matrix that resizes."""
        outputs, taps = self.weights.shape
        matrix = np.zeros((outputs, self.count), np.float64)
        matrix[np.arange(outputs)[:, None], self.first[:, None] + np.arange(taps)] = self.weights
        return matrix


def triangle(outputs: int, count: int, *, step: float | None = None, origin: float = 0.0) -> Taps:
    """The weights from `count` input samples to `outputs`.

    Args:
        outputs, count: at least 1.
        step: input samples to one output sample; None: count / outputs.
        origin: the left edge of the first output sample, in input samples: the centre of output i is at
            origin + (i + 0.5) * step, where input sample x has its centre at x + 0.5. Each must be less than the reach
            of the filter away from a sample.
    """
    step = count / outputs if step is None else step
    reach = max(step, 1.0)
    centre = origin + (np.arange(outputs) + 0.5) * step
    taps = min(count, 2 * math.ceil(reach) + 1)
    first = np.clip(np.floor(centre - reach + 0.5).astype(np.int64), 0, count - taps)
    weights = np.maximum(1 - np.abs(first[:, None] + np.arange(taps) + 0.5 - centre[:, None]) / reach, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    first, weights = _trimmed(first, weights, count)
    return Taps(first.astype(np.int32), weights, count)


def _trimmed(
    first: NDArray[np.int64], weights: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same without columns that are 0 for every output: 1 tap where nothing is resized, not 3."""
    used = weights > 0
    lead = used.argmax(axis=1)
    taps = int((weights.shape[1] - used[:, ::-1].argmax(axis=1) - lead).max())
    lead = np.minimum(first + lead, count - taps) - first
    columns = lead[:, None] + np.arange(taps)
    inside = (columns >= 0) & (columns < weights.shape[1])
    moved = np.take_along_axis(weights, np.clip(columns, 0, weights.shape[1] - 1), axis=1)
    return first + lead, np.where(inside, moved, 0.0)
