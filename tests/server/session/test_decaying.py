"""The decaying mean: its formula, what it is at the edges, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.session import DecayingMean

ENCODER = EncoderIdentity("tiny", "1", "d1", 5)


def units(count: int, seed: int = 0) -> Floats:
    made = np.random.default_rng(seed).standard_normal((count, 5)).astype(np.float32)
    rows: Floats = made / np.linalg.norm(made, axis=1, keepdims=True)
    return rows


def run(model: DecayingMean, items: Floats, strengths: Sequence[float]) -> Floats:
    """(1, width) the state after these events."""
    state = model.begin(1)
    for at, strength in enumerate(strengths):
        state = model.step(items[at : at + 1], state, np.array([strength], np.float32))
    return state


def test_the_state_is_the_weighted_sum_of_the_formula() -> None:
    model, items = DecayingMean(ENCODER, 3), units(7)
    kept = 2 ** (-1 / 3)
    expected = sum((1 - kept) * kept ** (6 - at) * items[at].astype(np.float64) for at in range(7))
    np.testing.assert_allclose(run(model, items, [1] * 7)[0], expected, atol=1e-6)


def test_half_of_an_events_share_is_left_after_the_half_life() -> None:
    model = DecayingMean(ENCODER, 4)
    first, others = np.eye(5, dtype=np.float32)[:1], np.repeat(np.eye(5, dtype=np.float32)[1:2], 4, axis=0)
    before = run(model, first, [1])[0, 0]
    after = run(model, np.concatenate([first, others]), [1] * 5)[0, 0]
    assert after == pytest.approx(before / 2, rel=1e-6)


def test_a_weaker_event_moves_the_state_by_as_much_less() -> None:
    model, items = DecayingMean(ENCODER), units(1)
    np.testing.assert_allclose(run(model, items, [0.25]), run(model, items, [1]) / 4, rtol=1e-6)


def test_queries_are_directions_and_nothing_is_known_at_the_start() -> None:
    model = DecayingMean(ENCODER)
    assert not model.queries(model.begin(2)).any()
    states = np.concatenate([run(model, units(3, seed), [1, 0.5, 1e-30]) for seed in range(3)])
    np.testing.assert_allclose(np.linalg.norm(model.queries(states), axis=1), 1, atol=1e-6)
    tiny = run(model, units(1), [1e-30])
    np.testing.assert_allclose(model.queries(tiny), units(1), atol=1e-6)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=40), st.integers(0, 9), st.floats(0.01, 1e6))
def test_the_state_is_bounded_and_each_row_is_as_alone(strengths: list[float], seed: int, half_life: float) -> None:
    model, items = DecayingMean(ENCODER, half_life), units(len(strengths), seed)
    alone = run(model, items, strengths)
    assert np.linalg.norm(alone) <= 1 + 1e-5
    states = model.begin(3)
    for at, strength in enumerate(strengths):
        beside = np.concatenate([units(1, 77), items[at : at + 1], units(1, 78)])
        states = model.step(beside, states, np.array([1, strength, 0.5], np.float32))
    np.testing.assert_array_equal(states[1], alone[0])


def test_items_are_their_content() -> None:
    content = units(3)
    np.testing.assert_array_equal(DecayingMean(ENCODER).items(["a", "b", "c"], content), content)


def test_the_identity_tells_half_life_and_encoder_apart() -> None:
    other = EncoderIdentity("tiny", "2", "d2", 5)
    digests = {DecayingMean(*of).identity.digest for of in ((ENCODER, 4.0), (ENCODER, 5.0), (other, 4.0))}
    assert len(digests) == 3
    assert DecayingMean(ENCODER, 4).identity == DecayingMean(ENCODER, 4.0).identity
    assert DecayingMean(ENCODER).identity.dimensions == DecayingMean(ENCODER).width == 5


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_half_life_is_refused(half_life: float) -> None:
    with pytest.raises(InvalidInput, match="half-life must be above 0"):
        DecayingMean(ENCODER, half_life)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_no_further(value: float) -> None:
    model, items = DecayingMean(ENCODER), units(2)
    items[1, 3] = value
    with pytest.raises(EngineFailed, match="NaN or infinity"):
        model.step(items, model.begin(2), np.ones(2, np.float32))
    with pytest.raises(EngineFailed, match="NaN or infinity"):
        model.items(["a", "b"], items)


def test_content_of_another_shape_is_refused() -> None:
    with pytest.raises(EngineFailed, match="content"):
        DecayingMean(ENCODER).items(["a"], np.zeros((1, 4), np.float32))
