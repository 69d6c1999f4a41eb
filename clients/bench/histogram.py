"""Durations in a high dynamic range histogram: one part in a thousand exact, from a microsecond to an hour.

A percentile p of n durations is the smallest of them that at least p % of them do not exceed: the one whose place in
ascending order is p/100 * n, rounded up, and at least 1. It is always one of the durations, never a value between two:
the inverse of the empirical distribution function (type 1 of Hyndman and Fan, Sample Quantiles in Statistical Packages,
1996; NumPy's "inverted_cdf"; the definition of HdrHistogram's Java original). The library used here rounds that place
to the nearest instead, which of few durations gives a percentile that fewer than p % stay below, so that only its
buckets are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Self

import numpy as np
from hdrh.histogram import HdrHistogram

__all__ = ["PERCENTILES", "Durations"]

LOWEST = 1_000  # nanoseconds: what is shorter is not told apart
HIGHEST = 3_600 * 1_000_000_000  # an hour; what is longer counts as that
DIGITS = 3
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


class Durations:
    """Durations in seconds. The mean and the maximum are exact, percentiles are of the histogram.

    Those of several processes add up without loss: the histograms' buckets are the same.
    """

    __slots__ = ("_histogram", "most", "total")

    def __init__(self) -> None:
        self._histogram = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        self.total = 0.0
        self.most = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        count: int = self._histogram.get_total_count()
        return count

    @property
    def mean(self) -> float:
        """Their mean; 0 where there is none."""
        return self.total / self.count if self.count else 0.0

    def add(self, seconds: float) -> None:
        """One more. What is below zero, as the difference of two clocks may be, counts as 0."""
        seconds = max(0.0, seconds)
        self._histogram.record_value(min(round(seconds * 1e9), HIGHEST))
        self.total += seconds
        self.most = max(self.most, seconds)

    def merge(self, other: Durations) -> None:
        """All of another's."""
        if other.count:
            self._histogram.add(other._histogram)
        self.total += other.total
        self.most = max(self.most, other.most)

    def at(self, percent: float) -> float:
        """The percentile, as the module defines it. The 100th is the maximum; 0 where there is none."""
        return self.each((percent,))[percent]

    def each(self, percents: Iterable[float]) -> dict[float, float]:
        """Several percentiles at once."""
        wanted = list(percents)
        if not self.count:
            return dict.fromkeys(wanted, 0.0)
        upto = np.cumsum(np.ctypeslib.as_array(self._histogram.counts))
        buckets = np.searchsorted(upto, [_place(percent, self.count) for percent in wanted])
        found = (self._histogram.get_value_from_index(int(bucket)) for bucket in buckets)
        ends = [self._histogram.get_highest_equivalent_value(value) / 1e9 for value in found]
        # A bucket's upper end may be above the longest that there was.
        return {p: self.most if p >= 100 else min(end, self.most) for p, end in zip(wanted, ends, strict=True)}

    def summary(self) -> dict[str, float]:
        """Mean, percentiles and maximum in seconds, by name, e.g. "p99.9"."""
        named = {f"p{percent:g}": value for percent, value in self.each(PERCENTILES).items()}
        return {"mean": self.mean, **named, "max": self.most}

    def encoded(self) -> dict[str, Any]:
        """Fit for JSON. "hdr" is the format of the HdrHistogram tools (V2, compressed, base64), in nanoseconds."""
        text: str = self._histogram.encode().decode()
        return {"hdr": text, "total": self.total, "max": self.most}

    @classmethod
    def decoded(cls, given: Mapping[str, Any]) -> Self:
        """What encoded() made."""
        made = cls()
        found = HdrHistogram.decode(given["hdr"])
        if found.get_total_count():
            made._histogram.add(found)
        made.total = given["total"]
        made.most = given["max"]
        return made


def _place(percent: float, count: int) -> int:
    """Of the percentile, in ascending order, from 1.

    99.9 is taken for what it says in decimals, not for the binary number next to it, which is a little more and would
    make the 1000th of 1000 what is the 999th.
    """
    return max(1, math.ceil(Fraction(repr(float(percent))) * count / 100))
