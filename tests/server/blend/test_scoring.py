"""What candidates are worth, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from matchcut.server.blend.contract import Candidates
from matchcut.server.blend.query import AGAINST
from matchcut.server.blend.scoring import SIGNALS, worth
from matchcut.server.records import PersonalOptions

PLAIN = PersonalOptions(freshness=0, popularity=0)


def candidates(
    n: int,
    *,
    history: Sequence[float] | None = None,
    current: Sequence[float] | None = None,
    against: Sequence[float] | None = None,
    age_us: Sequence[int] | None = None,
    popularity: Sequence[int] | None = None,
) -> Candidates:
    def doubles(values: Sequence[float] | None) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
        return None if values is None else np.array(values, np.float64)

    return Candidates(
        vectors=np.eye(n, dtype=np.float32),
        history=doubles(history),
        current=doubles(current),
        against=doubles(against),
        age_us=np.array(age_us or [0] * n, np.int64),
        popularity=np.array(popularity or [0] * n, np.int64),
        caps=("",) * n,
    )


def test_relevance_goes_from_0_to_1() -> None:
    made = worth(candidates(3, history=[-0.2, 0.2, 0.6]), PLAIN)
    assert made.scores.tolist() == pytest.approx([0, 0.5, 1])
    assert made.parts[SIGNALS.index("history")].tolist() == pytest.approx([0, 0.5, 1])
    assert not made.parts[1:].any()


def test_history_and_current_interest_share_the_relevance() -> None:
    options = PersonalOptions(freshness=0, popularity=0, current_weight=0.25)
    made = worth(candidates(3, history=[0.0, 0.4, 0.8], current=[0.0, 0.8, 0.0]), options)
    # raw: 0, 0.3 + 0.2, 0.6 + 0
    assert made.scores.tolist() == pytest.approx([0, 0.5 / 0.6, 1])
    assert made.parts[0].tolist() == pytest.approx([0, 0.3 / 0.6, 1])
    assert made.parts[1].tolist() == pytest.approx([0, 0.2 / 0.6, 0])


def test_current_interest_alone_counts_whole() -> None:
    made = worth(candidates(2, current=[0.1, 0.2]), PLAIN)
    assert made.parts[1].tolist() == [0, 1]
    assert made.scores.tolist() == [0, 1]


def test_what_was_disliked_lowers_the_relevance() -> None:
    made = worth(candidates(3, history=[0.5, 0.5, 0.0], against=[0.8, 0.0, 0.0]), PLAIN)
    assert made.scores.tolist() == pytest.approx([(0.5 - 0.8 * AGAINST) / 0.5, 1, 0])


def test_equal_relevance_is_whole_for_all() -> None:
    made = worth(candidates(2, history=[0.3, 0.3], current=[0.1, 0.1]), PLAIN)
    assert made.scores.tolist() == [1, 1]
    assert made.parts[:2].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_freshness_halves_with_every_half_life() -> None:
    options = PersonalOptions(freshness=1, popularity=0, freshness_half_life_us=10)
    assert worth(candidates(3, age_us=[0, 10, 30]), options).scores.tolist() == [1, 0.5, 0.125]


def test_popularity_is_on_a_scale_of_logarithms() -> None:
    options = PersonalOptions(freshness=0, popularity=2)
    assert worth(candidates(3, popularity=[0, 9, 99]), options).scores.tolist() == pytest.approx([0, 0.5, 1])


def test_only_signals_that_speak_are_weighed() -> None:
    """A cold user's list goes from 0 to 1 too; nobody having taken to anything, popularity says nothing."""
    options = PersonalOptions(freshness=0.1, popularity=0.3)
    assert worth(candidates(1, popularity=[5]), options).scores.tolist() == pytest.approx([1])
    assert worth(candidates(1), options).scores.tolist() == pytest.approx([1])
    warm = worth(candidates(2, history=[0, 1], popularity=[0, 5]), options)
    assert warm.scores.tolist() == pytest.approx([0.1 / 1.4, 1])
    assert warm.parts[:, 1].tolist() == pytest.approx([1 / 1.4, 0, 0.1 / 1.4, 0.3 / 1.4])


def test_a_dislike_alone_is_weighed_against_what_is_new_and_popular() -> None:
    made = worth(candidates(2, against=[1.0, 0.0]), PersonalOptions(freshness=1, popularity=0))
    assert made.scores.tolist() == [1 - AGAINST, 1]
    assert made.parts.sum(axis=0).tolist() == [1, 1]


def test_where_every_signal_is_silent_all_are_worth_nothing() -> None:
    assert worth(candidates(2), PLAIN).scores.tolist() == [0, 0]


def test_no_candidates_are_worth_nothing() -> None:
    made = worth(candidates(0, history=[]), PersonalOptions())
    assert made.scores.shape == (0,)
    assert made.parts.shape == (4, 0)
