"""What a user wants as one vector, and what is nearest to an item."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matchcut.server.blend.query import AGAINST, combine, nearest, normalised

X = np.array([1, 0, 0], np.float32)
Y = np.array([0, 1, 0], np.float32)
Z = np.array([0, 0, 1], np.float32)
HALF = 0.5**0.5


def given_back(made: NDArray[np.float32] | None) -> list[float]:
    assert made is not None
    assert made.dtype == np.float32
    listed: list[float] = made.tolist()
    return listed


def test_history_and_current_interest_are_weighed() -> None:
    assert given_back(combine(X, Y, None, current_weight=0.5)) == pytest.approx([HALF, HALF, 0])
    assert given_back(combine(X, Y, None, current_weight=0)) == [1, 0, 0]
    assert given_back(combine(X, Y, None, current_weight=1)) == [0, 1, 0]
    assert given_back(combine(X, Y, None, current_weight=0.75)) == pytest.approx([0.25 / 0.625**0.5, 0.9486833, 0])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_what_is_there_alone_counts_whole(weight: float) -> None:
    assert given_back(combine(X, None, None, current_weight=weight)) == [1, 0, 0]
    assert given_back(combine(None, Y, None, current_weight=weight)) == [0, 1, 0]


def test_what_was_disliked_pushes_away() -> None:
    length = (1 + AGAINST**2) ** 0.5
    assert given_back(combine(X, None, Z, current_weight=0.5)) == pytest.approx([1 / length, 0, -AGAINST / length])


def test_nothing_is_wanted() -> None:
    assert combine(None, None, None, current_weight=0.5) is None
    assert combine(None, None, X, current_weight=0.5) is None
    assert combine(X, -X, None, current_weight=0.5) is None


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_query_is_of_unit_length(seed: int, weight: float, d: int) -> None:
    random = np.random.default_rng(seed)
    three = normalised(random.normal(size=(3, d)).astype(np.float32))
    made = combine(three[0], three[1], three[2], current_weight=weight)
    assert made is None or float(np.linalg.norm(made)) == pytest.approx(1, abs=1e-6)


def test_nearest_by_cosine_and_the_first_of_equals() -> None:
    liked = np.array([[0, 3, 0], [2, 0, 0], [5, 0, 0]], np.float32)
    vectors = np.array([[1, 0, 0], [0, 2, 0], [-1, 0, 0], [0, 0, 0]], np.float32)
    assert nearest(vectors, ["y", "x", "X"], liked) == [("x", 1.0), ("y", 1.0), ("", 0.0), ("", 0.0)]


def test_nearest_without_a_history_or_without_items() -> None:
    assert nearest(np.ones((2, 3), np.float32), [], np.empty((0, 3), np.float32)) == [("", 0.0), ("", 0.0)]
    assert nearest(np.empty((0, 3), np.float32), ["x"], X[np.newaxis]) == []
