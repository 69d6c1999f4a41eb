"""Off-policy estimates: by hand, and against simulations whose truth is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from matchcut.server.blend import Candidates, arrange
from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.policy import estimate, of_lists
from matchcut.server.records import PersonalOptions

LOGGING = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
TARGET = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
CHANCES = np.array([0.1, 0.2, 0.5, 0.6, 0.3])  # that what is shown earns 1


def test_by_hand() -> None:
    made = estimate(np.array([1.0, 0, 1, 0]), np.array([0.5, 0.5, 0.25, 0.25]), np.array([1.0, 0, 0.5, 0.5]))
    # weights 2, 0, 2, 2
    assert made.ips.mean == 4 / 4
    assert made.snips.mean == 4 / 6
    assert made.logged.mean == 0.5
    assert made.weight.mean == 6 / 4
    assert made.effective == 36 / 12
    assert (made.samples, made.groups, made.largest, made.clipped) == (4, 4, 2.0, 0)


def test_the_same_policy_is_the_mean() -> None:
    rewards = np.random.default_rng(1).random(50)
    made = estimate(rewards, np.full(50, 0.3), np.full(50, 0.3))
    assert made.ips == made.logged
    assert tuple(made.snips) == pytest.approx(tuple(made.ips))
    assert tuple(made.weight) == (1, 1, 1)
    assert made.effective == pytest.approx(50)


def test_the_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 simulated logs of 1500 samples: about 190 intervals hold what the target policy truly earns."""
    truth = float(TARGET @ CHANCES)
    assert truth > float(LOGGING @ CHANCES) + 0.1  # so that the logged mean itself would not do
    covered = {"ips": 0, "snips": 0, "weight": 0, "logged": 0}
    for seed in range(200):
        random = np.random.default_rng(seed)
        actions = random.choice(5, 1500, p=LOGGING)
        rewards = (random.random(1500) < CHANCES[actions]).astype(np.float64)
        made = estimate(rewards, LOGGING[actions], TARGET[actions])
        covered["ips"] += made.ips.low <= truth <= made.ips.high
        covered["snips"] += made.snips.low <= truth <= made.snips.high
        covered["weight"] += made.weight.low <= 1 <= made.weight.high
        covered["logged"] += made.logged.low <= truth <= made.logged.high
    assert covered.pop("logged") == 0
    assert all(180 <= count <= 199 for count in covered.values()), covered


def test_samples_of_a_group_are_not_independent() -> None:
    """Users of 20 equal samples each: the interval by user covers the truth, that by sample is far too narrow."""
    by_user = by_sample = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        users = np.repeat(np.arange(100), 20)
        rewards = np.repeat((random.random(100) < 0.3).astype(np.float64), 20)
        same = np.full(2000, 0.5)
        grouped, single = estimate(rewards, same, same, groups=users), estimate(rewards, same, same)
        by_user += grouped.ips.low <= 0.3 <= grouped.ips.high
        by_sample += single.ips.low <= 0.3 <= single.ips.high
    assert by_user >= 88
    assert by_sample <= 60


def test_clipping_is_counted_and_lowers_ips() -> None:
    rewards, propensities, targets = np.ones(4), np.array([0.01, 0.5, 0.5, 0.5]), np.full(4, 0.5)
    free, clipped = estimate(rewards, propensities, targets), estimate(rewards, propensities, targets, clip=10)
    assert (free.largest, free.clipped) == (50.0, 0)
    assert (clipped.largest, clipped.clipped) == (50.0, 1)
    assert clipped.ips.mean == 13 / 4 < free.ips.mean == 53 / 4
    assert clipped.snips.mean == free.snips.mean == 1
    assert clipped.effective > free.effective


def test_what_was_never_shown_lowers_the_mean_weight() -> None:
    """The target would show the last two actions 40 % of the time, which logging never did."""
    logging = np.array([0.5, 0.3, 0.2, 0, 0])
    actions = np.random.default_rng(3).choice(5, 3000, p=logging)
    made = estimate(CHANCES[actions], logging[actions], TARGET[actions])
    assert made.weight.high < 0.7


def test_a_policy_that_shares_nothing_is_not_known() -> None:
    made = estimate(np.ones(3), np.full(3, 0.5), np.zeros(3))
    assert math.isnan(made.snips.mean)
    assert (made.snips.low, made.snips.high) == (-math.inf, math.inf)
    assert (made.effective, made.ips.mean) == (0.0, 0.0)


def test_one_sample_says_nothing_of_how_sure_it_is() -> None:
    made = estimate(np.ones(1), np.ones(1), np.ones(1))
    assert made.ips == (1, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("rewards", "propensities", "targets", "field"),
    [
        ([], [], [], "rewards"),
        ([1.0], [0.5, 0.5], [1.0], "rewards"),
        ([1.0], [0.0], [1.0], "propensities"),
        ([1.0], [math.nan], [1.0], "propensities"),
        ([1.0], [1.5], [1.0], "propensities"),
        ([1.0], [0.5], [-0.1], "targets"),
        ([1.0], [0.5], [1.1], "targets"),
        ([math.nan], [0.5], [1.0], "rewards"),
        ([math.inf], [0.5], [1.0], "rewards"),
    ],
)
def test_what_cannot_be_judged_is_told(
    rewards: list[float], propensities: list[float], targets: list[float], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(np.array(rewards), np.array(propensities), np.array(targets))
    assert caught.value.field == field


@pytest.mark.parametrize(("clip", "level", "field"), [(0.0, 0.95, "clip"), (math.nan, 0.95, "clip"), (1, 1.0, "level")])
def test_limits_out_of_bounds(clip: float, level: float, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        estimate(np.ones(2), np.ones(2), np.ones(2), clip=clip, level=level)
    assert caught.value.field == field


def test_the_chance_of_a_list_is_that_of_its_positions() -> None:
    chances = np.array([0.5, 0.5, 0.2, 0.1, 1.0, 0.5])
    assert of_lists(chances, np.array([3, 3, 3, 7, 9, 9])).tolist() == [0.5, 0.25, 0.05, 0.1, 1.0, 0.5]
    assert of_lists(np.empty(0), np.empty(0, np.int64)).tolist() == []


def test_lists_that_were_arranged_with_exploration_tell_what_those_without_would_earn() -> None:
    """What an item earns is halved by one of the same creator right above it, so that lists matter, not only items."""
    n, k = 8, 3
    chances = np.array([0.8, 0.7, 0.6, 0.2, 0.2, 0.1, 0.1, 0.1])
    candidates = Candidates(
        vectors=np.eye(n, dtype=np.float32),
        history=np.linspace(1, 0, n),
        current=None,
        against=None,
        age_us=np.zeros(n, np.int64),
        popularity=np.zeros(n, np.int64),
        caps=tuple("aabbccdd"),
    )

    def worth(chosen: list[int]) -> list[float]:
        same = [False] + [candidates.caps[one] == candidates.caps[two] for one, two in pairwise(chosen)]
        return [float(chances[item]) / (1 + again) for item, again in zip(chosen, same, strict=True)]

    options = PersonalOptions(mmr_lambda=1, exploration=0.4)
    best = arrange(candidates, PersonalOptions(mmr_lambda=1), k, np.random.default_rng(0)).chosen.tolist()
    truth = sum(worth(best)) / k
    covered, logged = 0, 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        made = [arrange(candidates, options, k, random) for _ in range(300)]
        lists = np.repeat(np.arange(300), k)
        propensities = np.concatenate([one.propensities for one in made])
        rewards = random.random(300 * k) < np.concatenate([worth(one.chosen.tolist()) for one in made])
        value = estimate(
            rewards.astype(np.float64),
            of_lists(propensities, lists),
            of_lists((propensities >= 0.5).astype(np.float64), lists),
            groups=lists,
        )
        covered += value.snips.low <= truth <= value.snips.high and value.ips.low <= truth <= value.ips.high
        logged += value.logged.low <= truth <= value.logged.high
    assert covered >= 35
    assert logged <= 5
