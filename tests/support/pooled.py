"""The definitions of pooling.py in float64, written down a second time, and vectors to try them on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd, Pooling


@dataclass
class Case:
    """Vectors in segments; see pool.pool."""

    vectors: NDArray[np.float32]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None


def kinds(dimensions: int, seed: int = 11) -> list[Pooling]:
    """One of each kind."""
    query = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return [Mean(), Max(), GeM(), Attention(query, temperature=2.0), MeanStd()]


KINDS = kinds(33)


def cases(dimensions: int, lengths: tuple[int, ...] = (1, 2, 31, 64, 65, 200, 3)) -> Iterator[Case]:
    """Segments of these lengths: plain, weighted, masked, and both, with NaN in what does not count."""
    random = np.random.default_rng(dimensions)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    count = int(offsets[-1])
    vectors = random.standard_normal((count, dimensions)).astype(np.float32)
    yield Case(vectors, offsets)
    weights = random.random(count, np.float32) * random.integers(0, 2, count).astype(np.float32)
    mask = random.random(count) < 0.6
    weights[offsets[:-1]] = 0.5  # something counts in every segment
    mask[offsets[:-1]] = True
    for weighted, masked in ((True, False), (False, True), (True, True)):
        case = Case(vectors.copy(), offsets, weights if weighted else None, mask if masked else None)
        case.vectors[counts(case) == 0] = np.nan  # is not looked at
        yield case


def counts(case: Case) -> NDArray[np.float64]:
    """(n,): the weight of each vector, 0 where it does not count."""
    made = np.ones(len(case.vectors)) if case.weights is None else case.weights.astype(np.float64)
    return made if case.mask is None else made * case.mask


def direct(case: Case, kind: Pooling) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each segment pooled, not normalised, and the share of each vector."""
    shares = counts(case)
    rows = []
    for start, stop in pairwise(case.offsets.tolist()):
        used = start + np.flatnonzero(shares[start:stop])
        x, share = case.vectors[used].astype(np.float64), shares[used]
        if isinstance(kind, Attention):
            score = x @ kind.query.astype(np.float64) / kind.temperature
            share = share * np.exp(score - score.max())
        share = share / share.sum()
        shares[used] = share
        mean = share @ x
        if isinstance(kind, Max):
            rows.append(x.max(axis=0))
        elif isinstance(kind, GeM):
            rows.append((share @ np.maximum(x, kind.floor) ** kind.p) ** (1 / kind.p))
        elif isinstance(kind, MeanStd):
            rows.append(np.concatenate([mean, np.sqrt(share @ (x - mean) ** 2)]))
        else:
            rows.append(mean)
    return np.array(rows), shares
