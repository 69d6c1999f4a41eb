"""How the rows of a catalogue are best coded: as they are, or turned so that a short dense part decides most of them.

A cost model: the principal axes of a sample give the turn; rows of the catalogue, taken as queries, give the scores
that have to be beaten; the sample says how many rows would be left after the dense part and after each level. The
choice is about speed alone, as every answer is exact (codes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.basis import Axes, Basis, learn
from matchcut.kernels.native.shared_library import LEVEL

_SMALL = 16 << 20  # bytes of codes; fewer are scanned in a millisecond whatever the basis
_SAMPLE = 16_384  # rows that the axes are learnt from
_JUDGED = 8_192  # rows that the cost is estimated on
_QUERIES = 24
_RANK = 10  # the k that is planned for
_BLOCK = 16_384  # rows scored between two checks
_SHARED = 1.25  # how much worse a longer dense part may look
_GAIN = 0.8  # a turn has to promise at most this share of the plain scan's time


@dataclass(frozen=True, slots=True)
class Prices:
    """What a scan's steps take, in nanoseconds; only their ratios matter.

    dense: dimensions that the dense part may have. byte: of the dense part. row: to compare a row's bound. left: to
    keep a row that is left. piece: to read 64 bytes of it.
    """

    dense: tuple[int, ...]
    byte: float
    row: float
    left: float
    piece: float


CPU = Prices((64, 128, 192, 256, 384), byte=0.05, row=0.3, left=8.0, piece=20.0)
"""One core of an EPYC 9004."""
GPU = Prices((128, 256, 384, 512), byte=0.00035, row=0.008, left=3.0, piece=0.3)
"""An H100. Its tiles are 128 dimensions deep, and it scores no pair in less than it takes to look at 4 KB of codes."""

Floats = NDArray[np.float32]


def choose(
    rows: Floats, *, check: Callable[[], None] | None = None, small: int = _SMALL, prices: Prices = CPU
) -> Basis:
    """The basis that promises the fastest search of these rows; takes seconds where there are many.

    Args:
        rows: (n, dimensions) float32, finite.
        check: called every few hundred milliseconds; what it raises comes through.
        small: bytes of codes up to which nothing is turned.
        prices: of what scans.
    """
    count, dimensions = rows.shape
    check = check or _nobody_asks
    random = np.random.default_rng(count)
    sample = rows[_some(random, count, _SAMPLE)]
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32) if count else None
    plain = Basis.plain(dimensions, mean=mean, planned=count)
    if count * plain.width <= small or dimensions <= 2 * LEVEL:
        return plain
    axes = learn(sample)
    if axes is None:
        return plain
    check()
    queries = rows[_some(random, count, _QUERIES)]
    taus = _taus(queries, rows, check)
    judged = rows[_some(random, count, _JUDGED)]
    possible = [dense for dense in prices.dense if dense <= dimensions // 2]
    costs = {dense: _cost(axes, dense, queries, taus, judged, prices, check) for dense in possible}
    if not costs or min(costs.values()) > _GAIN * (plain.width * prices.byte + prices.row):
        return plain
    # Queries with several vectors share the dense part, so it may be longer than is best for one.
    best = max(dense for dense, cost in costs.items() if cost <= _SHARED * min(costs.values()))
    return axes.basis(best, planned=count)


def _some(random: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    return np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))


def _taus(queries: Floats, rows: Floats, check: Callable[[], None]) -> Floats:
    """The k-th best score of each query, itself left out where it is among the rows."""
    best = np.full((len(queries), _RANK + 1), -np.inf, np.float32)
    for start in range(0, len(rows), _BLOCK):
        check()
        scores = np.concatenate([best, queries @ rows[start : start + _BLOCK].T], axis=1)
        best = np.partition(scores, -(_RANK + 1), axis=1)[:, -(_RANK + 1) :]
    lowest: Floats = best.min(axis=1)
    return lowest


def _cost(
    axes: Axes,
    dense: int,
    queries: Floats,
    taus: Floats,
    judged: Floats,
    prices: Prices,
    check: Callable[[], None],
) -> float:
    """Nanoseconds a row."""
    basis = axes.basis(dense)
    turned = basis.turn(judged)
    asked = basis.turn_queries(queries).astype(np.float32)
    check()
    base = queries @ axes.mean
    part = np.zeros((len(queries), len(judged)), np.float32)
    error = np.zeros_like(part)
    cost = dense * prices.byte + prices.row
    for at, piece in enumerate(basis.pieces()):
        rest = slice(piece.stop, None)
        part += asked[:, piece] @ turned[:, piece].T
        step = np.abs(turned[:, piece]).max(axis=1) / 127
        error += np.outer(np.linalg.norm(asked[:, piece], axis=1), step * np.sqrt((piece.stop - piece.start) / 12))
        reach = np.outer(np.linalg.norm(asked[:, rest], axis=1), np.linalg.norm(turned[:, rest], axis=1))
        left = float(((base[:, np.newaxis] + part + error + reach) >= taus[:, np.newaxis]).mean())
        cost += left * (prices.left + prices.piece if at == 0 else prices.piece)
        if left * len(judged) < 1:
            break
    return cost


def _nobody_asks() -> None:
    """No check."""
