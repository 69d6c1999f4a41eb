"""No copy is on two sides, each class is on each side, and the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput
from matchcut.server.training.image.splitting import Split, split


def parts_of(found: Split) -> list[set[int]]:
    return [set(part.tolist()) for part in (found.train, found.validation, found.test)]


def plain(count: int, classes: int = 2) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]:
    return np.arange(count) % classes, np.arange(count)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(1, 6), min_size=6, max_size=40),
    seed=st.integers(0, 2**31),
    dropped=st.sets(st.integers(0, 20), max_size=2),
)
def test_nothing_leaks(groups: list[int], seed: int, dropped: set[int]) -> None:
    group_of = np.repeat(np.arange(len(groups)), groups)  # by the size of each group
    labels = group_of % 2
    keep = ~np.isin(np.arange(len(labels)), list(dropped))
    left = [len({int(group) for group in group_of[keep & (labels == label)]}) for label in (0, 1)]
    if min(left) < 3:
        with pytest.raises(InvalidInput, match="pictures that differ"):
            split(labels, group_of, keep, ("a", "b"), seed=seed)
        return
    found = split(labels, group_of, keep, ("a", "b"), seed=seed)
    sides = parts_of(found)
    assert set.union(*sides) == set(np.flatnonzero(keep).tolist())
    assert sum(map(len, sides)) == int(keep.sum())
    for a in range(3):
        assert {0, 1} == {int(labels[row]) for row in sides[a]}
        for b in range(a):
            assert not {int(group_of[row]) for row in sides[a]} & {int(group_of[row]) for row in sides[b]}


def test_shares_are_those_of_each_class() -> None:
    labels, groups = plain(400, 4)
    found = split(labels, groups, np.ones(400, bool), tuple("abcd"), seed=3, validation=0.2, test=0.1)
    for part, count in ((found.train, 70), (found.validation, 20), (found.test, 10)):
        assert np.bincount(labels[part]).tolist() == [count] * 4
        assert (np.diff(part) > 0).all()


def test_the_seed_decides() -> None:
    labels, groups = plain(60)
    keep = np.ones(60, bool)
    one, again, other = (split(labels, groups, keep, ("a", "b"), seed=seed) for seed in (1, 1, 2))
    assert parts_of(one) == parts_of(again) != parts_of(other)


def test_a_group_of_two_classes_stays_together() -> None:
    labels, groups = plain(20)
    groups[3] = groups[0]  # a near copy of the other class
    for seed in range(20):
        found = parts_of(split(labels, groups, np.ones(20, bool), ("a", "b"), seed=seed))
        assert any({0, 3} <= side for side in found)


def test_three_large_groups_are_one_for_each_side() -> None:
    labels = np.repeat([0, 0, 0, 1, 1, 1], 10)
    found = split(labels, np.repeat(np.arange(6), 10), np.ones(60, bool), ("a", "b"), seed=0)
    assert [len(side) for side in parts_of(found)] == [20, 20, 20]


def test_a_class_with_too_few_is_named() -> None:
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 4])
    with pytest.raises(
        InvalidInput, match=r"'dog' has 2 pictures that differ \(1 of 3 are .* to another, see --near\); it"
    ) as caught:
        split(labels, groups, np.ones(6, bool), ("cat", "dog"), seed=0)
    with pytest.raises(InvalidInput, match="'dog' has 2 pictures that differ; it takes three"):
        split(labels[:5], groups[:5], np.ones(5, bool), ("cat", "dog"), seed=0)
    assert caught.value.field == "data"


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.1, 1.0), (0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)])
def test_shares_that_leave_nothing(validation: float, test: float) -> None:
    labels, groups = plain(60)
    with pytest.raises(InvalidInput, match=r"must be above 0 and below 0\.9 together"):
        split(labels, groups, np.ones(60, bool), ("a", "b"), seed=0, validation=validation, test=test)
