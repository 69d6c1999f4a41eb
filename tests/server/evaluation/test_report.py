"""Reports: the right numbers, with all that they depend on."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.movielens import Published
from matchcut.server.evaluation.report import many_targets, one_target

# Four items: a and b were u0's, item 1 (b) is u1's.
SCORES = np.array([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 3, 1]])
TARGETS = np.array([2, 0, -1])


@pytest.fixture
def history() -> Interactions:
    return Interactions(
        np.array([0, 0, 1]), np.array([0, 1, 1]), np.ones(3), np.arange(3), ("u0", "u1", "u2"), tuple("abcd")
    )


def test_one_target_with_seen_items_kept_and_removed(history: Interactions) -> None:
    kept = one_target(SCORES, TARGETS, history, model="m", data="d", split="s", k=2)
    assert kept.values["recall"].tolist() == [0, 1]
    removed = one_target(SCORES, TARGETS, history, model="m", data="d", split="s", k=2, remove_seen=True)
    assert removed.values["recall"].tolist() == [1, 1]
    assert removed.values["mrr"].tolist() == [1, 1]
    assert (kept.setting.seen, removed.setting.seen) == ("kept", "removed")
    assert (kept.setting.users, kept.setting.items) == (2, 4)
    assert kept.beside == {"coverage": 0.5, "popularity": pytest.approx(0.5), "gini": 0.5}


def test_sampled_candidates_are_named(history: Interactions) -> None:
    made = one_target(SCORES, TARGETS, history, model="m", data="d", split="s", k=2, candidates=1, seed=1)
    assert made.values["recall"].tolist() == [1, 1]
    assert "candidates: 1 SAMPLED + target" in made.text()
    assert made.beside == {}


def test_ties_are_as_asked(history: Interactions) -> None:
    targets = np.array([-1, -1, 2])
    lower = one_target(SCORES, targets, history, model="m", data="d", split="s", k=3, ties="lower")
    expected = one_target(SCORES, targets, history, model="m", data="d", split="s", k=3)
    assert (lower.values["mrr"].tolist(), expected.values["mrr"].tolist()) == ([1 / 3], [0.4])


def test_every_number_comes_with_all_that_it_depends_on(history: Interactions) -> None:
    published = Published("p", "source", "setting", {"recall": 0.5}, {"recall": (0.4, 0.6)})
    made = one_target(
        SCORES, TARGETS, history, model="model", data="data", split="by time", k=2, seed=17, published=published
    )
    text = made.text()
    for part in (
        "model: data; split: by time; k=2; 2 users",
        "candidates: all 4",
        "seen items kept",
        "ties: mean rank over all orders of the tied",
        "seed 17",
        "intervals: 95% over users",
        "recall       0.5000 [0.0000, 1.0000]   published 0.5000   reproduced",
        "coverage     0.5000",
    ):
        assert part in text
    assert "mrr          0.5000 [0.0000, 1.0000]\n" in text
    assert "NOT" not in text


def test_what_is_not_reproduced_is_said(history: Interactions) -> None:
    published = Published("p", "source", "setting", {"recall": 0.9, "mrr": 0.9}, {"recall": (0.8, 1.0)})
    made = one_target(SCORES, TARGETS, history, model="m", data="d", split="s", k=2, published=published)
    assert {row.metric: row.reproduced for row in made.rows} == {"recall": False, "mrr": None, "ndcg": None}
    assert "published 0.9000   NOT reproduced" in made.text()


def test_many_targets(history: Interactions) -> None:
    relevant = np.array([[False, False, True, True], [True, False, False, False], [False] * 4])
    made = many_targets(SCORES, relevant, history, model="m", data="d", split="s", k=2)
    assert made.values["recall"].tolist() == [1, 1]
    assert made.values["precision"].tolist() == [1, 0.5]
    assert made.setting.users == 2
    kept = many_targets(
        SCORES,
        relevant,
        history,
        model="m",
        data="d",
        split="s",
        k=2,
        remove_seen=False,
        vectors=np.eye(4, 3, dtype="f"),
    )
    assert kept.values["recall"].tolist() == [0, 1]
    assert kept.beside["diversity"] == 1
    assert "diversity" not in made.beside


def test_nobody_takes_part(history: Interactions) -> None:
    with pytest.raises(InvalidInput, match="no user has a target"):
        one_target(SCORES, np.full(3, -1), history, model="m", data="d", split="s")
    with pytest.raises(InvalidInput, match="no user has anything"):
        many_targets(SCORES, np.zeros((3, 4), bool), history, model="m", data="d", split="s")
