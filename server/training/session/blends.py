"""What a blend of signals gains over each of them alone, on MovieLens-100K."""

from __future__ import annotations

import itertools

import numpy as np

from matchcut.server.blend.arrange import arrange
from matchcut.server.blend.contract import Candidates
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import Bools, Doubles, Indices, at_k, ranks
from matchcut.server.evaluation.splits import leave_one_out
from matchcut.server.records import Floats, PersonalOptions
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.movielens import Trained

__all__ = ["best", "deployed", "validated"]

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)  # tried for each further signal, beside 1 for the first
CANDIDATES, LIST = 200, 10
OLD_US = 1 << 60  # films have no time at which they came, so none is fresh


def deployed(data: Dataset, model: Trained, options: PersonalOptions, name: str) -> Trained:
    """The lists that a server makes of a model: of the 200 best that were not seen, relevance with popularity, then
    diverse. Scores are 10 for the first of a list, 1 for the last, 0 for all others.

    Args:
        model: one with vectors.
    """
    rows = leave_one_out(data.events)
    validation, test = (
        listed(scores, model.vectors, data.events.take(before), options)
        for scores, before in ((model.validation, rows.train), (model.test, rows.before_test()))
    )
    return Trained(name, validation, test)


def listed(scores: Floats, vectors: Floats | None, before: Interactions, options: PersonalOptions) -> Floats:
    """See deployed()."""
    if vectors is None:
        raise ValueError("only a model of unit vectors can be arranged")
    seen, popularity = before.table(), before.counts()
    made = np.zeros_like(scores)
    random = np.random.default_rng(0)
    for user, own in enumerate(scores):
        masked = np.where(seen[user], -np.inf, own)
        pool = np.argsort(-masked, kind="stable")[:CANDIDATES]
        pool = pool[np.isfinite(masked[pool])]
        # Scores are cosines times one temperature for all, which min-max over the candidates takes out.
        candidates = Candidates(
            vectors=vectors[pool],
            history=own[pool].astype(np.float64),
            current=None,
            against=None,
            age_us=np.full(len(pool), OLD_US, np.int64),
            popularity=popularity[pool],
            caps=("",) * len(pool),
        )
        chosen = arrange(candidates, options, LIST, random).chosen
        made[user, pool[chosen]] = np.arange(len(chosen), 0, -1)
    return made


def best(data: Dataset, parts: list[Trained]) -> Trained:
    """The sum of the parts' scores, each brought to mean 0 and deviation 1 a user, with the weights that have the best
    NDCG@10 on validation, films that were seen left out. The first part's weight is 1."""
    rows = leave_one_out(data.events)
    seen = data.events.take(rows.train).table()
    targets = data.events.items[rows.validation]
    standard = [standardised(part.validation) for part in parts]
    choices = [(1.0, *further) for further in itertools.product(WEIGHTS, repeat=len(parts) - 1)]
    weights = max(choices, key=lambda each: ndcg(summed(each, standard), targets, seen))
    test = summed(weights, [standardised(part.test) for part in parts])
    name = " + ".join(f"{weight:g} {part.name}" for weight, part in zip(weights, parts, strict=True) if weight)
    return Trained(f"blend of {name}", summed(weights, standard).astype(np.float32), test.astype(np.float32))


def validated(data: Dataset, model: Trained) -> float:
    """NDCG@10 on validation, films that were seen left out: what a model is chosen by, the test being for the end."""
    rows = leave_one_out(data.events)
    seen = data.events.take(rows.train).table()
    return ndcg(model.validation.astype(np.float64), data.events.items[rows.validation], seen)


def summed(weights: tuple[float, ...], parts: list[Doubles]) -> Doubles:
    """The weighted sum."""
    made = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        made += weight * part
    return made


def standardised(scores: Floats) -> Doubles:
    """Each row at mean 0 and deviation 1; what cannot be shown at all is far below."""
    wide = np.where(np.isfinite(scores), scores, np.nan).astype(np.float64)
    made = (wide - np.nanmean(wide, axis=1, keepdims=True)) / np.maximum(np.nanstd(wide, axis=1, keepdims=True), 1e-9)
    known: Doubles = np.nan_to_num(made, nan=-10.0)
    return known


def ndcg(scores: Doubles, targets: Indices, seen: Bools) -> float:
    """The mean NDCG@10, seen items left out, but for the targets that come again."""
    exclude = seen.copy()
    exclude[np.arange(len(targets)), targets] = False
    return float(at_k(ranks(scores, targets, exclude=exclude), 10)["ndcg"].mean())
