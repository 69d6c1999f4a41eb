"""What another way of making lists would have earned, from lists that were shown: off-policy evaluation.

Each sample is something shown: with which chance it was (propensity), with which chance the other way would show it
(target), and what it earned (reward). With w = target / propensity:
IPS = mean of w r (D. Horvitz, D. Thompson, JASA 1952) is unbiased and may vary much;
SNIPS = sum of w r / sum of w (A. Swaminathan, T. Joachims, NIPS 2015) is slightly biased and varies less.
Neither knows of what was never shown: whatever the other way would show must have had a chance. Where that does not
hold, the mean of w is below 1, and it is reported for that reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import Doubles, Indices, Interval

__all__ = ["Estimate", "estimate", "of_lists"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean reward a sample, with intervals.

    logged: of what was shown. ips, snips: of the other way. weight: mean of w, which should have 1 in its interval.
    samples, groups: how many. effective: (sum of w)^2 / sum of w^2, of how many samples the variance is that of
    (L. Kish, 1965); intervals of fewer than about 100 are too narrow. largest: of w, before clipping. clipped: samples
    whose w was above the limit; where there are any, ips is too low and snips is biased. Where the other way would show
    nothing of what was shown, effective is 0, ips 0 and snips NaN: nothing is known.
    """

    logged: Interval
    ips: Interval
    snips: Interval
    weight: Interval
    samples: int
    groups: int
    effective: float
    largest: float
    clipped: int


def estimate(
    rewards: Doubles,
    propensities: Doubles,
    targets: Doubles,
    *,
    groups: Indices | None = None,
    clip: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """The value of the target policy, with intervals by the delta method.

    Args:
        rewards: (n,).
        propensities: (n,) above 0: the chance of what was shown, or of the list down to it.
        targets: (n,) from 0: the same chance under the other policy.
        groups: (n,) int64, samples of one group (a list, a user) may depend on each other; None: none does.
        clip: the most that w may be; None: any.
        level: of the intervals.

    Raises:
        InvalidInput: no samples, shapes that do not go together, chances out of 0 to 1, or rewards that are not finite.
    """
    n = len(rewards)
    if not n or propensities.shape != (n,) or targets.shape != (n,) or (groups is not None and groups.shape != (n,)):
        raise InvalidInput(
            "there must be one reward, propensity and target a sample, and at least one", field="rewards"
        )
    if not np.all((propensities > 0) & (propensities <= 1 + 1e-9)):
        raise InvalidInput("propensities must be above 0 and at most 1", field="propensities")
    if not np.all((targets >= 0) & (targets <= 1 + 1e-9)):
        raise InvalidInput("targets must be from 0 to 1", field="targets")
    if not np.all(np.isfinite(rewards)):
        raise InvalidInput("rewards hold NaN or infinity", field="rewards")
    if clip is not None and not clip > 0:
        raise InvalidInput(f"clip is {clip}; it must be above 0", field="clip")
    if not 0 < level < 1:
        raise InvalidInput(f"level is {level}; it must be between 0 and 1", field="level")
    raw = targets / propensities
    weights = raw if clip is None else np.minimum(raw, clip)
    total = float(weights.sum())
    members = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(n)
    if total:
        value = float((weights * rewards).sum()) / total
        # SNIPS is to first order its own value plus the mean of these.
        snips = _mean(value + weights * (rewards - value) * (n / total), members, level)
    else:
        snips = Interval(math.nan, -math.inf, math.inf)
    return Estimate(
        logged=_mean(rewards, members, level),
        ips=_mean(weights * rewards, members, level),
        snips=snips,
        weight=_mean(weights, members, level),
        samples=n,
        groups=int(members.max()) + 1,
        effective=total**2 / float((weights**2).sum()) if total else 0.0,
        largest=float(raw.max()),
        clipped=0 if clip is None else int(np.count_nonzero(raw > clip)),
    )


def of_lists(chances: Doubles, lists: Indices) -> Doubles:
    """The chance of each list down to each position, (n,) from those of each position given the ones above.

    Weights of these are right even where what an item earns depends on the items above it (J. McInerney and others,
    KDD 2020); not where it depends on those below.

    Args:
        chances: (n,) float64, list after list, each from the first position on.
        lists: (n,) int64, number of the list, from 0, ascending.
    """
    made = chances.copy()
    ends = np.flatnonzero(np.diff(lists, append=np.int64(-1))) + 1
    for begin, end in pairwise([0, *ends.tolist()]):
        made[begin:end] = np.cumprod(chances[begin:end])
    return made


def _mean(values: Doubles, members: Indices, level: float) -> Interval:
    """Mean and normal interval, the groups and not the samples being independent."""
    n, mean = len(values), float(values.mean())
    sums = np.bincount(members, weights=values - mean)
    m = len(sums)
    if m < 2:
        return Interval(mean, -math.inf, math.inf)
    deviation = math.sqrt(m / (m - 1) * float((sums**2).sum())) / n
    half = NormalDist().inv_cdf((1 + level) / 2) * deviation
    return Interval(mean, mean - half, mean + half)
