"""Makes a list of candidates: the best first, diverse, capped, and with some left to chance."""

from __future__ import annotations

import numpy as np

from matchcut.server.blend.contract import Arranged, Candidates
from matchcut.server.blend.query import normalised
from matchcut.server.blend.scoring import SIGNALS, worth
from matchcut.server.records import Floats, PersonalOptions

__all__ = ["arrange"]

_MANY = 64  # positions from which on all cosines at once cost less than those with one item after the other
_ROOM = 4096  # candidates whose cosines may be held, in 64 MiB


def arrange(
    candidates: Candidates,
    options: PersonalOptions,
    k: int,
    random: np.random.Generator,
    *,
    minimum_score: float | None = None,
) -> Arranged:
    """A list of at most k of the candidates, in O(min(k, n) n d).

    Each position goes to the candidate left with the most of mmr_lambda score - (1 - mmr_lambda) (highest cosine with
    those above it); the lower index where they are equal. A candidate is left while it is not in the list and its cap
    is not reached. With chance `exploration` e the position goes to one of the m that are left instead, drawn
    uniformly, so that it came to whoever has it with propensity (1 - e) [it is the best] + e / m.

    Args:
        options: see PersonalOptions, whose bounds hold (choices.checked).
        random: decides what is explored, and nothing else; not touched where exploration is 0.
        minimum_score: candidates that are worth less are never left, also not to chance; None: any will do.
    """
    scores, parts = worth(candidates, options)
    explore, balance = options.exploration, options.mmr_lambda
    unit = normalised(candidates.vectors) if balance < 1 else None
    cosines = unit @ unit.T if unit is not None and k >= _MANY and len(unit) <= _ROOM else None
    utility = balance * scores  # -inf: no longer left
    if minimum_score is not None:
        utility[scores < minimum_score] = -np.inf
    penalty: Floats | None = None  # for what the candidates have in common with those above them
    mates = _mates(candidates.caps) if options.cap > 0 else {}
    used: dict[str, int] = {}
    chosen: list[int] = []
    propensities: list[float] = []
    while len(chosen) < min(k, len(utility)):
        value = utility if penalty is None else utility - penalty
        pick = best = int(value.argmax())
        if utility[best] == -np.inf:
            break
        propensity = 1.0
        if explore > 0:
            left = np.flatnonzero(utility > -np.inf)
            if random.random() < explore:
                pick = int(left[random.integers(len(left))])
            propensity = (1 - explore) * (pick == best) + explore / len(left)
        chosen.append(pick)
        propensities.append(propensity)
        utility[pick] = -np.inf
        cap = candidates.caps[pick]
        if cap in mates:
            used[cap] = used.get(cap, 0) + 1
            if used[cap] == options.cap:
                utility[mates[cap]] = -np.inf
        if unit is not None:
            near = (1 - balance) * (unit @ unit[pick] if cosines is None else cosines[pick])
            penalty = near if penalty is None else np.maximum(penalty, near, out=penalty)
    indices = np.array(chosen, np.int64)
    return Arranged(indices, scores[indices], np.array(propensities, np.float64), _shares(parts[:, indices].T.tolist()))


def _mates(caps: tuple[str, ...]) -> dict[str, list[int]]:
    """The candidates of each value of the attribute that is capped."""
    mates: dict[str, list[int]] = {}
    for index, cap in enumerate(caps):
        if cap:
            mates.setdefault(cap, []).append(index)
    return mates


def _shares(rows: list[list[float]]) -> tuple[dict[str, float], ...]:
    """For each chosen one the share of each signal that speaks; nothing where none does."""
    made = []
    for row in rows:
        total = sum(row)
        made.append({name: part / total for name, part in zip(SIGNALS, row, strict=True) if part > 0})
    return tuple(made)
