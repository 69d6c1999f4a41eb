"""SAR, the Simple Algorithm for Recommendations: items that go with those a user took to lately.

affinity[user, item] = sum over their interactions of weight 2^(-age / half-life), the age by the newest interaction.
similarity[i, j] = how many users took to both, by how many took to either (jaccard), and the like.
scores = affinity @ similarity.
Known from Microsoft's `recommenders` (github.com/recommenders-team/recommenders), whose published numbers
for MovieLens-100K are in movielens.py.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.evaluation.metrics import Doubles

__all__ = ["HALF_LIFE", "Similarity", "affinity", "scores", "similarity"]

Similarity = Literal["jaccard", "cooccurrence", "lift"]
HALF_LIFE = 30 * 24 * 3600.0  # seconds


def affinity(train: Interactions, *, half_life: float = HALF_LIFE) -> Doubles:
    """(users, items) float64: how much each user took to each item lately.

    Args:
        half_life: seconds after which an interaction counts half; infinity: time plays no part.

    Raises:
        InvalidInput: half_life is not above 0.
    """
    if not half_life > 0:
        raise InvalidInput(f"half_life is {half_life}; it must be above 0", field="half_life")
    made = np.zeros(train.shape)
    ages = train.times.max(initial=np.iinfo(np.int64).min) - train.times
    np.add.at(made, (train.users, train.items), train.weights * np.exp2(-ages / half_life))
    return made


def similarity(train: Interactions, *, kind: Similarity = "jaccard", threshold: int = 1) -> Doubles:
    """(items, items) float64, symmetric: how much items go together.

    Args:
        kind: with c users who took to both items and n each: "cooccurrence" c, "jaccard" c / (n + n - c), "lift"
            c / (n n).
        threshold: pairs with fewer users in common are 0.

    Raises:
        InvalidInput: the kind is unknown, or threshold is below 1.
    """
    if kind not in get_args(Similarity):
        raise InvalidInput(f"kind is {kind!r}; it must be one of {', '.join(get_args(Similarity))}", field="kind")
    if threshold < 1:
        raise InvalidInput(f"threshold is {threshold}; it must be at least 1", field="threshold")
    hits = train.table().astype(np.float32)  # sums of 1 stay exact up to 2^24 users
    common = (hits.T @ hits).astype(np.float64)
    users = np.diag(common).copy()
    common[common < threshold] = 0
    if kind == "cooccurrence":
        return common
    below = users[:, None] + users - common if kind == "jaccard" else users[:, None] * users
    return np.divide(common, below, out=np.zeros_like(common), where=common > 0)


def scores(
    train: Interactions, *, half_life: float = HALF_LIFE, kind: Similarity = "jaccard", threshold: int = 1
) -> Doubles:
    """(users, items) float64; -inf for items that nobody took to, of which nothing is known.

    Args:
        train: what is learnt from. half_life, kind, threshold: see affinity() and similarity().
    """
    together = similarity(train, kind=kind, threshold=threshold)
    made = affinity(train, half_life=half_life) @ together
    made[:, train.counts() == 0] = -np.inf
    return made
