"""Numbers with all that they depend on: none is printed without its split, candidates, seen filter, ties and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation import lists
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import TIES, Bools, Doubles, Indices, Interval, Ties, at_k, interval, ranks
from matchcut.server.evaluation.movielens import Published
from matchcut.server.evaluation.splits import sampled
from matchcut.server.records import Floats

__all__ = ["Report", "Row", "Setting", "many_targets", "one_target"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a number depends on beside the model.

    split: in words. candidates: 0: every item; n: the target and n others drawn at random. seen: "removed" or "kept":
    whether items of the user's history are candidates. seed: of the split, the sample and the bootstrap.
    """

    data: str
    split: str
    k: int
    users: int
    items: int
    candidates: int
    seen: str
    ties: str
    seed: int
    level: float = 0.95

    def text(self) -> str:
        """One line for people."""
        among = f"{self.candidates} SAMPLED + target" if self.candidates else f"all {self.items}"
        return (
            f"{self.data}; split: {self.split}; k={self.k}; {self.users} users; candidates: {among}; seen items "
            f"{self.seen}; ties: {self.ties}; seed {self.seed}; intervals: {self.level:.0%} over users"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. value: ours. published: None where there is nothing to compare with; reproduced: None likewise."""

    metric: str
    value: Interval
    published: float | None = None
    reproduced: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What one model reached. values: {metric: (users,) float64}, what the rows are the means of."""

    model: str
    setting: Setting
    rows: tuple[Row, ...]
    beside: dict[str, float]
    values: dict[str, Doubles]

    def plain(self) -> dict[str, object]:
        """All but the single users' values, for JSON."""
        return {"model": self.model, "setting": self.setting, "rows": self.rows, "beside": self.beside}

    def text(self) -> str:
        """Some lines for people: the setting first, then a line a metric, then what else the lists are."""
        lines = [f"{self.model}: {self.setting.text()}"]
        for row in self.rows:
            published = "" if row.published is None else f"   published {row.published:.4f}"
            verdict = {None: "", True: "   reproduced", False: "   NOT reproduced"}[row.reproduced]
            value = row.value
            lines.append(f"  {row.metric:<12} {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]{published}{verdict}")
        lines += [f"  {name:<12} {value:.4f}" for name, value in self.beside.items()]
        return "\n".join(lines)


def one_target(
    scores: Doubles,
    targets: Indices,
    history: Interactions,
    *,
    model: str,
    data: str,
    split: str,
    k: int = 10,
    remove_seen: bool = False,
    candidates: int = 0,
    ties: Ties = "expected",
    seed: int = 0,
    vectors: Floats | None = None,
    published: Published | None = None,
) -> Report:
    """How well each user's one target was ranked: Recall@k, MRR@k, nDCG@k.

    Args:
        scores: (users, items) float.
        targets: (users,) item to be found, or -1 for users who take no part.
        history: what was known of the users and to the model.
        remove_seen: the items of a user's history are no candidates.
        candidates: 0: all items; else how many are drawn beside the target, which flatters: see splits.sampled().
        vectors: (items, d) float32 what items are, for the diversity of lists; None: it is not told.
        published: what others reached in this setting.

    Raises:
        InvalidInput: no user takes part, and as ranks().
    """
    users = np.flatnonzero(targets >= 0)
    if not len(users):
        raise InvalidInput("no user has a target: each needs at least two interactions", field="targets")
    seen = history.table()[users] if remove_seen else np.zeros((len(users), scores.shape[1]), bool)
    exclude = sampled(seen, targets[users], candidates, seed=seed) if candidates else seen
    places = ranks(scores[users], targets[users], exclude=exclude, ties=ties)
    setting = Setting(
        data, split, k, len(users), scores.shape[1], candidates, _seen(remove_seen), TIES[ties], seed
    )  # fmt: skip
    beside = {} if candidates else _beside(lists.best(scores[users], k, exclude=seen), history, vectors)
    return _report(model, setting, at_k(places, k), beside, published)


def many_targets(
    scores: Doubles,
    relevant: Bools,
    history: Interactions,
    *,
    model: str,
    data: str,
    split: str,
    k: int = 10,
    remove_seen: bool = True,
    seed: int = 0,
    vectors: Floats | None = None,
    published: Published | None = None,
) -> Report:
    """How good the lists of k are for users with several items to be found: see lists.accuracy().

    Args:
        scores: (users, items) float.
        relevant: (users, items), what was to be found; users without any take no part.
        history, remove_seen, vectors, published: as for one_target(). Ties go to the lower index.

    Raises:
        InvalidInput: no user takes part, or shapes that do not go together.
    """
    users = np.flatnonzero(relevant.any(axis=1))
    if not len(users):
        raise InvalidInput("no user has anything to be found", field="relevant")
    made = lists.best(scores[users], k, exclude=history.table()[users] if remove_seen else None)
    setting = Setting(
        data, split, k, len(users), scores.shape[1], 0, _seen(remove_seen), TIES["lower"], seed
    )  # fmt: skip
    return _report(model, setting, lists.accuracy(made, relevant[users]), _beside(made, history, vectors), published)


def _seen(removed: bool) -> str:
    return "removed" if removed else "kept"


def _beside(made: Indices, history: Interactions, vectors: Floats | None) -> dict[str, float]:
    """What else the lists are: see lists.py."""
    users, items = history.shape
    diverse = {} if vectors is None else {"diversity": float(lists.diversity(made, vectors).mean())}
    return diverse | {
        "coverage": lists.coverage(made, items),
        "popularity": float(lists.popularity(made, history.counts(), users).mean()),
        "gini": lists.gini(made, items),
    }


def _report(
    model: str,
    setting: Setting,
    values: Mapping[str, Doubles],
    beside: dict[str, float],
    published: Published | None,
) -> Report:
    rows = tuple(_rows(values, setting, published))
    return Report(model, setting, rows, beside, dict(values))


def _rows(values: Mapping[str, Doubles], setting: Setting, published: Published | None) -> Iterable[Row]:
    for metric, each in values.items():
        value = interval(each, seed=setting.seed, level=setting.level)
        stated = published.values.get(metric) if published else None
        bounds = published.within.get(metric) if published else None
        yield Row(metric, value, stated, bounds and bounds[0] <= value.mean <= bounds[1])
