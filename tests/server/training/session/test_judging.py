"""Full ranking, in pieces: what is a candidate, and what nothing is known of."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server.evaluation.metrics import at_k, ranks
from matchcut.server.records import Floats
from matchcut.server.training.session import judging
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.fitting import Fitted
from matchcut.server.training.session.judging import Answers, Held, histories, network_answers, parted, values


def held(*before: list[int], targets: list[int]) -> Held:
    made = [(np.array(items, np.int64), np.ones(len(items), np.float32)) for items in before]
    return Held(made, np.array(targets), np.arange(len(targets)))


def answers(scores: Floats, known: list[bool] | None = None) -> Answers:
    """Scores as they are."""
    items = scores.shape[1]
    return Answers(scores, np.eye(items, dtype=np.float32), np.array(known or [True] * items))


def test_what_was_seen_is_no_candidate_but_if_it_comes_again() -> None:
    scores = np.array([[4, 3, 2, 1], [4, 3, 2, 1]], np.float32)
    whom = held([0, 1], [0, 2], targets=[2, 2])
    assert values(answers(scores), whom)["mrr"].tolist() == [1 / 3, 1 / 3]
    assert values(answers(scores), whom, seen=False)["mrr"].tolist() == [1, 1 / 2]


def test_an_item_of_which_nothing_is_known_is_in_no_list() -> None:
    scores = np.array([[-4, -3, 0, -5]], np.float32)
    found = answers(scores, [True, True, False, True])
    assert found.scores()[0].tolist() == [-4, -3, -np.inf, -5]
    assert values(found, held([0], targets=[1]), k=1)["recall"].tolist() == [1]
    assert values(found, held([0], targets=[2]), k=3)["recall"].tolist() == [0]


def test_in_pieces_it_is_the_same(gru: Fitted, ring: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    test = parted(histories(ring)).test
    found = network_answers(gru.network, test.histories)
    whole = at_k(ranks(found.scores(), test.targets), 10)
    monkeypatch.setattr(judging, "AT_ONCE", 7)
    again = network_answers(gru.network, test.histories)
    np.testing.assert_allclose(again.queries, found.queries, atol=1e-4)
    pieces = values(again, test)
    assert all(np.array_equal(pieces[name], whole[name]) for name in whole)


def test_nobody_is_asked_of_whom_nothing_is_known(gru: Fitted) -> None:
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert not network_answers(gru.network, [nothing]).queries.any()


def test_a_few_are_drawn_by_the_seed() -> None:
    whom = held(*[[at] for at in range(20)], targets=list(range(20)))
    few = whom.some(5, 1)
    assert whom.some(20, 1) is whom
    assert few.targets.tolist() == sorted(few.targets.tolist())
    assert [int(items[0]) for items, _ in few.histories] == few.targets.tolist() == few.users.tolist()
    assert whom.some(5, 1).targets.tolist() == few.targets.tolist()
    assert whom.some(5, 2).targets.tolist() != few.targets.tolist()
