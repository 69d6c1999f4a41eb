"""How sure a mean of a few repetitions is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

__all__ = ["Estimate", "estimate"]

# 97.5th percentile of Student's t by degrees of freedom: published tables, e.g. NIST/SEMATECH e-Handbook of Statistical
# Methods, 1.3.6.7.2. Between those that are listed, the next lower one is used, which errs on the wide side.
_T = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
    11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086,
    25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000, 100: 1.984,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and half the width of its 95 % confidence interval; None where there is only one value."""

    mean: float
    half: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values of independent repetitions, taken as normally distributed; of at least one."""
    if len(values) < 2:
        return Estimate(values[0], None)
    freedom = len(values) - 1
    quantile = _T[max(known for known in _T if known <= freedom)]
    return Estimate(mean(values), quantile * stdev(values) / math.sqrt(len(values)))
