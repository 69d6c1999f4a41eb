"""How rows are turned before they are coded: so that the first dimensions hold most of what tells rows apart.

`Basis.plain` turns nothing, at most it takes the mean away, which makes codes finer. `learn` takes the principal axes
of a sample. Embeddings of a trained encoder have a steep
spectrum: of EfficientNet-Lite0's 1280 dimensions 128 turned ones hold 88 % of the energy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.native.shared_library import LEVEL, LEVELS

_U = 2.0**-24
_INNER = 128  # products summed in float32 at a time; few, as the bound on their rounding grows with them

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Basis:
    """y = matrix @ (x - mean), padded with zeros to `width` = dense + 64 * levels.

    dimensions: of a row. matrix: (width, dimensions) float32; None: the identity. mean: (dimensions,) float32.
    dense: values of y that are scanned for every row. gains: (levels,) float32, typical size of a value in each level.
    rho: bounds |y - matrix @ (x - mean)| / |x - mean| for y from `turn`. skew: bounds the norm of matrix' matrix - 1.
    planned: how many rows there were when it was chosen.
    """

    dimensions: int
    dense: int
    mean: Floats
    gains: Floats
    matrix: Floats | None = None
    rho: float = 0.0
    skew: float = 0.0
    planned: int = 0

    @classmethod
    def plain(cls, dimensions: int, *, mean: Floats | None = None, planned: int = 0) -> Basis:
        """No turn; every dimension is scanned for every row."""
        dense = -(-dimensions // LEVEL) * LEVEL
        gains = np.empty(0, np.float32)
        if mean is None:
            return cls(dimensions, dense, np.zeros(dimensions, np.float32), gains, planned=planned)
        return cls(dimensions, dense, mean, gains, rho=2 * _U, planned=planned)

    @property
    def levels(self) -> int:
        """Tail levels."""
        return len(self.gains)

    @property
    def width(self) -> int:
        """Values of y, with padding."""
        return self.dense + LEVEL * self.levels

    @property
    def ratios(self) -> Floats:
        """The gains for a largest one of 1, by which codes are scaled: no scale of a row leaves float32's range."""
        most = self.gains.max(initial=np.float32(2.0**-126))
        return np.asarray(self.gains / most, np.float32)

    @property
    def stretch(self) -> float:
        """|x - mean| is at most this often |y|."""
        return (1 + 2.0**-20) / (1 - self.rho - self.skew)

    def pieces(self) -> Iterator[slice]:
        """The dense part, then each tail level, as slices of y."""
        yield slice(0, self.dense)
        for start in range(self.dense, self.width, LEVEL):
            yield slice(start, start + LEVEL)

    def turn(self, rows: Floats) -> Floats:
        """y of (n, dimensions) rows: (n, width) float32, within rho; not finite where float32 overflows."""
        turned = np.zeros((len(rows), self.width), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.matrix is None:
                np.subtract(rows, self.mean, out=turned[:, : self.dimensions])
                return turned
            self._add_products(rows - self.mean, turned)
        return turned

    def turn_queries(self, queries: Floats) -> Wide:
        """matrix @ q of (b, dimensions) queries, not less the mean: (b, width), within rho |q|."""
        turned = np.zeros((len(queries), self.width), np.float32)
        if self.matrix is None:
            turned[:, : self.dimensions] = queries
        else:
            self._add_products(queries, turned)
        return turned.astype(np.float64)

    def _add_products(self, vectors: Floats, turned: Floats) -> None:
        """Adds matrix @ v of each to its row of `turned`; few products at a time, which is what rho counts on."""
        assert self.matrix is not None
        for start in range(0, self.dimensions, _INNER):
            part = slice(start, start + _INNER)
            turned += vectors[:, part] @ self.matrix[:, part].T


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """Principal axes of a sample, strongest first.

    mean: (dimensions,) float32. axes: (dimensions, dimensions) float64, orthonormal rows. energy: (dimensions,) mean
    square of the sample along each.
    """

    mean: Floats
    axes: Wide
    energy: Wide

    def basis(self, dense: int, planned: int = 0) -> Basis:
        """A basis whose first `dense` axes, a positive multiple of 64, are scanned for every row."""
        dimensions = len(self.mean)
        width = -(-dimensions // LEVEL) * LEVEL
        matrix = np.zeros((width, dimensions), np.float32, order="F")  # a query's turn reads it in one piece
        matrix[:dimensions] = self.axes
        wide = matrix.astype(np.float64)
        skew = float(np.linalg.norm(wide.T @ wide - np.eye(dimensions))) * (1 + 1e-6)
        sizes = np.abs(wide)
        spectral = float(np.sqrt(sizes.sum(axis=0).max() * sizes.sum(axis=1).max()))  # at least the norm of |matrix|
        terms = (_INNER + -(-dimensions // _INNER)) * _U
        rho = terms / (1 - terms) * spectral + 2 * _U * (1 + skew)
        energy = np.zeros(width)
        energy[:dimensions] = self.energy
        gains = np.sqrt(energy[dense:].reshape(-1, LEVEL).mean(axis=1))
        floor = max(float(np.sqrt(energy.max())), 2.0**-40) * 2.0**-10
        return Basis(
            dimensions=dimensions,
            dense=dense,
            mean=self.mean,
            gains=np.maximum(gains, floor).astype(np.float32),
            matrix=matrix,
            rho=rho,
            skew=skew,
            planned=planned,
        )


def learn(sample: Floats) -> Axes | None:
    """The principal axes of (n, dimensions) rows about their mean; None where there is nothing to learn.

    Few enough dimensions to be one level, so many that there is no code for them, fewer rows than two, or rows so large
    that float32 overflows: nothing.
    """
    count, dimensions = sample.shape
    if count < 2 or not LEVEL < dimensions <= LEVEL * LEVELS:
        return None
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = sample - mean
        moments = (apart.T @ apart).astype(np.float64) / count
    if not np.isfinite(moments).all():
        return None
    energy, axes = np.linalg.eigh(moments)
    return Axes(mean, np.ascontiguousarray(axes.T[::-1]), np.maximum(energy[::-1], 0))
