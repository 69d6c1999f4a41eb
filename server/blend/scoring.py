"""What each candidate is worth, and how much of that is due to which signal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matchcut.server.blend.contract import Candidates, Doubles
from matchcut.server.blend.query import AGAINST
from matchcut.server.records import PersonalOptions

__all__ = ["SIGNALS", "Worth", "worth"]

SIGNALS = ("history", "current", "freshness", "popularity")


class Worth(NamedTuple):
    """scores: (n,) float64. parts: (4, n) float64, what each of SIGNALS adds, at least 0, at most 1 in all."""

    scores: Doubles
    parts: Doubles


def worth(candidates: Candidates, options: PersonalOptions) -> Worth:
    """The weighted mean of those signals that say anything, each from 0 to 1 over the candidates.

    relevance, which weighs 1: cosines with history and current interest, weighted as in combine(), less AGAINST times
    that with what was disliked; the least relevant candidate has 0, the most relevant 1 (all 1 where none differs).
    freshness: 2^(-age / half-life). popularity: log(1 + users), by that of the most popular candidate.
    What was disliked lowers the score itself where there is neither history nor current interest.
    """
    n = len(candidates.caps)
    parts = np.zeros((len(SIGNALS), n))
    if not n:
        return Worth(np.zeros(0), parts)
    weights = options.freshness
    if candidates.history is not None or candidates.current is not None:
        weights += 1
        parts[:2] = _relevance(candidates, options)
    parts[2] = options.freshness * np.exp2(-candidates.age_us / max(options.freshness_half_life_us, 1))
    most = np.log1p(candidates.popularity.max())
    if most > 0:
        weights += options.popularity
        parts[3] = np.log1p(candidates.popularity) * (options.popularity / most)
    if weights > 0:
        parts /= weights
    scores = parts.sum(axis=0)
    if candidates.history is None and candidates.current is None and candidates.against is not None:
        scores -= AGAINST * candidates.against
    return Worth(scores, parts)


def _relevance(candidates: Candidates, options: PersonalOptions) -> Doubles:
    """(2, n) what history and current interest add to the relevance, which is their sum, 0 to 1."""
    history, current = candidates.history, candidates.current
    if history is None or current is None:  # all of the relevance is due to the one that is there
        alone = current if history is None else history
        assert alone is not None
        due = np.zeros((2, len(alone)))
        due[int(history is None)] = _scaled(alone, candidates.against)
        return due
    weight = options.current_weight
    shares = np.stack([(1 - weight) * history, weight * current])
    relevance = _scaled(shares.sum(axis=0), candidates.against)
    # Each signal's share is what it lifts a candidate above the least that it says of any.
    shares -= shares.min(axis=1, keepdims=True)
    both = shares.sum(axis=0)
    silent = both <= 1e-9
    shares[:, silent] = [[1 - weight], [weight]]
    both[silent] = 1
    relevant: Doubles = shares * (relevance / both)
    return relevant


def _scaled(cosines: Doubles, against: Doubles | None) -> Doubles:
    """Less what speaks against them, from 0 for the least to 1 for the most relevant."""
    raw = cosines if against is None else cosines - AGAINST * against
    least = raw.min()
    spread = raw.max() - least
    # Rounding of equal cosines is no difference.
    scaled: Doubles = (raw - least) / spread if spread > 1e-9 else np.ones_like(raw)
    return scaled
