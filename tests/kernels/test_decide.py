"""The parts of the last word: who leads, and which rows are one kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.kernels import decide
from matchcut.kernels.decide import Leaders, first_of_each


@settings(max_examples=100, deadline=None)
@given(
    k=st.sampled_from([1, 3, 30, 10**9]),
    parts=st.lists(st.integers(0, 40), max_size=6),
    minimum=st.sampled_from([None, 0.0, 2.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_leaders_are_those_of_all_pairs_at_once(k: int, parts: list[int], minimum: float | None, seed: int) -> None:
    random = np.random.default_rng(seed)
    leaders, seen = Leaders(k, minimum), []
    for count in parts:
        scores = random.integers(-4, 5, count).astype(np.float64)
        groups, rows, queries = random.integers(0, 25, (3, count))
        leaders.add(scores, groups, rows, queries)
        seen += list(zip((-scores).tolist(), rows.tolist(), queries.tolist(), groups.tolist(), strict=True))
    best: dict[int, tuple[float, int, int, int]] = {}
    for pair in sorted(seen):
        if minimum is None or -pair[0] >= minimum:
            best.setdefault(pair[3], pair)
    wanted = list(best.values())[:k]
    scores, groups, rows, queries = leaders.settle()
    assert [-score for score, *_ in wanted] == scores.tolist()
    ranks = list(zip(rows.tolist(), queries.tolist(), strict=True))
    assert [(row, query) for _, row, query, _ in wanted] == ranks
    if len({pair[:3] for pair in seen}) == len(seen):
        assert [group for *_, group in wanted] == groups.tolist()
    assert leaders.bar == (-wanted[-1][0] if len(wanted) == k else -np.inf if minimum is None else minimum)


def test_few_pairs_wait() -> None:
    leaders = Leaders(10**6, None)
    one = np.zeros(1000, np.int64)
    for at in range(100):
        leaders.add(np.full(1000, float(at)), one, one + at, one)
        assert sum(len(scores) for scores, *_ in leaders._seen) <= decide._TALL + 1000
    assert leaders.settle()[0].tolist() == [99.0]


@pytest.mark.parametrize("dimensions", [1, 2, 7, 1280])
@pytest.mark.parametrize("kinds", [1, 5, 300])
def test_the_first_of_each_kind(dimensions: int, kinds: int) -> None:
    random = np.random.default_rng([dimensions, kinds])
    rows = random.standard_normal((kinds, dimensions)).astype(np.float32)[random.integers(0, kinds, 200)]
    first, which = first_of_each(rows)
    _, expected = np.unique(rows, axis=0, return_index=True)
    assert first.tolist() == sorted(expected.tolist())
    np.testing.assert_array_equal(rows[first][which], rows)


def test_no_rows_are_of_no_kind() -> None:
    first, which = first_of_each(np.empty((0, 3), np.float32))
    assert len(first) == len(which) == 0


def test_a_hash_that_two_kinds_share_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bits equal modulo 2**32 once multiplied: 2**31 in one component or in another."""
    rows = np.array([[0x80000000, 0], [0, 0x80000000], [0x80000000, 0], [0, 0x80000000]], np.uint32).view(np.float32)
    monkeypatch.setattr(decide, "_WIDE", 2)  # one row at a time
    first, which = first_of_each(rows)
    assert first.tolist() == [0, 1, 3]
    assert which.tolist() == [0, 1, 0, 2]


def test_the_sign_of_zero_makes_a_kind_of_its_own() -> None:
    first, _ = first_of_each(np.array([[0.0], [-0.0], [0.0]], np.float32))
    assert first.tolist() == [0, 1]
