"""Metrics of whole lists, against examples worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.lists import accuracy, best, coverage, diversity, gini, popularity


def test_best_takes_the_lower_index_first_and_ends_where_candidates_do() -> None:
    scores = np.array([[1.0, 3.0, 3.0, -np.inf], [5.0, 4.0, 3.0, 2.0]])
    exclude = np.array([[False] * 4, [True, False, True, False]])
    assert best(scores, 3).tolist() == [[1, 2, 0], [0, 1, 2]]
    assert best(scores, 3, exclude=exclude).tolist() == [[1, 2, 0], [1, 3, -1]]
    assert best(scores, 6, exclude=exclude).tolist() == [[1, 2, 0, -1, -1, -1], [1, 3, -1, -1, -1, -1]]


@pytest.mark.parametrize(
    ("scores", "k", "field"),
    [(np.zeros((1, 2)), 0, "k"), (np.array([[np.nan, 0]]), 1, "scores"), (np.zeros(2), 1, "scores")],
)
def test_best_refuses(scores: NDArray[np.float64], k: int, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        best(scores, k)
    assert caught.value.field == field


def test_accuracy_by_hand() -> None:
    """Three relevant items in a list of four: places 1 and 3 hit, one is missed. Another user's list ends early."""
    relevant = np.zeros((2, 8), bool)
    relevant[0, [0, 2, 7]] = True
    relevant[1, [5]] = True
    made = accuracy(np.array([[0, 1, 2, 3], [4, 5, -1, -1]]), relevant)
    assert made["precision"].tolist() == [2 / 4, 1 / 4]
    assert made["recall"].tolist() == [2 / 3, 1.0]
    assert made["map"].tolist() == pytest.approx([(1 / 1 + 2 / 3) / 3, (1 / 2) / 1])
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert made["ndcg"].tolist() == pytest.approx([(1 + 1 / math.log2(4)) / ideal, 1 / math.log2(3)])


def test_two_maps_differ_where_more_is_relevant_than_fits() -> None:
    relevant = np.ones((1, 5), bool)
    made = accuracy(np.array([[3, 1]]), relevant)
    assert made["map"].tolist() == [2 / 5]
    assert made["map_at_k"].tolist() == made["ndcg"].tolist() == made["precision"].tolist() == [1.0]
    assert made["recall"].tolist() == [2 / 5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_accuracy_lies_between_nothing_and_all(seed: int, k: int, items: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(4, size=(5, items)).astype(np.float64)
    relevant = random.random((5, items)) < 0.4
    relevant[np.arange(5), random.integers(items, size=5)] = True
    made = accuracy(best(scores, k), relevant)
    perfect = accuracy(best(relevant.astype(np.float64), k), relevant)
    for name, values in made.items():
        assert np.all((values >= 0) & (values <= perfect[name] + 1e-12)), name
    assert perfect["ndcg"] == pytest.approx(np.ones(5))
    assert perfect["map_at_k"] == pytest.approx(np.ones(5))


def test_users_with_nothing_to_find_are_told() -> None:
    relevant = np.array([[True, False], [False, False]])
    with pytest.raises(InvalidInput, match="nothing is relevant for user 1: leave out"):
        accuracy(np.array([[0], [0]]), relevant)


@pytest.mark.parametrize("lists", [[[2]], [[-2]], [0]])
def test_lists_of_what_is_no_item_are_told(lists: list[list[int]]) -> None:
    with pytest.raises(InvalidInput):
        accuracy(np.array(lists), np.ones((1, 2), bool))


def test_lists_of_other_users_are_told() -> None:
    with pytest.raises(InvalidInput, match="there are 2 lists and 1 users"):
        accuracy(np.array([[0], [1]]), np.ones((1, 2), bool))


def test_coverage() -> None:
    assert coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5
    assert coverage(np.array([[-1, -1]]), 4) == 0.0


def test_diversity_by_hand() -> None:
    vectors = np.array([[2.0, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    half = math.sqrt(0.5)
    lists = np.array([[0, 1, 2], [0, 0, -1], [1, -1, -1], [0, 3, -1]])
    expected = [(1 + (1 - half) + (1 - half)) / 3, 0.0, 0.0, 1.0]
    assert diversity(lists, vectors).tolist() == pytest.approx(expected, abs=1e-6)


def test_popularity_and_gini_by_hand() -> None:
    counts = np.array([10, 5, 0])
    assert popularity(np.array([[0, 1], [2, -1], [-1, -1]]), counts, 10).tolist() == [0.75, 0.0, 0.0]
    assert gini(np.array([[0, 1, 2]]), 3) == 0.0
    assert gini(np.array([[0], [0], [0]]), 3) == pytest.approx(2 / 3)
    assert gini(np.array([[-1]]), 3) == 0.0
