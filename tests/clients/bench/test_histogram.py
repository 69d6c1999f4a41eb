"""Histograms of durations: precision, merging without loss, the hostile ends."""

from __future__ import annotations

import json
import math

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


def nearest_rank(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[max(1, int(percent * len(ordered) / 100 + 0.5)) - 1]


@settings(max_examples=40)
@given(values=SOME, percent=st.sampled_from(PERCENTILES))
def test_percentiles_are_exact_to_a_part_in_a_thousand(values: list[float], percent: float) -> None:
    found = of(values)
    assert found.at(percent) == pytest.approx(nearest_rank(values, percent), rel=1.1e-3, abs=0.6e-6)
    assert found.at(100) == max(values) == found.most
    assert found.mean == pytest.approx(math.fsum(values) / len(values))
    assert found.count == len(values)


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
