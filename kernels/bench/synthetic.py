"""Unit vectors to measure with: random ones, and ones with the spectrum of a trained encoder's embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16_384  # rows made at a time
_OFFSET = 0.5156  # norm of the mean of EfficientNet-Lite0's embeddings of unit length
_BEND = 100  # where its eigenvalues begin to fall faster

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Normal values of some spread in each dimension, an offset in the first, then made as long as 1.

    spread: (dimensions,) float32.
    """

    spread: Floats
    offset: float

    def fill(self, rows: Floats, seed: int) -> None:
        """Writes (n, dimensions) rows; the same for the same seed."""
        for start in range(0, len(rows), _BLOCK):
            random = np.random.default_rng((seed, start))
            part = rows[start : start + _BLOCK]
            made = random.standard_normal(part.shape, np.float32)
            made *= self.spread
            made[:, 0] += self.offset
            np.divide(made, np.linalg.norm(made, axis=1, keepdims=True), out=part)


def unstructured(dimensions: int) -> Source:
    """Random directions: the worst case, as no part of a vector says more than another."""
    return Source(np.ones(dimensions, np.float32), 0.0)


def structured(energies: Wide) -> Source:
    """Vectors with these eigenvalues, largest first, and a mean that is not zero."""
    return Source(np.sqrt(energies).astype(np.float32), _OFFSET)


def power_law(dimensions: int) -> Wide:
    """Eigenvalues like those of EfficientNet-Lite0's embeddings: 64 of 1280 dimensions hold 71 % of the energy."""
    place = np.arange(1, dimensions + 1, dtype=np.float64)
    energies = place**-0.85 / (1 + place / _BEND)
    made: Wide = energies * (1 - _OFFSET**2) / energies.sum()
    return made
