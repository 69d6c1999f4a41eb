"""The ways to make one vector of many, for pool.pool.

In all of them a vector's share is its weight by the sum of the weights of its segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mean:
    """The sum of share * x."""

    name: ClassVar[str] = "mean"


@dataclass(frozen=True, slots=True)
class Max:
    """The largest number of each dimension; a weight says only whether a vector counts."""

    name: ClassVar[str] = "max"


@dataclass(frozen=True, slots=True)
class GeM:
    """The generalised mean of each dimension, (sum of share * max(x, floor) ** p) ** (1 / p).

    From the mean at p = 1 to the maximum as p grows; made for what is not negative. Source: Radenovic, Tolias, Chum,
    "Fine-tuning CNN image retrieval with no human annotation", 2018, equation 3; `floor`, as in its authors' code,
    keeps roots and logarithms finite.

    p: above 0. floor: at least float32's smallest normal number.

    Raises:
        ValueError: p or floor is out of its range.
    """

    p: float = 3.0
    floor: float = 1e-6
    name: ClassVar[str] = "gem"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p) and self.p > 0):
            raise ValueError(f"p must be a finite number above 0, not {self.p}")
        if not (math.isfinite(self.floor) and self.floor >= SMALLEST):
            raise ValueError(f"floor must be a finite number of at least {SMALLEST}, not {self.floor}")


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """The mean in which a vector's share is also multiplied by exp(query . x / temperature).

    The shares, scaled to the sum 1, say which vectors made the result: pool.attend gives them back. Source: Yang et
    al., "Neural aggregation network for video face recognition", 2017, equations 2 and 3, without its temperature.

    query: (dimensions,) float32, finite. temperature: above 0; the lower, the more the best vector decides.

    Raises:
        ValueError: the query or the temperature is not that.
    """

    query: NDArray[np.float32]
    temperature: float = 1.0
    name: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        if self.query.ndim != 1 or self.query.dtype != np.float32 or not np.isfinite(self.query).all():
            raise ValueError(
                f"query must be (dimensions,) float32 and finite, not {self.query.shape} {self.query.dtype}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be a finite number above 0, not {self.temperature}")


@dataclass(frozen=True, slots=True)
class MeanStd:
    """The mean and, after it, the standard deviation of each dimension: twice as many numbers.

    The deviation is that of the population, the root of the sum of share * (x - mean) ** 2. Source: Snyder et al.,
    "X-vectors: robust DNN embeddings for speaker recognition", 2018, statistics pooling.
    """

    name: ClassVar[str] = "mean_std"


Pooling: TypeAlias = Mean | Max | GeM | Attention | MeanStd

SMALLEST = 2.0**-126  # float32's smallest normal number

# What is wrong with a segment, as a GPU reports it; 0 is nothing.
EMPTY, BROKEN, ZERO = 1, 2, 3


def fault(segment: int, status: int, kind: Pooling) -> ValueError:
    """The error for a segment's status, which is not 0."""
    if status == EMPTY:
        return ValueError(f"segment {segment} has no vector that counts")
    if status == BROKEN:
        return ValueError(f"segment {segment} holds NaN or infinity")
    assert status == ZERO, f"no such status: {status}"
    what = "the mean zero" if isinstance(kind, Mean) else "only zeros as its result"
    return ValueError(f"segment {segment} has {what}, which has no direction")


def width(kind: Pooling, dimensions: int) -> int:
    """Numbers in a pooled vector."""
    return 2 * dimensions if isinstance(kind, MeanStd) else dimensions
