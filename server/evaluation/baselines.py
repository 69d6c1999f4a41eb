"""What needs no training on MovieLens-100K: popularity, and SAR, whose row was published."""

from __future__ import annotations

from matchcut.server.evaluation import popular, report, sar, splits
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import Ties
from matchcut.server.evaluation.movielens import PUBLISHED
from matchcut.server.evaluation.report import Report
from matchcut.server.records import Floats

__all__ = ["SCORES", "at_random", "the_last"]

SCORES = {"sar": sar.scores, "popular": popular.scores}
NAME = "MovieLens-100K"
PUBLISHED_AT = 10  # k of the published row


def at_random(
    model: str, data: Interactions, genres: Floats, *, k: int = PUBLISHED_AT, seed: int = 0, removed: bool = True
) -> Report:
    """75 % of each user's interactions to learn from, the others to be found.

    Args:
        model: of SCORES.
        genres: (items, d) of the films, for diversity.
        removed: whether films that the user has rated are no candidates.
    """
    learnt, held = (data.take(rows) for rows in splits.stratified(data, seed=seed))
    return report.many_targets(
        SCORES[model](learnt),
        held.table(),
        learnt,
        model=model,
        data=NAME,
        split="75/25 at random within each user",
        k=k,
        remove_seen=removed,
        seed=seed,
        vectors=genres,
        published=PUBLISHED["sar"] if removed and k == PUBLISHED_AT and model == "sar" else None,
    )


def the_last(
    model: str,
    data: Interactions,
    genres: Floats,
    *,
    k: int,
    seed: int,
    removed: bool,
    candidates: int,
    ties: Ties,
) -> Report:
    """Each user's last interaction to be found, from all earlier ones; candidates: 0: all films."""
    split = splits.leave_one_out(data)
    history = data.take(split.before_test())
    return report.one_target(
        SCORES[model](history),
        data.items[split.test],
        history,
        model=model,
        data=NAME,
        split="leave-one-out by time, equal times as recorded",
        k=k,
        remove_seen=removed,
        candidates=candidates,
        ties=ties,
        seed=seed,
        vectors=genres,
    )
