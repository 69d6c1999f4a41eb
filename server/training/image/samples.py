"""What a network is trained with: batches of numbers, from pictures or from vectors that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matchcut.server.records import Floats, Pixels
from matchcut.server.training.image.augment import Augment

__all__ = ["PictureSamples", "Samples", "VectorSamples", "statistics"]

Rows = NDArray[np.int64]
BLOCK = 256


class Samples(Protocol):
    """A part of the data, counted from 0."""

    @property
    def labels(self) -> Rows:
        """(n,) int64."""

    def batch(self, rows: Rows, generator: torch.Generator | None) -> Tensor:
        """What the network takes for some of them; with a generator changed at random, to be learnt from."""


@dataclass(frozen=True, slots=True)
class PictureSamples:
    """Normalised pictures.

    pixels: (all, height, width, 3) uint8. rows: which of them these samples are. mean, std: see statistics().
    """

    pixels: Pixels
    rows: Rows
    labels: Rows
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment | None

    def batch(self, rows: Rows, generator: torch.Generator | None) -> Tensor:
        """(n, 3, height, width) float32."""
        chosen = torch.from_numpy(np.array(self.pixels[self.rows[rows]]))
        pictures = chosen.permute(0, 3, 1, 2).to(torch.float32)
        if generator is not None and self.augment is not None:
            pictures = self.augment(pictures, generator)
        mean, std = (torch.tensor(value, dtype=torch.float32).view(1, 3, 1, 1) for value in (self.mean, self.std))
        return ((pictures - mean) / std).contiguous()


@dataclass(frozen=True, slots=True)
class VectorSamples:
    """Vectors of a frozen encoder.

    vectors: (views, n, dimensions) float32; the first view is of the pictures as they are, the others of changed ones.
    """

    vectors: Floats
    labels: Rows

    def batch(self, rows: Rows, generator: torch.Generator | None) -> Tensor:
        """(n, dimensions) float32, with a generator of a view at random."""
        if generator is None or len(self.vectors) == 1:
            return torch.from_numpy(self.vectors[0, rows])
        view = torch.randint(len(self.vectors), (len(rows),), generator=generator).numpy()
        return torch.from_numpy(self.vectors[view, rows])


def statistics(pixels: Pixels, rows: Rows) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of R, G and B over some of the pictures, in 0..255; the deviation is at least 1."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for start in range(0, len(rows), BLOCK):
        block = pixels[rows[start : start + BLOCK]].reshape(-1, 3).astype(np.float64)
        count, total, squares = count + len(block), total + block.sum(axis=0), squares + np.square(block).sum(axis=0)
    mean = total / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - np.square(mean), 0.0)), 1.0)
    r, g, b = (round(float(value), 4) for value in mean)
    deviations = tuple(round(float(value), 4) for value in std)
    return (r, g, b), (deviations[0], deviations[1], deviations[2])
