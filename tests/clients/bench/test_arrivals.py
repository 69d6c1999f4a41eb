"""Schedules: counts, rates, order, and the statistics of random ones with fixed seeds."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.bench.arrivals import Arrivals, Camera, Schedule, _poisson, draws, read_trace
from matchcut.bench.errors import BadInput

RATES = st.floats(0.5, 500)
SECONDS = st.floats(0.1, 5)


@given(rate=RATES, seconds=SECONDS)
def test_constant_times_are_evenly_spaced_from_zero(rate: float, seconds: float) -> None:
    times = Arrivals("constant").times(rate, seconds, seed=1)
    assert len(times) == math.ceil(rate * seconds)
    assert times[0] == 0
    assert all(0 <= time < seconds + 1e-9 for time in times)
    assert times.tolist() == [number / rate for number in range(len(times))]


@given(
    schedule=st.sampled_from(["constant", "poisson", "camera"]), rate=RATES, seconds=SECONDS, seed=st.integers(0, 2**32)
)
def test_times_are_sorted_within_and_the_same_again(schedule: Schedule, rate: float, seconds: float, seed: int) -> None:
    arrivals = Arrivals(schedule, camera=Camera(fps=20, jitter=0))
    if schedule == "poisson":
        seconds += 40 / rate  # in less there may be nothing at all
    times = arrivals.times(rate, seconds, seed)
    assert times.tolist() == sorted(times)
    assert times[0] >= 0
    assert times[-1] < seconds
    assert np.array_equal(arrivals.times(rate, seconds, seed), times)


def test_poisson_gaps_are_exponential() -> None:
    times = Arrivals("poisson").times(100, 200, seed=7)
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) == pytest.approx(20_000, abs=4 * math.sqrt(20_000))
    assert mean(gaps) == pytest.approx(0.01, rel=0.03)
    assert pstdev(gaps) == pytest.approx(0.01, rel=0.03)  # an exponential distribution's deviation is its mean
    longer = sum(gap > 0.02 for gap in gaps) / len(gaps)
    assert longer == pytest.approx(math.exp(-2), rel=0.05)
    counts = [0] * 200
    for time in times:
        counts[int(time)] += 1
    assert pstdev(counts) ** 2 / mean(counts) == pytest.approx(1, abs=0.35)  # the variance of counts is their mean
    assert not np.array_equal(Arrivals("poisson").times(100, 200, seed=8)[:1000], times[:1000])


@given(streams=st.integers(1, 6), fps=st.sampled_from([5.0, 24.0, 30.0]), seed=st.integers(0, 1000))
def test_cameras_give_their_frames_and_are_not_in_phase(streams: int, fps: float, seed: int) -> None:
    arrivals = Arrivals("camera", camera=Camera(fps, jitter=0.002))
    assert arrivals.streams(streams * fps) == streams
    assert arrivals.offered(streams * fps + 0.4) == streams * fps
    feeds = arrivals.feeds(streams * fps, 4.0, seed)
    assert len(feeds) == streams
    assert len({feed[1] for feed in feeds}) == streams
    for feed in feeds:
        assert len(feed) == pytest.approx(4 * fps, abs=1)
        gaps = [b - a for a, b in pairwise(feed)]
        assert mean(gaps) == pytest.approx(1 / fps, rel=0.01)
        assert len({round(gap, 6) for gap in gaps}) > 1  # it jitters
    merged = arrivals.times(streams * fps, 4.0, seed)
    assert merged.tolist() == sorted(time for feed in feeds for time in feed)


def test_a_trace_is_read_sorted_and_scaled(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("# a recording\n1700000001.0\n1700000000.0  # the first\n\n1700000004.0\n1700000002.5\n")
    trace = read_trace(path)
    assert trace == (0.0, 1.0, 2.5, 4.0)
    arrivals = Arrivals("trace", trace)
    assert arrivals.natural == 0.75
    assert arrivals.times(0.75, 5, seed=1).tolist() == [0.0, 1.0, 2.5, 4.0]
    assert arrivals.times(1.5, 2.5, seed=1).tolist() == [0.0, 0.5, 1.25, 2.0]  # twice as fast
    assert arrivals.times(0.75, 2.5, seed=1).tolist() == [0.0, 1.0]


@given(
    trace=st.lists(st.floats(0.001, 1000), min_size=1, max_size=9).map(lambda found: (0.0, *sorted(found))),
    rate=st.floats(0.1, 500),
)
def test_a_trace_that_is_too_short_begins_anew_at_the_same_rate(trace: tuple[float, ...], rate: float) -> None:
    seconds = 7.5 * len(trace) / rate
    times = Arrivals("trace", trace).times(rate, seconds, seed=1)
    assert times.tolist() == sorted(times)
    assert 7 * len(trace) <= len(times) <= 8 * len(trace)
    round_trip = len(trace) / rate
    for first, again in zip(times, times[len(trace) :], strict=False):
        assert again - first == pytest.approx(round_trip, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "two different times"),
        ("1\n1\n", "two different times"),
        ("1\nsoon\n", "line 2: 'soon' is no time"),
        ("nan\n1", "line 1"),
        ("1\ninf", "line 2"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read_trace(path)


def test_millions_of_times_are_one_array_and_more_than_twenty_are_refused_before_there_is_any() -> None:
    times = Arrivals("poisson").times(1e6, 4, seed=1)
    assert times.size == pytest.approx(4e6, rel=0.01)
    assert times.nbytes == 8 * times.size
    assert times.base is None  # no view of something larger
    assert times[-1] < 4
    with pytest.raises(BadInput, match="are more than 20000000 requests; lower one of them"):
        Arrivals("poisson").check(1e7, 10)


@given(rate=st.floats(1, 1000), seconds=st.floats(0.01, 3), seed=st.integers(-(2**70), 2**70))
def test_a_poisson_process_that_needs_more_draws_than_expected(rate: float, seconds: float, seed: int) -> None:
    """Draws that are all short by half: the schedule still goes to its end."""

    class Short(np.random.Generator):
        def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
            return np.full(size, scale / 2)

    times = _poisson(rate, seconds, Short(np.random.PCG64(seed % 2**64)))
    assert len(times) == pytest.approx(2 * rate * seconds, abs=2)


def test_a_schedule_without_anything_to_send() -> None:
    with pytest.raises(BadInput, match="nothing would be sent in 1e-09 s at 1 a second"):
        Arrivals("poisson").times(1, 1e-9, seed=1)


@pytest.mark.parametrize("schedule", ["constant", "poisson", "camera"])
@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (1e9, 60)])
def test_what_makes_no_schedule(schedule: Schedule, rate: float, seconds: float) -> None:
    with pytest.raises(BadInput, match=r"above zero|more than"):
        Arrivals(schedule).times(rate, seconds, seed=1)


def test_draws_of_one_thing_do_not_depend_on_another() -> None:
    first = draws(-3, "kinds").random(3).tolist()
    assert draws(-3, "kinds").random(3).tolist() == first
    assert draws(3, "kinds").random(3).tolist() != first
    assert draws(-3, "arrivals").random(3).tolist() != first
