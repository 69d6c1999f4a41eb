"""pool against an exact mean, and every way in which there is none."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.kernels import pool as module
from matchcut.kernels.pool import attend, pool
from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd, Pooling
from support.pooled import KINDS, cases, direct


def oracle(vectors: np.ndarray, weights: np.ndarray) -> list[float]:
    """The weighted mean at unit length, each sum exactly rounded."""
    total = math.fsum(weights)
    columns = vectors.astype(np.float64).T.tolist()
    mean = [math.fsum(w * x for w, x in zip(weights.tolist(), column, strict=True)) / total for column in columns]
    norm = math.sqrt(math.fsum(x * x for x in mean))
    return [x / norm for x in mean]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    dimensions=st.sampled_from([1, 2, 31, 130]),
    seed=st.integers(0, 2**32 - 1),
    weighted=st.booleans(),
    masked=st.booleans(),
)
def test_is_the_mean_of_what_counts(
    lengths: list[int], dimensions: int, seed: int, weighted: bool, masked: bool
) -> None:
    random = np.random.default_rng(seed)
    count = sum(lengths)
    vectors = (random.random((count, dimensions)) + 0.1).astype(np.float32)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    weights = random.integers(0, 4, count).astype(np.float32) if weighted else None
    mask = random.random(count) < 0.7 if masked else None
    counts = np.ones(count) if weights is None else weights.astype(np.float64)
    counts = counts if mask is None else counts * mask
    for start in offsets[:-1]:  # something counts in every segment
        counts[start] = 1
        if weights is not None:
            weights[start] = 1
        if mask is not None:
            mask[start] = True
    unseen = counts == 0
    vectors[unseen] = np.nan  # what does not count is not looked at
    made = pool(vectors, offsets, weights=weights, mask=mask)
    assert made.dtype == np.float32
    assert made.shape == (len(lengths), dimensions)
    for segment, (start, stop) in enumerate(pairwise(offsets.tolist())):
        used = np.flatnonzero(counts[start:stop]) + start
        np.testing.assert_allclose(made[segment], oracle(vectors[used], counts[used]), rtol=1e-6)


def test_accumulates_in_float64() -> None:
    vectors = np.full((100_000, 2), 0.1, np.float32)
    vectors[:, 1] = 1
    mean = pool(vectors, np.array([0, len(vectors)]), normalise=False)
    assert mean.tolist() == [[float(np.float32(0.1)), 1.0]]


def test_a_segment_longer_than_a_block_is_pooled_whole() -> None:
    count = 2 * module._BLOCK + 3
    vectors = np.random.default_rng(1).random((count, 3), np.float32)
    weights = np.arange(count, dtype=np.float32)
    made = pool(vectors, np.array([0, count]), weights=weights)
    np.testing.assert_allclose(made[0], oracle(vectors, weights), rtol=1e-6)


def test_without_normalisation_a_zero_mean_is_an_answer() -> None:
    vectors = np.array([[1, 2], [-1, -2]], np.float32)
    assert pool(vectors, np.array([0, 2]), normalise=False).tolist() == [[0.0, 0.0]]


def test_huge_and_tiny_numbers_keep_their_direction() -> None:
    huge = np.array([[3e38, 0], [0, 3e38]], np.float32)
    tiny = np.array([[1e-45, 0], [0, 1e-45]], np.float32)
    for vectors, weight in ((huge, 3e38), (huge, 1e-45), (tiny, 1e-45), (tiny, 3e38)):
        made = pool(vectors, np.array([0, 2]), weights=np.full(2, weight, np.float32))
        np.testing.assert_allclose(made, [[0.5**0.5] * 2], rtol=1e-6)


def test_no_segment_gives_none() -> None:
    assert pool(np.empty((0, 5), np.float32), np.array([0])).shape == (0, 5)


ONES = np.ones((4, 2), np.float32)
TWO = np.array([0, 2, 4])


@pytest.mark.parametrize(
    ("vectors", "offsets", "options", "message"),
    [
        (ONES, np.array([0, 4, 4]), {}, "segment 1 has no vector"),
        (ONES, TWO, {"mask": np.array([True, True, False, False])}, "segment 1 has no vector"),
        (ONES, TWO, {"weights": np.array([0, 0, 1, 1], np.float32)}, "segment 0 has no vector"),
        (np.array([[1], [1], [1], [-1]], np.float32), TWO, {}, "segment 1 has the mean zero"),
        (np.array([[1], [np.nan]], np.float32), np.array([0, 1, 2]), {}, "segment 1 holds NaN"),
        (np.array([[np.inf], [-np.inf]], np.float32), np.array([0, 2]), {}, "segment 0 holds NaN or inf"),
        (ONES, np.array([0, 3]), {}, "from 0 to the 4"),
        (ONES, np.array([1, 4]), {}, "from 0 to the 4"),
        (ONES, np.array([0, 3, 2, 4]), {}, "not fall"),
        (ONES, np.array([], np.int64), {}, "offsets must be"),
        (ONES, np.array([0, 4], np.float64), {}, "offsets must be"),
        (ONES.astype(np.float64), TWO, {}, "vectors must be"),
        (ONES[0], TWO, {}, "vectors must be"),
        (ONES, TWO, {"weights": np.ones(3, np.float32)}, "weights must be"),
        (ONES, TWO, {"weights": np.array([1, -1, 1, 1], np.float32)}, "not negative"),
        (ONES, TWO, {"weights": np.array([1, np.nan, 1, 1], np.float32)}, "finite"),
        (ONES, TWO, {"mask": np.ones(4, np.int8)}, "mask must be"),
        (ONES, TWO, {"kind": Attention(np.ones(3, np.float32))}, "query must have the vectors' 2 dimensions, not 3"),
        (0 * ONES, TWO, {"kind": Max()}, "segment 0 has only zeros as its result, which has no direction"),
    ],
)
def test_says_what_is_wrong(vectors: np.ndarray, offsets: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(vectors, offsets, **options)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_its_definition(kind: Pooling) -> None:
    for case in cases(33):
        made = pool(case.vectors, case.offsets, weights=case.weights, mask=case.mask, kind=kind, normalise=False)
        right, shares = direct(case, kind)
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, right, rtol=1e-6, atol=1e-7)
        unit = pool(case.vectors, case.offsets, weights=case.weights, mask=case.mask, kind=kind)
        np.testing.assert_allclose(unit, right / np.linalg.norm(right, axis=1, keepdims=True), rtol=1e-6, atol=1e-7)
        if isinstance(kind, Attention):
            both = attend(case.vectors, case.offsets, kind, weights=case.weights, mask=case.mask)
            np.testing.assert_array_equal(both[0], unit)
            np.testing.assert_allclose(both[1], shares, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_by_every_kind(kind: Pooling, value: float) -> None:
    vectors = np.ones((6, 33), np.float32)
    vectors[4, 3] = value
    with pytest.raises(ValueError, match="segment 1 holds NaN or infinity"):
        pool(vectors, np.array([0, 3, 6]), kind=kind)
    mask = np.arange(6) != 4
    assert np.isfinite(pool(vectors, np.array([0, 3, 6]), kind=kind, mask=mask)).all()


@pytest.mark.parametrize("kind", [Max(), GeM(), Attention(np.ones(2, np.float32)), MeanStd()])
def test_every_kind_keeps_the_direction_of_huge_numbers(kind: Pooling) -> None:
    vectors = np.array([[3e38, 0], [0, 3e38]], np.float32)
    np.testing.assert_allclose(
        pool(vectors, np.array([0, 2]), kind=kind)[0, :2], [pool(vectors, np.array([0, 2]), kind=kind)[0, 0]] * 2
    )


def test_gem_goes_from_the_mean_to_the_maximum() -> None:
    vectors = np.random.default_rng(5).random((9, 4), np.float32) + np.float32(0.1)
    whole = np.array([0, 9])
    one, many = (pool(vectors, whole, normalise=False, kind=GeM(p=p)) for p in (1.0, 2000.0))
    np.testing.assert_allclose(one, pool(vectors, whole, normalise=False), rtol=1e-6)
    np.testing.assert_allclose(many, pool(vectors, whole, normalise=False, kind=Max()), rtol=2e-3)


def test_attention_goes_from_the_mean_to_the_best() -> None:
    vectors = np.random.default_rng(5).standard_normal((2 * module._BLOCK + 5, 4)).astype(np.float32)
    whole = np.array([0, len(vectors)])
    hot, cold = (attend(vectors, whole, Attention(vectors[7], t), normalise=False) for t in (1e9, 1e-4))
    np.testing.assert_allclose(hot[0], pool(vectors, whole, normalise=False), atol=1e-6)
    np.testing.assert_allclose(hot[1], 1 / len(vectors), rtol=1e-6)
    best = int((vectors @ vectors[7]).argmax())
    assert cold[1].argmax() == best
    np.testing.assert_allclose(cold[0][0], vectors[best], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeM(p=0), "p must be"),
        (lambda: GeM(p=math.inf), "p must be"),
        (lambda: GeM(floor=0), "floor must be"),
        (lambda: GeM(floor=math.nan), "floor must be"),
        (lambda: Attention(np.ones((1, 2), np.float32)), "query must be"),
        (lambda: Attention(cast(Any, np.ones(2))), "query must be"),
        (lambda: Attention(np.array([1, np.nan], np.float32)), "query must be"),
        (lambda: Attention(np.ones(2, np.float32), temperature=0), "temperature must be"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_mean_is_what_is_asked_for_where_nothing_is_said() -> None:
    np.testing.assert_array_equal(pool(ONES, TWO), pool(ONES, TWO, kind=Mean()))
