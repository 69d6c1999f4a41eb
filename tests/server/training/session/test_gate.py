"""Whether a new model may replace the served one: judged on what neither has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from matchcut.server.records import EncoderIdentity, Floats, SessionIdentity
from matchcut.server.training.session import gate
from matchcut.server.training.session.dataset import Dataset, Row, made
from matchcut.server.training.session.judging import histories

DAY = 86_400


class Ring:
    """A model that says item i + stride is wanted after item i, if the strength of what came reached 1."""

    def __init__(self, stride: int, items: int = 40) -> None:
        self.stride, self.size = stride, items
        self.identity = SessionIdentity(f"ring-{stride}", "1", f"d{stride}", items)
        self.encoder = EncoderIdentity("tiny", "1", "d1", 12)
        self.width = items
        self.tenant = ""
        self.steps = 0

    def items(self, item_ids: Sequence[str], content: Floats) -> Floats:
        return np.eye(self.size, dtype=np.float32)[[int(item[1:]) % self.size for item in item_ids]]

    def begin(self, count: int) -> Floats:
        return np.zeros((count, self.width), np.float32)

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        self.steps += len(items)
        assert items.shape == states.shape
        assert strengths.min() > 0
        return items

    def queries(self, states: Floats) -> Floats:
        return np.roll(states, self.stride, axis=1)

    def close(self) -> None:
        pass


def test_the_one_that_ranks_better_is_told(ring: Dataset) -> None:
    since = gate.usual(ring, 1.0)
    verdict = gate.compare(Ring(7), Ring(3), ring, since)
    assert verdict.better
    assert verdict.new.mean > 0.98  # i40 has the vector of i00 here
    assert verdict.old.mean < 0.3
    assert verdict.gain.low > 0.7
    assert verdict.users == 80
    back = gate.compare(Ring(3), Ring(7), ring, since)
    assert not back.better
    assert back.gain.mean == pytest.approx(-verdict.gain.mean)
    assert gate.compare(Ring(7), Ring(7), ring, since).better  # as good is good enough


def test_only_events_from_that_time_on_are_to_be_found(ring: Dataset) -> None:
    since = gate.usual(ring, 1.0)
    assert since > ring.events.times.max() - DAY
    held = gate.later(ring, since)
    late = int((ring.events.times >= since).sum())
    assert len(held.targets) == late  # two a user, as an event comes every half day
    whole = histories(ring)
    for (items, _), target, user in zip(held.histories, held.targets, held.users, strict=True):
        assert whole[user][0][len(items)] == target
        assert np.array_equal(whole[user][0][: len(items)], items)


def test_a_user_counts_once_and_at_most_with_five_events() -> None:
    rows: list[Row] = [("u", f"i{at:02}", at * 1_000_000, 1.0) for at in range(20)]
    rows += [("v", "i00", 0, 1.0), ("v", "i01", 15_000_000, 1.0), ("new", "i05", 16_000_000, 1.0)]
    held = gate.later(made(rows), 10)
    assert held.users.tolist() == [0] * 5 + [1]  # and without who has no history
    assert gate.of_users(np.array([1.0, 1, 1, 1, 0, 0.5]), held.users).tolist() == [0.8, 0.5]


def test_what_comes_again_is_to_be_found_again() -> None:
    rows: list[Row] = [
        (f"u{user}", f"i{(user + at) % 2:02}", at * 1_000_000, 1.0) for user in range(4) for at in range(6)
    ]
    verdict = gate.compare(Ring(1, 2), Ring(0, 2), made(rows), 4)
    assert verdict.new.mean == 1.0


def test_models_see_what_came_before_alone(ring: Dataset) -> None:
    model, since = Ring(7), gate.usual(ring, 1.0)
    gate.compare(model, Ring(7), ring, since)
    assert model.steps == sum(len(items) for items, _ in gate.later(ring, since).histories)


def test_without_anybody_to_judge_by_it_says_so(ring: Dataset) -> None:
    with pytest.raises(gate.TooFewToJudge, match="hold out more days"):
        gate.compare(Ring(7), Ring(7), ring, int(ring.events.times.max()) + 1)
    with pytest.raises(gate.TooFewToJudge, match="all events are of the days"):
        gate.parted_at(ring, int(ring.events.times.min()))
    assert len(gate.parted_at(ring, int(ring.events.times.max())).events) == len(ring.events) - 1


def seen(*spans: tuple[float, float]) -> Dataset:
    """Users of whom the first and the last event are so many days after the beginning."""
    return made([(f"u{at}", "i00", round(day * DAY * 1e6), 1.0) for at, span in enumerate(spans) for day in span])


def test_who_was_there_before_and_came_back_is_counted(ring: Dataset) -> None:
    assert gate.judges(ring, 1.0) == 80
    back = gate.judges(seen(*[(0, 9.5)] * 6, (0, 5), (9.7, 9.9), (0, 10)), 1.0)
    assert back == 7


@pytest.mark.parametrize(
    ("spans", "days", "says"),
    [
        # The last day is of one new user.
        ([(0, 7.5)] * 5 + [(10, 10)], 1.0, "0 users did something both .* --holdout 3 would do"),
        ([(0, 9.5)] * 4 + [(0, 8.5), (10, 10)], 1.0, "4 users .* it takes 5 .* --holdout 2 would do"),
        # All of it is of a few hours.
        ([(0, 0.25)] * 5, 1.0, r"--holdout 0\.25 would do"),
        ([(0, 5)] * 4, 1.0, "no other number of days has enough"),
        ([(0, 5), (5, 5)], 9.0, "no other number of days has enough"),
    ],
)
def test_too_few_to_judge_by_are_told_how_many_days_would_do(
    spans: list[tuple[float, float]], days: float, says: str
) -> None:
    data = seen(*spans)
    with pytest.raises(gate.TooFewToJudge, match=says) as told:
        gate.judges(data, days)
    assert told.value.code != "INVALID_ARGUMENT"
    if "would do" in says:
        found = float(told.value.message.partition("--holdout ")[2].split()[0])
        assert gate.judges(data, found) >= gate.LEAST


def test_an_event_of_the_future_does_not_shift_the_days() -> None:
    data = seen(*[(0, 9.5)] * 5, (0, 10.9))
    now = 10.0 * DAY
    assert gate.usual(data, 1.0, now=now) == round(8.5 * DAY) + 1
    assert gate.judges(data, 1.0, now=now) == 6
    assert gate.usual(data, 1.0) == round(9.9 * DAY) + 1
    assert gate.usual(data, 1.0, now=-1.0) == round(9.9 * DAY) + 1  # all are of the future
