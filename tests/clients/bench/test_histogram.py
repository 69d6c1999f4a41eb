"""Histograms of durations: precision, merging without loss, the hostile ends."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.bench.histogram import PERCENTILES, Durations

SOME = st.lists(st.floats(1e-6, 3000), min_size=1, max_size=60)


def of(values: list[float]) -> Durations:
    made = Durations()
    for value in values:
        made.add(value)
    return made


EXACT: dict[str, Any] = {"rel": 1.1e-3, "abs": 0.6e-6}  # of the buckets, and of the lowest of them


@settings(max_examples=60)
@given(values=SOME, percent=st.sampled_from(PERCENTILES))
def test_percentiles_are_numpys_inverted_cdf(values: list[float], percent: float) -> None:
    found = of(values)
    theirs = float(np.percentile(values, percent, method="inverted_cdf"))
    assert found.at(percent) == pytest.approx(theirs, **EXACT)
    assert found.at(100) == max(values) == found.most
    assert found.mean == pytest.approx(math.fsum(values) / len(values))
    assert found.count == len(values)


@settings(max_examples=60)
@given(values=st.lists(st.integers(1, 40), min_size=1, max_size=80), percent=st.decimals("0.01", "100", places=2))
def test_a_percentile_is_the_smallest_that_enough_do_not_exceed(values: list[int], percent: Decimal) -> None:
    """The definition itself, in whole seconds, which the histogram tells apart, and in exact arithmetic."""
    found = round(of([float(value) for value in values]).at(float(percent)))
    enough = Fraction(percent) / 100 * len(values)
    assert found in values
    assert sum(value <= found for value in values) >= enough
    assert all(sum(other <= value for other in values) < enough for value in values if value < found)


@pytest.mark.parametrize(("percent", "place"), [(50, 1), (50.1, 2), (67, 3), (99, 3), (34, 2), (33, 1), (0.01, 1)])
def test_the_place_is_rounded_up_not_to_the_nearest(percent: float, place: int) -> None:
    """Of 2 or 3: at the nearest place the 34th percentile of three would be the first, which a third do not exceed."""
    values = [1.0, 2.0, 3.0][: 2 if percent in (50, 50.1) else 3]
    assert of(values).at(percent) == pytest.approx(place, rel=1e-3)


def test_percents_are_decimals() -> None:
    """99.9 % of 1000 are 999, although the binary number that stands for 99.9 is a little more."""
    assert of([float(number) for number in range(1, 1001)]).at(99.9) == pytest.approx(999, rel=2e-4)
    assert of([1.0] * 9999 + [9.0]).at(99.99) == pytest.approx(1, rel=1e-3)


@settings(max_examples=40)
@given(first=SOME, second=SOME)
def test_merging_is_the_same_as_counting_together(first: list[float], second: list[float]) -> None:
    merged = of(first)
    merged.merge(Durations.decoded(json.loads(json.dumps(of(second).encoded()))))
    together = of(first + second)
    assert merged.count == together.count
    assert merged.each(PERCENTILES) == together.each(PERCENTILES)
    assert merged.most == together.most
    assert merged.mean == pytest.approx(together.mean)


def test_nothing_at_all() -> None:
    empty = Durations()
    assert (empty.count, empty.mean, empty.most, empty.at(99)) == (0, 0, 0, 0)
    again = Durations.decoded(json.loads(json.dumps(empty.encoded())))
    assert again.count == 0
    full = of([1.0])
    full.merge(again)
    again.merge(full)
    assert full.count == again.count == 1
    assert again.at(50) == pytest.approx(1, rel=1e-3)
    assert set(empty.summary().values()) == {0.0}


def test_what_does_not_fit_counts_at_the_ends() -> None:
    found = of([-0.5, 0.0, 1e9])
    assert found.count == 3
    assert found.at(1) == pytest.approx(0, abs=1e-6)
    assert found.at(99) == pytest.approx(3600, rel=2e-3)
    assert found.most == 1e9
    assert list(found.summary()) == ["mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"]
