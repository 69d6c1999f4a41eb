"""Inner products of queries and rows: fast in float32, how far those may be off, and exact ones.

Dispatch: device.Cpu uses these through topk.search; a GPU home fuses them with its selection.

The bound. In float32 with unit roundoff u = 2**-24 any order of summation, with or without fused multiply-add, gives
|fl(q.x) - q.x| <= g(d) * sum|q_i x_i| <= g(d) * |q| |x|, where g(d) = d u / (1 - d u) (N. J. Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., section 3.1, then Cauchy-Schwarz). Each of the d products and d - 1 sums may
also underflow, which is off by 2**-126 at most even where the processor flushes to zero. Nothing overflows while
|q| |x| stays below 2**127, as that bounds every partial sum. The same holds in float64 with u = 2**-53.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_U32, _U64, _TINY = 2.0**-24, 2.0**-53, 2.0**-126


def score(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products in float32, summed in whatever order is fastest; `rounding` says how far they may be off.

    Equal rows need not get equal scores, as the order may depend on where a row lies.

    Args:
        queries: (b, dimensions) float32.
        rows: (n, dimensions) float32.

    Returns:
        (b, n) float32, in any memory order.

    Raises:
        ValueError: a shape or type.
    """
    check_vectors("queries", queries)
    check_vectors("rows", rows)
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, rows {rows.shape[1]}")
    with np.errstate(over="ignore", invalid="ignore"):
        scores: NDArray[np.float32] = np.matmul(
            rows, queries.T
        ).T  # this way round BLAS is up to 1.4 times as fast for few queries
    return scores


def rounding(dimensions: int, radius: float) -> float:
    """A proven bound on |score - exact_score|; infinity where float32 could overflow.

    Args:
        dimensions: length of the vectors.
        radius: at least |query| * |row|, computed in float64.
    """
    if not radius < 2.0**127 or dimensions * _U32 >= 0.5:
        return float("inf")
    terms = sum(dimensions * u / (1 - dimensions * u) for u in (_U32, _U64))
    # The last factor covers the float64 rounding of the radius and of this very line.
    return (terms * radius + 4 * dimensions * _TINY) * (1 + dimensions * _U64 * 4)


def wide_score(queries: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner products in float64, summed in whatever order is fastest; `wide_rounding` says how far they may be off.

    Args:
        queries: (b, dimensions) float64, each value a float32.
        rows: (n, dimensions) float64, likewise.

    Returns:
        (b, n) float64, in any memory order.
    """
    scores: NDArray[np.float64] = np.matmul(rows, queries.T).T
    return scores


def wide_rounding(dimensions: int, radius: float) -> float:
    """A proven bound on |wide_score - exact_score|, which are both within the same bound of the true product.

    Values are float32, so no product under- or overflows in float64, nor does any sum of fewer than 2**700.

    Args:
        dimensions: length of the vectors.
        radius: at least |query| * |row|, computed in float64.
    """
    share = dimensions * _U64
    return 2 * share / (1 - share) * radius * (1 + 4 * share)


def exact_score(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products in float64, pair by pair; what rankings are defined by.

    The products of two float32 are exact in float64, and the order of summation depends on the number of dimensions
    alone (NumPy's pairwise sum along a contiguous axis): equal pairs get equal scores wherever they lie. Zero is never
    negative.

    Args:
        queries: (m, dimensions) float32.
        rows: (m, dimensions) float32.

    Returns:
        (m,) float64.
    """
    products: NDArray[np.float64] = np.multiply(queries, rows, dtype=np.float64, order="C")
    sums: NDArray[np.float64] = products.sum(axis=1)
    return sums + 0.0


def largest_norm(vectors: NDArray[np.float32], *, block: int = 1024) -> float:
    """The largest L2 norm of (n, dimensions) float32 vectors, in float64; 0 where there are none."""
    squares = np.float64(0)
    for start in range(0, len(vectors), block):
        wide = vectors[start : start + block].astype(np.float64)
        squares = np.maximum(squares, np.einsum("ij,ij->i", wide, wide).max())  # unlike max(), this keeps a NaN
    return float(np.sqrt(squares))


def check_vectors(name: str, vectors: NDArray[np.float32]) -> None:
    """Raises ValueError unless they are (n, dimensions) float32 with at least one dimension."""
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype != np.float32:
        raise ValueError(f"{name} must be (n, dimensions) float32, not {vectors.shape} {vectors.dtype}")
