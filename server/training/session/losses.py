"""Cross-entropy of the next item, over all items or over drawn ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matchcut.server.evaluation.metrics import Doubles, Indices

__all__ = ["Sampler", "full", "sampled"]

POWER = 0.75  # T. Mikolov et al., arXiv:1310.4546


def full(queries: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over n positions of -log softmax(queries items^T)[target], weighted.

    Args:
        queries: (n, d). items: (m, d), all of them. targets: (n,) int64. weights: (n,), not all 0.
    """
    each = torch.nn.functional.cross_entropy(queries @ items.T, targets, reduction="none")
    return (each * weights).sum() / weights.sum()


class Sampler:
    """Draws items with replacement, by how often they occur to the power 0.75; each can be drawn.

    Args:
        counts: (items,) how often each occurs.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        share = (counts + 1.0) ** POWER
        self.log_q: Doubles = np.log(share / share.sum())
        self._ends: Doubles = np.cumsum(share / share.sum())

    def draw(self, count: int, random: np.random.Generator) -> Indices:
        """(count,) items."""
        found = np.searchsorted(self._ends, random.random(count), side="right")
        return np.minimum(found, len(self._ends) - 1).astype(np.int64)


def sampled(
    queries: Tensor,
    own: Tensor,
    drawn: Tensor,
    weights: Tensor,
    *,
    targets: Tensor,
    numbers: Tensor,
    log_q: Tensor,
) -> Tensor:
    """The same over the target and s drawn items, each drawn one standing for 1 / (s q) items of its like (logQ).

    The sum inside the logarithm, exp(target) + sum over drawn j of exp(score_j) / (s q_j), the target's own draws left
    out, has the full softmax's sum as its expectation (Y. Bengio, J.-S. Senecal, IEEE TNN 2008).

    Args:
        queries: (n, d). own: (n, d) the targets' vectors. drawn: (s, d) vectors of the drawn items. weights: (n,).
        targets: (n,) and numbers: (s,) which items they are. log_q: (s,) log of the chance of each to be drawn.
    """
    right = (queries * own).sum(1, keepdim=True)
    wrong = queries @ drawn.T - log_q - float(np.log(len(numbers)))
    wrong = wrong.masked_fill(targets.unsqueeze(1) == numbers.unsqueeze(0), float("-inf"))
    each = torch.logsumexp(torch.cat((right, wrong), 1), 1) - right.squeeze(1)
    return (each * weights).sum() / weights.sum()
