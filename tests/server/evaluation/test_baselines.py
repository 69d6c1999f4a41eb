"""SAR and popularity: by hand, and against published numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation import popular, sar
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.movielens import PUBLISHED
from matchcut.server.evaluation.report import many_targets
from matchcut.server.evaluation.splits import stratified


def test_popularity_by_hand(few: Interactions) -> None:
    assert popular.scores(few).tolist() == [[2, 2, 2, 0]] * 3


def test_affinity_by_hand(few: Interactions) -> None:
    """The newest is of second 40; item b of user u0 was rated twice."""
    made = sar.affinity(few, half_life=10)
    assert made.tolist() == [[0.5, 3 / 4 + 1, 1.0, 0], [5 * 2**-3.5, 2 * 2**-3.0, 0, 0], [0, 0, 2**-3.3, 0]]
    assert sar.affinity(few, half_life=np.inf)[0].tolist() == [1, 4, 4, 0]


def test_similarity_by_hand(few: Interactions) -> None:
    common = [[2, 2, 1, 0], [2, 2, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]]
    assert sar.similarity(few, kind="cooccurrence").tolist() == common
    third = 1 / 3
    assert sar.similarity(few).tolist() == [[1, 1, third, 0], [1, 1, third, 0], [third, third, 1, 0], [0, 0, 0, 0]]
    assert sar.similarity(few, kind="lift").tolist() == [
        [0.5, 0.5, 0.25, 0],
        [0.5, 0.5, 0.25, 0],
        [0.25, 0.25, 0.5, 0],
        [0, 0, 0, 0],
    ]
    assert sar.similarity(few, kind="cooccurrence", threshold=2)[0].tolist() == [2, 2, 0, 0]


def test_scores_are_affinity_by_similarity_and_nothing_is_known_of_new_items(few: Interactions) -> None:
    made = sar.scores(few, half_life=np.inf)
    assert made[2].tolist() == pytest.approx([1 / 3, 1 / 3, 1, -np.inf])
    assert np.all(made[:, 3] == -np.inf)


def test_nothing_to_learn_from(few: Interactions) -> None:
    assert np.all(sar.scores(few.take(np.array([], np.int64))) == -np.inf)


@pytest.mark.parametrize(("half_life", "threshold", "kind"), [(0, 1, "jaccard"), (np.nan, 1, "jaccard")])
def test_half_lives_that_are_none(few: Interactions, half_life: float, threshold: int, kind: sar.Similarity) -> None:
    with pytest.raises(InvalidInput, match="half_life"):
        sar.scores(few, half_life=half_life, threshold=threshold, kind=kind)


def test_similarities_that_are_none(few: Interactions) -> None:
    with pytest.raises(InvalidInput, match="threshold is 0"):
        sar.similarity(few, threshold=0)
    with pytest.raises(InvalidInput, match="must be one of jaccard, cooccurrence, lift"):
        sar.similarity(few, kind="cosine")  # type: ignore[arg-type]


def test_the_published_row_of_sar_is_reproduced(movies: Interactions) -> None:
    """MAP .1106, nDCG .3825, P .3308, R .1764 at 10, each within .01, whichever of these seeds splits."""
    for seed in (0, 42):
        learnt, held = (movies.take(rows) for rows in stratified(movies, seed=seed))
        made = many_targets(
            sar.scores(learnt),
            held.table(),
            learnt,
            model="sar",
            data="MovieLens-100K",
            split="75/25",
            seed=seed,
            published=PUBLISHED["sar"],
        )
        compared = {row.metric: row for row in made.rows if row.published is not None}
        assert compared.keys() == {"map", "ndcg", "precision", "recall"}
        for row in compared.values():
            assert row.published is not None
            assert abs(row.value.mean - row.published) < 0.01, row
            assert row.reproduced
            assert row.value.low < row.value.mean < row.value.high
        crowd = many_targets(
            popular.scores(learnt), held.table(), learnt, model="popular", data="", split="", seed=seed
        )
        assert crowd.values["map"].mean() < 0.6 * made.values["map"].mean()
        assert crowd.beside["coverage"] < 0.25 * made.beside["coverage"]


def test_what_is_said_to_be_reproduced_is_not_whatever_comes(movies: Interactions) -> None:
    learnt, held = (movies.take(rows) for rows in stratified(movies, seed=0))
    random = np.random.default_rng(0).random(movies.shape)
    made = many_targets(
        random, held.table(), learnt, model="random", data="", split="", published=replace(PUBLISHED["sar"])
    )
    assert [row.reproduced for row in made.rows if row.published is not None] == [False] * 4
