"""Lists: diverse, capped, left to chance with the propensities that are true, and explained."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.blend import Arranged, Candidates, arrange
from matchcut.server.blend.query import normalised
from matchcut.server.blend.scoring import worth
from matchcut.server.records import PersonalOptions

module = sys.modules[arrange.__module__]  # the package's name for it is the function's
PLAIN = PersonalOptions(mmr_lambda=1, freshness=0, popularity=0)
HOUR_US = 3_600_000_000


def made_up(seed: int, n: int, *, d: int = 6, creators: int = 3) -> Candidates:
    random = np.random.default_rng(seed)
    return Candidates(
        vectors=random.normal(size=(n, d)).astype(np.float32),
        history=random.uniform(-1, 1, n),
        current=random.uniform(-1, 1, n) if seed % 2 else None,
        against=random.uniform(0, 1, n) if seed % 3 else None,
        age_us=random.integers(0, 1000 * HOUR_US, n),
        popularity=random.integers(0, 50, n),
        caps=tuple(random.choice(["", *"abcdefgh"[:creators]], n).tolist()),
    )


def ranked(scores: list[float], caps: str = "") -> Candidates:
    n = len(scores)
    return Candidates(
        vectors=np.eye(n, dtype=np.float32),
        history=np.array(scores),
        current=None,
        against=None,
        age_us=np.zeros(n, np.int64),
        popularity=np.zeros(n, np.int64),
        caps=tuple(caps.replace("-", " ").ljust(n)[i].strip() for i in range(n)),
    )


def chosen(candidates: Candidates, options: PersonalOptions, k: int, seed: int = 0) -> list[int]:
    indices: list[int] = arrange(candidates, options, k, np.random.default_rng(seed)).chosen.tolist()
    return indices


def by_definition(candidates: Candidates, options: PersonalOptions, taken: list[int]) -> dict[int, float]:
    """For each candidate that may come next, what it is worth there: as in the paper, each cosine worked out anew."""
    scores = worth(candidates, options).scores
    vectors = candidates.vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values = {}
    for index in range(len(scores)):
        cap = candidates.caps[index]
        full = options.cap and cap and sum(candidates.caps[other] == cap for other in taken) >= options.cap
        if index not in taken and not full:
            near = max((float(unit[index] @ unit[other]) for other in taken), default=0.0)
            values[index] = options.mmr_lambda * scores[index] - (1 - options.mmr_lambda) * near
    return values


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 25),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_the_list_is_that_of_the_definition(seed: int, n: int, k: int, balance: float, cap: int) -> None:
    candidates = made_up(seed, n)
    options = PersonalOptions(mmr_lambda=balance, cap=cap)
    made = chosen(candidates, options, k)
    for position, pick in enumerate(made):
        values = by_definition(candidates, options, made[:position])
        assert values[pick] >= max(values.values()) - 1e-5  # cosines are of float32
    assert len(made) == k or not by_definition(candidates, options, made)


def test_the_best_come_first_and_the_lower_index_of_equals() -> None:
    assert chosen(ranked([0.1, 0.9, 0.5, 0.9]), PLAIN, 3) == [1, 3, 2]
    assert chosen(ranked([0.4, 0.4, 0.4]), PLAIN, 2) == [0, 1]


def test_a_list_can_be_longer_than_there_are_candidates_or_empty() -> None:
    assert chosen(ranked([0.1, 0.9]), PLAIN, 5) == [1, 0]
    assert chosen(ranked([0.1, 0.9]), PLAIN, 0) == []
    nothing = arrange(ranked([]), PersonalOptions(exploration=1), 5, np.random.default_rng(0))
    assert nothing.chosen.shape == nothing.scores.shape == nothing.propensities.shape == (0,)
    assert nothing.chosen.dtype == np.int64
    assert nothing.shares == ()


def test_diversity_takes_what_is_like_nothing_above() -> None:
    """Two nearly equal items are the best; the list for a lambda below 1 puts another between them."""
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], np.float32)
    candidates = replace(ranked([1.0, 0.9, 0.0]), vectors=vectors)
    assert chosen(candidates, PLAIN, 3) == [0, 1, 2]
    assert chosen(candidates, replace(PLAIN, mmr_lambda=0.4), 3) == [0, 2, 1]


def test_vectors_of_any_length_and_of_none_have_a_direction_or_are_like_nothing() -> None:
    vectors = np.array([[9, 0], [0.5, 0], [0, 0]], np.float32)
    candidates = replace(ranked([1.0, 0.9, 0.0]), vectors=vectors)
    assert chosen(candidates, replace(PLAIN, mmr_lambda=0.4), 3) == [0, 2, 1]


def test_caps() -> None:
    candidates = ranked([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], caps="aaab--")
    assert chosen(candidates, replace(PLAIN, cap=1), 6) == [0, 3, 4, 5]
    assert chosen(candidates, replace(PLAIN, cap=2), 6) == [0, 1, 3, 4, 5]
    assert chosen(candidates, PLAIN, 6) == [0, 1, 2, 3, 4, 5]


def test_candidates_worth_too_little_are_not_even_left_to_chance() -> None:
    candidates, options = ranked([0.0, 0.5, 1.0, 0.6]), replace(PLAIN, exploration=0.5)
    for seed in range(30):
        made = arrange(candidates, options, 4, np.random.default_rng(seed), minimum_score=0.5)
        assert sorted(made.chosen.tolist()) == [1, 2, 3]
        assert made.propensities[0] in (pytest.approx(0.5 / 3), pytest.approx(0.5 + 0.5 / 3))
    assert arrange(candidates, PLAIN, 4, np.random.default_rng(0), minimum_score=1.1).chosen.tolist() == []


def test_without_exploration_nothing_is_left_to_chance() -> None:
    random = np.random.default_rng(3)
    before = random.bit_generator.state
    made = arrange(made_up(1, 20), PersonalOptions(), 10, random)
    assert random.bit_generator.state == before
    assert made.propensities.tolist() == [1.0] * 10


def test_the_same_seed_gives_the_same_list() -> None:
    options = PersonalOptions(exploration=0.5, cap=2)
    lists = {tuple(chosen(made_up(1, 20), options, 8, seed)) for seed in range(20)}
    assert len(lists) > 10
    assert chosen(made_up(1, 20), options, 8, 7) == chosen(made_up(1, 20), options, 8, 7)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 2))
@settings(max_examples=80, deadline=None)
def test_what_is_explored_is_allowed_and_what_is_shown_is_explained(seed: int, n: int, e: float, cap: int) -> None:
    candidates = made_up(seed, n)
    options = PersonalOptions(exploration=e, cap=cap)
    made = arrange(candidates, options, n, np.random.default_rng(seed))
    indices = made.chosen.tolist()
    assert len(set(indices)) == len(indices)
    if cap:
        often = Counter(candidates.caps[index] for index in indices if candidates.caps[index])
        assert all(count <= cap for count in often.values())
    else:
        assert len(indices) == n
    assert np.all((made.propensities > 0) & (made.propensities <= 1 + 1e-12))
    assert made.scores.tolist() == worth(candidates, options).scores[made.chosen].tolist()
    for shares in made.shares:
        assert all(share > 0 for share in shares.values())
        assert sum(shares.values()) == pytest.approx(1)


def test_the_propensities_are_the_frequencies() -> None:
    """Of 4000 lists, each with its own seed, each first item comes as often as its propensity says; so do the second
    ones after the same first one. 4 standard errors are allowed."""
    candidates, options = ranked([0.9, 0.5, 0.2, 0.1], caps="aa--"), replace(PLAIN, exploration=0.4, cap=1)
    firsts: Counter[int] = Counter()
    seconds: Counter[tuple[int, int]] = Counter()
    said: dict[tuple[int, ...], float] = {}
    for seed in range(4000):
        made = arrange(candidates, options, 2, np.random.default_rng(seed))
        first, second = made.chosen.tolist()
        firsts[first] += 1
        seconds[first, second] += 1
        said[first,], said[first, second] = made.propensities.tolist()
    assert said[0,] == pytest.approx(0.6 + 0.4 / 4)
    assert said[1,] == pytest.approx(0.4 / 4)
    assert said[0, 2] == pytest.approx(0.6 + 0.4 / 2)  # the cap takes item 1 away
    assert (0, 1) not in seconds
    assert said[3, 0] == pytest.approx(0.6 + 0.4 / 3)
    for (first, *rest), chance in said.items():
        count, total = (seconds[first, rest[0]], firsts[first]) if rest else (firsts[first], 4000)
        assert abs(count - chance * total) < 4 * (total * chance * (1 - chance)) ** 0.5, (first, rest)


def test_full_exploration_is_uniform_over_what_is_left() -> None:
    made = arrange(ranked([0.9, 0.5, 0.2, 0.1]), replace(PLAIN, exploration=1), 4, np.random.default_rng(1))
    assert made.propensities.tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])


def test_shares() -> None:
    options = PersonalOptions(mmr_lambda=1, freshness=0.5, popularity=0.25, current_weight=0.5)
    candidates = replace(
        ranked([0.0, 0.8]),
        current=np.array([0.0, 0.4]),
        age_us=np.array([0, options.freshness_half_life_us]),
        popularity=np.array([0, 7]),
    )
    made: Arranged = arrange(candidates, options, 2, np.random.default_rng(0))
    assert made.chosen.tolist() == [1, 0]
    assert made.shares[0] == pytest.approx(
        {"history": 2 / 3 / 1.5, "current": 1 / 3 / 1.5, "freshness": 0.25 / 1.5, "popularity": 0.25 / 1.5}
    )
    assert made.shares[1] == {"freshness": 1.0}


def test_what_no_signal_speaks_for_has_no_shares() -> None:
    cold = replace(ranked([0.0, 0.0]), history=None)
    assert arrange(cold, PLAIN, 2, np.random.default_rng(0)).shares == ({}, {})


@pytest.mark.parametrize(("k", "room", "at_once"), [(100, 300, True), (63, 300, False), (100, 299, False)])
def test_a_long_list_is_the_same_though_its_cosines_are_worked_out_at_once(
    monkeypatch: pytest.MonkeyPatch, k: int, room: int, at_once: bool
) -> None:
    shapes: list[tuple[int, ...]] = []

    class Told(np.ndarray):
        def __matmul__(self, other: Any) -> Any:
            shapes.append(other.shape)
            return np.asarray(self) @ np.asarray(other)

    candidates = made_up(3, 300, d=16)
    options = PersonalOptions(mmr_lambda=0.5, exploration=0.2)
    monkeypatch.setattr(module, "_ROOM", room)
    monkeypatch.setattr(module, "normalised", lambda vectors: normalised(vectors).view(Told))
    made = arrange(candidates, options, k, np.random.default_rng(1))
    assert shapes == ([(16, 300)] if at_once else [(16,)] * k)
    monkeypatch.setattr(module, "_MANY", 1000)
    again = arrange(candidates, options, k, np.random.default_rng(1))
    assert made.chosen.tolist() == again.chosen.tolist()
    assert made.propensities.tolist() == again.propensities.tolist()
