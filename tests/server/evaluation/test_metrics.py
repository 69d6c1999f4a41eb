"""Ranks, what is counted of them, and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import TIES, Ties, at_k, difference, interval, ranks

#                    tied with the target: 0, 2, 4
SCORES = np.array([[0.5, 0.9, 0.5, 0.1, 0.5, 0.7]])
TARGET = np.array([2])


@pytest.mark.parametrize(("ties", "rank"), [("expected", 4.0), ("lower", 4.0), ("worst", 5.0)])
def test_ranks_by_hand(ties: Ties, rank: float) -> None:
    assert ranks(SCORES, TARGET, ties=ties).tolist() == [rank]


@pytest.mark.parametrize(("ties", "rank"), [("expected", 2.5), ("lower", 2.0), ("worst", 3.0)])
def test_excluded_items_are_no_rivals(ties: Ties, rank: float) -> None:
    exclude = np.array([[True, True, False, False, False, False]])
    assert ranks(SCORES, TARGET, exclude=exclude, ties=ties).tolist() == [rank]


def test_a_target_that_is_excluded_is_never_found() -> None:
    exclude = np.array([[False, False, True, False, False, False]])
    for ties in TIES:
        found = ranks(SCORES, TARGET, exclude=exclude, ties=ties)
        assert found.tolist() == [np.inf]
        assert {name: values.tolist() for name, values in at_k(found, 10).items()} == {
            "recall": [0.0],
            "mrr": [0.0],
            "ndcg": [0.0],
        }


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_expected_is_the_mean_over_random_orders_of_the_tied(seed: int, items: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(levels, size=(1, items)).astype(np.float32)
    target = np.array([random.integers(items)])
    exclude = random.random((1, items)) < 0.3
    exclude[0, target] = False
    lower, worst = (ranks(scores, target, exclude=exclude, ties=ties)[0] for ties in ("lower", "worst"))
    # The lower index first, once in the given order of items and once in the reverse one: the two are each other's
    # mirror among the tied, so that their mean is the expected rank.
    mirrored = ranks(scores[:, ::-1], items - 1 - target, exclude=exclude[:, ::-1], ties="lower")[0]
    assert ranks(scores, target, exclude=exclude)[0] == (lower + mirrored) / 2
    candidates = np.flatnonzero(~exclude[0])
    order = candidates[np.argsort(-scores[0, candidates], kind="stable")]
    assert lower == order.tolist().index(target[0]) + 1
    assert lower <= worst <= len(candidates)


def test_minus_infinity_is_a_score_and_nan_is_not() -> None:
    assert ranks(np.array([[-np.inf, 1.0]]), np.array([0])).tolist() == [2.0]
    with pytest.raises(InvalidInput, match="NaN, which has no rank"):
        ranks(np.array([[np.nan, 1.0]]), np.array([1]))


@pytest.mark.parametrize(
    ("targets", "exclude", "ties", "field"),
    [
        ([6], None, "expected", "targets"),
        ([-1], None, "expected", "targets"),
        ([0, 1], None, "expected", "targets"),
        ([0], np.zeros((1, 5), bool), "expected", "exclude"),
        ([0], None, "best", "ties"),
    ],
)
def test_what_has_no_rank_is_told(
    targets: list[int], exclude: NDArray[np.bool_] | None, ties: Ties, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ranks(SCORES, np.array(targets), exclude=exclude, ties=ties)
    assert caught.value.field == field


def test_no_users_have_no_ranks() -> None:
    assert ranks(np.empty((0, 3)), np.empty(0, np.int64)).tolist() == []


def test_at_k_by_hand() -> None:
    found = at_k(np.array([1.0, 3.0, 10.0, 11.0, 2.5]), 10)
    assert found["recall"].tolist() == [1, 1, 1, 0, 1]
    assert found["mrr"].tolist() == pytest.approx([1, 1 / 3, 0.1, 0, 0.4])
    assert found["ndcg"].tolist() == pytest.approx([1, 0.5, 0.28906482631788, 0, 0.55329475567])


@pytest.mark.parametrize(("values", "k"), [([1.0], 0), ([0.5], 10), ([np.nan], 10)])
def test_at_k_refuses(values: list[float], k: int) -> None:
    with pytest.raises(InvalidInput):
        at_k(np.array(values), k)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of 100 users who are found with chance 0.3, about 190 have 0.3 in their interval."""
    random = np.random.default_rng(9)
    covered = 0
    for seed in range(200):
        mean, low, high = interval((random.random(100) < 0.3).astype(np.float64), seed=seed)
        assert low <= mean <= high
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_the_interval_is_the_seeds_and_narrows_with_the_level() -> None:
    values = np.random.default_rng(1).random(50)
    assert interval(values, seed=3) == interval(values, seed=3)
    assert interval(values, seed=3) != interval(values, seed=4)
    wide, narrow = interval(values, seed=3, level=0.99), interval(values, seed=3, level=0.5)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_many_values_have_the_normal_interval_which_is_the_bootstraps() -> None:
    values = np.random.default_rng(2).random(20_001)
    normal, bootstrap = interval(values, seed=1), interval(values[:-1], seed=1)
    assert normal.low != bootstrap.low
    assert normal == pytest.approx(bootstrap, abs=3e-4)


def test_one_user_has_an_interval_of_no_width() -> None:
    assert interval(np.array([0.5]), seed=1) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "level", "field"),
    [([], 0.95, "values"), ([np.inf], 0.95, "values"), ([1.0], 1.0, "level"), ([1.0], 0.0, "level")],
)
def test_what_has_no_interval_is_told(values: list[float], level: float, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        interval(np.array(values), seed=1, level=level)
    assert caught.value.field == field


def test_the_difference_of_the_same_users_is_narrower_than_that_of_any() -> None:
    random = np.random.default_rng(5)
    hard = random.random(300)
    ours, theirs = hard + 0.02 + 0.01 * random.random(300), hard
    paired = difference(ours, theirs, seed=1)
    assert 0.02 < paired.low < paired.high < 0.03
    assert interval(ours, seed=1).low < interval(theirs, seed=1).high
    with pytest.raises(InvalidInput, match="not of the same users"):
        difference(ours, theirs[1:], seed=1)
