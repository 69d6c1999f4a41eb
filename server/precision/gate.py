"""How far the vectors of a reduced precision may be from those of float32, measured on frames held out for that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import Floats

__all__ = ["FEWEST", "GATES", "NEIGHBOURS", "Figures", "Gate", "judge"]

NEIGHBOURS = 10
FEWEST = 2 * NEIGHBOURS + 2  # frames among which neighbours mean anything


@dataclass(frozen=True, slots=True)
class Figures:
    """Of vectors in reduced precision against those of float32 for the same frames.

    cosine, mean_cosine: the least and the mean over the frames.
    overlap: of each frame's ten nearest neighbours among the other frames, the share that are the same; None where
        there are fewer than FEWEST frames.
    """

    frames: int
    cosine: float
    mean_cosine: float
    overlap: float | None

    def __str__(self) -> str:
        shared = "not measured" if self.overlap is None else f"{self.overlap:.4f}"
        return (
            f"cosine {self.cosine:.5f} at least and {self.mean_cosine:.5f} in the mean, top-{NEIGHBOURS} overlap "
            f"{shared}, over {self.frames} frames"
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """What must be kept: the least cosine of any frame, and the overlap where there is one to keep."""

    cosine: float
    overlap: float = 0.0

    def faults(self, figures: Figures) -> list[str]:
        """What is not kept, in words; a figure that is not a number is a fault too."""
        found = []
        if not figures.cosine >= self.cosine:
            found.append(f"cosine {figures.cosine:.5f} < {self.cosine:g}")
        if self.overlap and figures.overlap is None:
            found.append(f"overlap unknown, {figures.frames} frames are too few")
        elif self.overlap and not (figures.overlap or 0.0) >= self.overlap:
            found.append(f"top-{NEIGHBOURS} overlap {figures.overlap:.4f} < {self.overlap:g}")
        return found

    def narrowed(self, share: float) -> Gate:
        """A gate that lets only that share of the deviation pass."""
        return Gate(1 - (1 - self.cosine) * share, 1 - (1 - self.overlap) * share if self.overlap else 0.0)


GATES = {"fp16": Gate(0.999), "bf16": Gate(0.999), "int8": Gate(0.995, overlap=0.97)}


Wide = NDArray[np.float64]


def judge(found: Floats, exact: Floats) -> Figures:
    """Compares vectors with those of float32.

    Args:
        found, exact: (n, dimensions) float32, of the same frames, n >= 1.
    """
    a, b = unit(found), unit(exact)
    cosines = (a * b).sum(axis=1)
    return Figures(len(a), float(cosines.min()), float(cosines.mean()), overlap(a, b) if len(a) >= FEWEST else None)


def unit(vectors: Floats) -> Wide:
    """(n, dimensions) float64 of length one; of no length where a vector is zero."""
    wide = np.asarray(vectors, np.float64).reshape(len(vectors), -1)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    made: Wide = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths != 0)
    return made


def overlap(a: Wide, b: Wide) -> float:
    """The share of nearest neighbours that two sets of vectors of length one agree on; no vector is its own."""
    shared = 0
    tops = []
    for each in (a, b):
        scores = each @ each.T
        np.fill_diagonal(scores, -np.inf)
        tops.append(np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS])
    for left, right in zip(*tops, strict=True):
        shared += len(set(left.tolist()) & set(right.tolist()))
    return shared / (len(a) * NEIGHBOURS)
