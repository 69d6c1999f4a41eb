"""Segments: what they cover, how they are bounded, and that pooling them loses nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Floats, TimeRange
from matchcut.server.segments import SLOTS, Part, SegmentBounds, Segmenter

SECOND = 1_000_000
NO_MINIMUM = SegmentBounds(minimum_us=0)


def vector(*values: float) -> Floats:
    return np.array(values, np.float32)


X, Y = vector(1, 0), vector(0, 1)


def ranges(parts: Sequence[Part]) -> list[tuple[float, float]]:
    return [(part.range.start_us / SECOND, part.range.end_us / SECOND) for part in parts]


def counts(parts: Sequence[Part]) -> list[int]:
    return [int(part.weights.sum()) for part in parts]


def mean(parts: Sequence[Part]) -> Floats:
    total = sum((part.weights.astype(np.float64) @ part.vectors for part in parts), np.zeros(parts[0].vectors.shape[1]))
    return np.asarray(total / sum(counts(parts)), np.float32)


def feed(segmenter: Segmenter, times: Sequence[float], value: Floats = X) -> None:
    for time in times:
        segmenter.frame(round(time * SECOND), value)


# --- by example ------------------------------------------------------------------------------------------------


def test_one_frame_is_one_segment_of_the_whole_length() -> None:
    segmenter = Segmenter(SegmentBounds())
    reused = X.copy()
    segmenter.frame(0, reused)
    reused[:] = 9
    (part,) = segmenter.parts(3 * SECOND)
    assert part.range == (0, 3 * SECOND)
    assert part.vectors.dtype == part.weights.dtype == np.float32
    np.testing.assert_array_equal(part.vectors, X[None])
    np.testing.assert_array_equal(part.weights, [1])


def test_a_cut_starts_a_segment() -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0, 1, 2], X)
    segmenter.cut(2_500_000)
    feed(segmenter, [3, 4], Y)
    first, second = segmenter.parts(5 * SECOND)
    assert ranges([first, second]) == [(0, 2.5), (2.5, 5)]
    np.testing.assert_array_equal(first.vectors, [X, X, X])
    np.testing.assert_array_equal(second.vectors, [Y, Y])


def test_the_last_frame_lies_inside_although_the_end_is_said_to_be_earlier() -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0, 7])
    assert segmenter.parts(5 * SECOND)[-1].range.end_us == 7 * SECOND + 1


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (10, [(0, 10)]),
        (12, [(0, 6.25), (6.25, 12)]),
        (20, [(0, 10), (10, 20)]),
        (23, [(0, 10), (10, 16.875), (16.875, 23)]),
    ],
)
def test_a_long_shot_is_split_into_full_parts_and_two_halves(length: int, expected: list[tuple[float, float]]) -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, np.arange(0, length, 0.1).tolist())
    assert ranges(segmenter.parts(length * SECOND)) == expected


def test_a_part_is_longer_where_frames_are_far_apart() -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0, 30, 60])
    parts = segmenter.parts(90 * SECOND)
    assert counts(parts) == [1, 1, 1]
    assert parts[0].range.end_us <= 30 * SECOND < parts[1].range.end_us <= 60 * SECOND


@pytest.mark.parametrize(("value", "expected"), [(X, [(0, 2.3), (2.3, 4)]), (Y, [(0, 2), (2, 4)])])
def test_a_short_segment_joins_the_neighbour_that_is_more_alike(
    value: Floats, expected: list[tuple[float, float]]
) -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0, 1], X)
    segmenter.cut(2 * SECOND)
    feed(segmenter, [2.1], value)
    segmenter.cut(2_300_000)
    feed(segmenter, [3], Y)
    assert ranges(segmenter.parts(4 * SECOND)) == expected


def test_a_short_segment_at_either_end_joins_its_only_neighbour() -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0], Y)
    segmenter.cut(200_000)
    feed(segmenter, [1], X)
    segmenter.cut(2 * SECOND)
    feed(segmenter, [2], Y)
    assert ranges(segmenter.parts(2_100_000)) == [(0, 2.1)]
    assert ranges(segmenter.parts(3 * SECOND)) == [(0, 2), (2, 3)]


def test_stretches_without_frames_are_covered() -> None:
    segmenter = Segmenter(NO_MINIMUM)
    for cut in (1, 2):
        segmenter.cut(cut * SECOND)
    feed(segmenter, [3], X)
    for cut in (4, 5):
        segmenter.cut(cut * SECOND)
    feed(segmenter, [6], Y)
    segmenter.cut(7 * SECOND)
    assert ranges(segmenter.parts(8 * SECOND)) == [(0, 4), (4, 8)]


def test_too_many_segments_join_where_they_are_most_alike() -> None:
    segmenter = Segmenter(SegmentBounds(0, 10 * SECOND, count=3))
    for time, value in enumerate([X, vector(1, 0.1), Y, vector(-1, 0), vector(-1, 0.3)]):
        segmenter.cut(time * SECOND)
        feed(segmenter, [time], value)
    assert ranges(segmenter.parts(5 * SECOND)) == [(0, 2), (2, 3), (3, 5)]


def test_joining_the_most_alike_is_what_recomputing_all_of_it_gives() -> None:
    rng = np.random.default_rng(6)
    segmenter = Segmenter(SegmentBounds(0, 1000 * SECOND, count=4))
    expected: list[tuple[float, NDArray[np.float64]]] = []
    for time in range(60):
        value = rng.normal(size=3).astype(np.float32)
        segmenter.cut(time * SECOND)
        segmenter.frame(time * SECOND, value)
        expected.append((time, value.astype(np.float64)))
        if len(expected) > 4:
            units = [total / np.linalg.norm(total) for _, total in expected]
            at = int(np.argmax([one @ two for one, two in itertools.pairwise(units)]))
            expected[at : at + 2] = [(expected[at][0], expected[at][1] + expected[at + 1][1])]
    assert [start for start, _ in ranges(segmenter.parts(60 * SECOND))] == [start for start, _ in expected]


def test_an_unchanged_part_is_the_same_object() -> None:
    segmenter = Segmenter(SegmentBounds())
    feed(segmenter, [0, 1], X)
    segmenter.cut(2 * SECOND)
    feed(segmenter, [2, 3], Y)
    before = segmenter.parts(4 * SECOND)
    feed(segmenter, [4], Y)
    after = segmenter.parts(5 * SECOND)
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_a_hundred_thousand_frames_keep_few_vectors() -> None:
    segmenter = Segmenter(SegmentBounds(minimum_us=0, count=50))
    for number in range(100_000):
        if number % 30 == 0:
            segmenter.cut(number * 1000)
        segmenter.frame(number * 1000, X)
    parts = segmenter.parts(100 * SECOND)
    assert len(parts) == 50
    assert sum(counts(parts)) == 100_000
    assert max(len(part.vectors) for part in parts) <= SLOTS


# --- given segments --------------------------------------------------------------------------------------------


def test_given_segments_take_the_place_of_cuts() -> None:
    wanted = [TimeRange(1 * SECOND, 3 * SECOND), TimeRange(3 * SECOND, 4 * SECOND), TimeRange(6 * SECOND, 60 * SECOND)]
    segmenter = Segmenter(SegmentBounds(minimum_us=5 * SECOND, count=1), wanted)
    feed(segmenter, [0, 1, 2], X)
    assert segmenter.parts(2 * SECOND)[0].range == wanted[0]
    segmenter.cut(2_500_000)
    feed(segmenter, [4, 5, 6, 7, 59, 60, 61], Y)
    parts = segmenter.parts(70 * SECOND)
    assert [part.range for part in parts] == [wanted[0], wanted[2]]
    assert counts(parts) == [2, 3]


@pytest.mark.parametrize("wrong", [[(5, 5)], [(5, 4)], [(5, 7), (6, 8)], [(5, 7), (1, 2)]])
def test_given_segments_out_of_order_are_refused(wrong: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Segmenter(SegmentBounds(), [TimeRange(*one) for one in wrong])
    assert caught.value.reason == "BAD_SEGMENTS"


@pytest.mark.parametrize("wrong", [(-1, 10_000, 5), (20_000, 10_000, 5), (0, 10_000, 0), (0, 3, 5)])
def test_bounds_that_clash_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        SegmentBounds(*wrong)
    assert caught.value.reason == "BAD_SEGMENT_BOUNDS"


# --- whatever comes --------------------------------------------------------------------------------------------


class Timeline(NamedTuple):
    """Steps in the order of time: a frame, a cut, or a question on the way."""

    bounds: SegmentBounds
    steps: list[tuple[str, int]]
    end_us: int

    def play(self, *, ask: bool) -> tuple[Segmenter, list[int], list[Floats]]:
        segmenter, times, vectors = Segmenter(self.bounds), [], []
        rng = np.random.default_rng(3)
        for kind, time in self.steps:
            if kind == "frame":
                vectors.append(rng.normal(size=4).astype(np.float32))
                times.append(time)
                segmenter.frame(time, vectors[-1])
            elif kind == "cut":
                segmenter.cut(time)
            elif ask:
                segmenter.parts(time)
        return segmenter, times, vectors


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    minimum = draw(st.integers(0, 300))
    maximum = draw(st.integers(max(16, minimum), 2000))
    kinds = st.sampled_from(["frame"] * 6 + ["cut", "ask"])
    gaps = st.sampled_from([1, 7, 40, 200, 900, 6000])
    drawn = draw(st.lists(st.tuples(kinds, gaps), max_size=60))
    times = itertools.accumulate(gap for _, gap in drawn)
    steps = [(kind, time) for (kind, _), time in zip(drawn, times, strict=True)]
    end_us = (steps[-1][1] if steps else 0) + draw(st.integers(1, 5000))
    return Timeline(SegmentBounds(minimum, maximum, draw(st.integers(1, 8))), steps, end_us)


@settings(max_examples=300, deadline=None)
@given(timelines())
def test_parts_cover_the_media_in_order_and_lose_no_frame(timeline: Timeline) -> None:
    segmenter, times, vectors = timeline.play(ask=False)
    parts = segmenter.parts(timeline.end_us)
    assert bool(parts) == bool(times)
    if not parts:
        return
    assert len(parts) <= timeline.bounds.count
    assert parts[0].range.start_us == 0
    assert parts[-1].range.end_us == timeline.end_us
    assert all(one.range.end_us == two.range.start_us for one, two in itertools.pairwise(parts))
    for part in parts:
        start, end = part.range
        assert counts([part]) == [sum(start <= time < end for time in times)]
        assert counts([part])[0] >= 1
        assert 1 <= len(part.vectors) == len(part.weights) <= SLOTS
        inside = np.array([v for time, v in zip(times, vectors, strict=True) if start <= time < end])
        np.testing.assert_allclose(mean([part]), inside.mean(axis=0), atol=1e-5)
        if len(parts) > 1:
            assert end - start >= timeline.bounds.minimum_us
    np.testing.assert_allclose(mean(parts), np.mean(vectors, axis=0), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(timelines())
def test_asking_on_the_way_changes_nothing(timeline: Timeline) -> None:
    plain, asked = (timeline.play(ask=ask)[0].parts(timeline.end_us) for ask in (False, True))
    assert [part.range for part in plain] == [part.range for part in asked]
    for one, two in zip(plain, asked, strict=True):
        np.testing.assert_array_equal(one.vectors, two.vectors)
        np.testing.assert_array_equal(one.weights, two.weights)


@settings(max_examples=100, deadline=None)
@given(st.integers(16, 5000), st.integers(1, 40), st.integers(1, 60_000))
def test_no_part_of_a_shot_is_longer_than_the_maximum(maximum: int, gap: int, length: int) -> None:
    gap = min(gap, maximum // SLOTS)
    segmenter = Segmenter(SegmentBounds(0, maximum, 100_000))
    for time in range(0, length, gap):
        segmenter.frame(time, X)
    lengths = [end - start for start, end in (part.range for part in segmenter.parts(length))]
    assert max(lengths) <= maximum
    if length > maximum:
        assert min(lengths) >= (maximum // SLOTS) * (SLOTS // 2 - 1)
