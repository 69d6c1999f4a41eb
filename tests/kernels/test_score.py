"""The fast scores stay within their proven bound; the exact ones do not depend on where a pair lies."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.kernels.score import exact_score, largest_norm, rounding, score, wide_rounding, wide_score


def true_products(queries: np.ndarray, rows: np.ndarray) -> list[list[Fraction]]:
    """Inner products without any rounding."""
    wide = [[Fraction(x) for x in row] for row in rows.tolist()]
    return [[sum(map(Fraction.__mul__, map(Fraction, q), r), Fraction()) for r in wide] for q in queries.tolist()]


@settings(max_examples=30, deadline=None)
@given(
    dimensions=st.sampled_from([1, 3, 31, 256]),
    exponent=st.sampled_from([-74, -60, 0, 58]),
    seed=st.integers(0, 2**32 - 1),
)
def test_stays_within_the_bound(dimensions: int, exponent: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    queries = (random.standard_normal((2, dimensions)) * 2.0**exponent).astype(np.float32)
    rows = (random.standard_normal((5, dimensions)) * 2.0**exponent).astype(np.float32)
    made = score(queries, rows)
    assert made.shape == (2, 5)
    assert made.dtype == np.float32
    bound = rounding(dimensions, largest_norm(queries) * largest_norm(rows))
    for fast, exact in zip(made.tolist(), true_products(queries, rows), strict=True):
        for one, true in zip(fast, exact, strict=True):
            assert abs(Fraction(one) - true) <= Fraction(bound)


def test_the_bound_is_of_use() -> None:
    assert rounding(1280, 1.0) < 1e-4
    assert rounding(1280, 2.0**127) == np.inf
    assert rounding(2**24, 1.0) == np.inf
    assert rounding(8, float("nan")) == np.inf


@pytest.mark.parametrize("dimensions", [1, 2, 7, 8, 9, 31, 127, 128, 129, 300, 1280])
def test_equal_pairs_score_equally_wherever_they_lie(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    query = random.standard_normal((1, dimensions)).astype(np.float32)
    row = random.standard_normal((1, dimensions)).astype(np.float32)
    alone = exact_score(query, row)[0]
    for count in (1, 2, 3, 7, 8, 65):
        assert set(exact_score(query.repeat(count, 0), row.repeat(count, 0))) == {alone}
    padded = np.zeros((9, dimensions + 5), np.float32)[2:, 3 : 3 + dimensions]  # neither aligned nor contiguous
    padded[:] = row
    assert set(exact_score(query.repeat(7, 0), padded)) == {alone}


def test_zero_is_never_negative() -> None:
    zero = exact_score(np.array([[-1.0]], np.float32), np.array([[0.0]], np.float32))
    assert not np.signbit(zero[0])


def test_largest_norm() -> None:
    vectors = np.zeros((2000, 2), np.float32)
    vectors[1500] = 3e38, -3e38
    assert largest_norm(vectors, block=7) == pytest.approx(2**0.5 * 3e38, rel=1e-6)
    assert largest_norm(vectors[:0]) == 0
    vectors[3, 0] = np.nan
    assert np.isnan(largest_norm(vectors))


@pytest.mark.parametrize(
    ("queries", "rows", "message"),
    [
        (np.ones((1, 2), np.float32), np.ones((1, 3), np.float32), "2 dimensions, rows 3"),
        (np.ones(2, np.float32), np.ones((1, 2), np.float32), "queries must be"),
        (np.ones((1, 2), np.float32), np.ones((1, 2)), "rows must be"),
        (np.ones((1, 0), np.float32), np.ones((1, 0), np.float32), "queries must be"),
    ],
)
def test_refuses_other_shapes(queries: np.ndarray, rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(queries, rows)


@pytest.mark.parametrize("dimensions", [1, 64, 1280, 5000])
def test_the_float64_product_is_within_its_bound(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    queries, rows = (random.standard_normal((30, dimensions)).astype(np.float32) for _ in "ab")
    fast = wide_score(queries.astype(np.float64), rows.astype(np.float64))
    exact = np.array([exact_score(np.broadcast_to(query, rows.shape), rows) for query in queries])
    bound = wide_rounding(dimensions, largest_norm(queries) * largest_norm(rows))
    assert np.abs(fast - exact).max() <= bound < 1e-11 * dimensions
