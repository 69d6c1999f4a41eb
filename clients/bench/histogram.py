"""Durations in a high dynamic range histogram: one part in a thousand exact, from a microsecond to an hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

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
        """The percentile: so many percent are at most that long. The 100th is the maximum; 0 where there is none."""
        return self.each((percent,))[percent]

    def each(self, percents: Iterable[float]) -> dict[float, float]:
        """Several percentiles at once."""
        wanted = list(percents)
        if not self.count:
            return dict.fromkeys(wanted, 0.0)
        found: Mapping[float, int] = self._histogram.get_percentile_to_value_dict(wanted)
        # A bucket's upper end may be above the longest that there was.
        return {percent: self.most if percent >= 100 else min(found[percent] / 1e9, self.most) for percent in wanted}

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
