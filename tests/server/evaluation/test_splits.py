"""Interactions as arrays, and what of them is learnt from and tested with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.splits import chronological, leave_one_out, sampled, since, stratified


def made_up(seed: int, users: int, n: int) -> Interactions:
    random = np.random.default_rng(seed)
    return Interactions(
        random.integers(users, size=n),
        random.integers(5, size=n),
        random.random(n),
        random.integers(4, size=n),
        tuple(f"u{user}" for user in range(users)),
        tuple("abcde"),
    )


def test_interactions(few: Interactions) -> None:
    assert (len(few), few.shape) == (7, (3, 4))
    assert few.table().tolist() == [[True, True, True, False], [True, True, False, False], [False, False, True, False]]
    assert few.counts().tolist() == [2, 2, 2, 0]
    assert [rows.tolist() for rows in few.by_user()] == [[0, 2, 3, 6], [1, 4], [5]]
    part = few.take(np.array([4, 0]))
    assert (part.users.tolist(), part.weights.tolist(), part.shape) == ([1, 0], [5, 1], (3, 4))


def test_users_without_an_interaction_are_there(few: Interactions) -> None:
    assert [rows.tolist() for rows in few.take(np.array([1])).by_user()] == [[], [0], []]
    nothing = few.take(np.array([], np.int64))
    assert [rows.tolist() for rows in nothing.by_user()] == [[], [], []]
    assert nothing.counts().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("users", [0, 3]),
        ("users", [0, -1]),
        ("items", [2, 0]),
        ("weights", [1.0, np.nan]),
        ("times", [1]),
        ("weights", [1.0]),
    ],
)
def test_interactions_of_nobody_are_told(field: str, values: list[float]) -> None:
    good = {"users": [0, 1], "items": [0, 1], "weights": [1.0, 1.0], "times": [1, 2]}
    arrays = {name: np.array(each) for name, each in (good | {field: values}).items()}
    with pytest.raises(InvalidInput) as caught:
        Interactions(**arrays, user_ids=("u", "v", "w"), item_ids=("a", "b"))
    assert caught.value.field == field


def test_by_time_and_then_as_recorded(few: Interactions) -> None:
    assert chronological(few).tolist() == [2, 3, 0, 6, 4, 1, 5]
    orders = {tuple(chronological(few, seed=seed).tolist()) for seed in range(20)}
    assert orders == {(2, 3, 0, 6, 4, 1, 5), (3, 2, 0, 6, 4, 1, 5)}
    assert chronological(few, seed=5).tolist() == chronological(few, seed=5).tolist()


def test_leave_one_out_by_hand(few: Interactions) -> None:
    split = leave_one_out(few)
    assert split.test.tolist() == [6, 1, -1]
    assert split.validation.tolist() == [0, -1, -1]
    assert split.train.tolist() == [2, 3, 4, 5]
    assert split.before_test().tolist() == [2, 3, 0, 4, 5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_leave_one_out_never_learns_from_the_future(seed: int, users: int, n: int) -> None:
    data = made_up(seed, users, n)
    split = leave_one_out(data, seed=seed)
    held = np.concatenate([split.test, split.validation])
    together = np.concatenate([split.train, held[held >= 0]])
    assert sorted(together.tolist()) == list(range(n))
    assert sorted(split.before_test().tolist()) == sorted(set(range(n)) - set(split.test.tolist()))
    for user, (validation, test) in enumerate(zip(split.validation, split.test, strict=True)):
        own = split.train[data.users[split.train] == user]
        last = data.times[own].max(initial=-1)
        assert (test >= 0) == (np.count_nonzero(data.users == user) >= 2)
        assert (validation >= 0) == (np.count_nonzero(data.users == user) >= 3)
        if validation >= 0:
            assert last <= data.times[validation] <= data.times[test]
        assert test < 0 or last <= data.times[test]
        assert np.all(np.diff(data.times[own]) >= 0)


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0.25, 0.75]), st.sampled_from(["user", "item"]))
@settings(max_examples=60, deadline=None)
def test_stratified_keeps_the_share_within_each_group(seed: int, n: int, train: float, by: str) -> None:
    data = made_up(seed, 4, n)
    learnt, held = stratified(data, seed=seed, train=train, by="user" if by == "user" else "item")
    assert sorted([*learnt.tolist(), *held.tolist()]) == list(range(n))
    groups = data.users if by == "user" else data.items
    for group in range(5):
        count = np.count_nonzero(groups == group)
        assert np.count_nonzero(groups[learnt] == group) == int(count * train)


def test_stratified_is_random_by_the_seed() -> None:
    data = made_up(1, 3, 60)
    assert stratified(data, seed=1)[0].tolist() == stratified(data, seed=1)[0].tolist()
    assert stratified(data, seed=1)[0].tolist() != stratified(data, seed=2)[0].tolist()
    often = np.zeros(60)
    for seed in range(200):
        often[stratified(data, seed=seed)[0]] += 1
    assert often.min() > 110  # of 200, 150 expected
    with pytest.raises(InvalidInput, match="train is 1"):
        stratified(data, seed=1, train=1)


def test_since(few: Interactions) -> None:
    before, after = since(few, 20)
    assert (before.tolist(), after.tolist()) == ([4, 1, 5], [2, 3, 0, 6])


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_sampled_leaves_the_target_and_so_many_others(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    exclude = random.random((4, 6)) < 0.4
    targets = random.integers(6, size=4)
    rows = np.arange(4)
    made = sampled(exclude, targets, n, seed=seed)
    assert np.all(made | ~exclude)  # what was excluded still is
    assert made[rows, targets].tolist() == exclude[rows, targets].tolist()
    others = ~exclude
    others[rows, targets] = False
    left = ~made
    left[rows, targets] = False
    assert left.sum(axis=1).tolist() == np.minimum(others.sum(axis=1), n).tolist()


def test_sampling_is_uniform_and_by_the_seed() -> None:
    exclude, targets = np.zeros((2000, 5), bool), np.zeros(2000, np.int64)
    often = (~sampled(exclude, targets, 2, seed=1)).sum(axis=0)
    assert often[0] == 2000
    assert np.all(np.abs(often[1:] - 1000) < 4 * np.sqrt(2000 * 0.25))
    assert np.array_equal(sampled(exclude, targets, 2, seed=1), sampled(exclude, targets, 2, seed=1))
    with pytest.raises(InvalidInput, match="n is 0"):
        sampled(exclude, targets, 0, seed=1)
