"""What `watch` makes of pictures: which are used, in what order, how late, and what it holds meanwhile."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.records import Cut, Frame, Pixels, ShotMode
from matchcut.server.shots import SHORTEST_SHOT, ShotDetector, watch
from matchcut.server.shots.exact import REACH, RUN_GAP, RUN_MOST
from matchcut.server.shots.watch import SPARE_EVERY, SPARES_KEPT

STEP_US = 40_000
SCENES = np.random.default_rng(4).integers(0, 256, (64, 48, 48, 3), np.uint8)


@dataclass(eq=False)
class FakePicture:
    """One picture of a scene; it counts what is asked of it."""

    time_us: int
    due: bool
    scene: int
    rgb_asked: int = 0
    look_asked: int = 0

    def rgb(self) -> Pixels:
        self.rgb_asked += 1
        return np.full((2, 2, 3), self.scene, np.uint8)

    def look(self) -> Pixels:
        self.look_asked += 1
        look: Pixels = SCENES[self.scene]
        return look


@dataclass
class Film:
    """Shots of the given lengths; every `every`-th picture is due, from `first` on."""

    lengths: list[int]
    every: int = 25
    first: int = 0
    alive: weakref.WeakSet[FakePicture] = field(default_factory=weakref.WeakSet)
    most_alive: int = 0
    closed: bool = False
    given_out: int = 0

    def pictures(self) -> Iterator[FakePicture]:
        try:
            for scene in [scene for scene, length in enumerate(self.lengths) for _ in range(length)]:
                number = self.given_out
                picture = FakePicture(number * STEP_US, number % self.every == self.first % self.every, scene)
                self.alive.add(picture)
                self.given_out += 1
                yield picture
                del picture
                self.most_alive = max(self.most_alive, len(self.alive))
        finally:
            self.closed = True

    @property
    def due(self) -> list[int]:
        return [n * STEP_US for n in range(sum(self.lengths)) if n % self.every == self.first % self.every]

    @property
    def cuts(self) -> list[int]:
        return [int(n) * STEP_US for n in np.cumsum(self.lengths)[:-1]]


def times(events: list[Frame | Cut], kind: type[Frame] | type[Cut]) -> list[int]:
    return [event.time_us for event in events if isinstance(event, kind)]


def in_order(events: list[Frame | Cut]) -> bool:
    """A cut comes after all frames before it and ahead of any at or after it."""
    keys = [(event.time_us, isinstance(event, Frame)) for event in events]
    return keys == sorted(keys)


lengths = st.lists(st.integers(SHORTEST_SHOT, 70), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 90), st.integers(0, 89))
def test_exact_uses_every_due_picture_and_one_of_each_other_shot(shots: list[int], every: int, first: int) -> None:
    film = Film(shots, every, first)
    pictures = list(film.pictures())
    events = list(watch(iter(pictures), ShotMode.EXACT))
    used = times(events, Frame)
    assert times(events, Cut) == film.cuts
    assert in_order(events)
    assert set(film.due) <= set(used)
    assert len(set(used)) == len(used)
    for start, length in zip([0, *film.cuts], shots, strict=True):
        of_shot = [time for time in used if start <= time < start + length * STEP_US]
        due = [time for time in film.due if start <= time < start + length * STEP_US]
        if due:
            assert of_shot == due
        else:
            (middle,) = of_shot
            assert abs(middle - (start + length * STEP_US / 2)) <= (SPARE_EVERY + length / SPARES_KEPT) * STEP_US
    assert all(picture.rgb_asked == (picture.time_us in used) for picture in pictures)
    assert all(picture.look_asked == 1 for picture in pictures)
    for event in events:
        if isinstance(event, Frame):
            assert event.rgb[0, 0, 0] == pictures[event.time_us // STEP_US].scene


@settings(max_examples=30, deadline=None)
@given(lengths, st.integers(1, 40))
def test_coarse_cuts_between_the_due_pictures_at_once(shots: list[int], every: int) -> None:
    film = Film(shots, every)
    seen: list[Frame | Cut] = []
    for event in watch(film.pictures(), ShotMode.COARSE):
        assert film.given_out * STEP_US > event.time_us >= (film.given_out - 1 - every) * STEP_US
        if isinstance(event, Frame):
            assert event.time_us == (film.given_out - 1) * STEP_US
        seen.append(event)
    scenes = np.repeat(np.arange(len(shots)), shots)[::every]
    halfway = [(2 * n + 1) * every * STEP_US // 2 for n in np.flatnonzero(np.diff(scenes)).tolist()]
    assert times(seen, Cut) == halfway
    assert times(seen, Frame) == film.due
    assert in_order(seen)


@pytest.mark.parametrize("mode", [ShotMode.OFF, ShotMode.COARSE])
def test_pictures_are_asked_for_no_more_than_is_needed(mode: ShotMode) -> None:
    pictures = list(Film([30, 30]).pictures())
    events = list(watch(iter(pictures), mode))
    assert times(events, Frame) == [0, 25 * STEP_US, 50 * STEP_US]
    assert len(times(events, Cut)) == (mode is ShotMode.COARSE)
    assert [picture.rgb_asked for picture in pictures] == [int(picture.due) for picture in pictures]
    looked = mode is ShotMode.COARSE
    assert [picture.look_asked for picture in pictures] == [int(picture.due and looked) for picture in pictures]


@pytest.mark.parametrize("mode", ShotMode)
def test_no_pictures_give_nothing(mode: ShotMode) -> None:
    assert list(watch(iter([]), mode)) == []


@pytest.mark.parametrize("mode", ShotMode)
def test_closing_it_closes_the_pictures(mode: ShotMode) -> None:
    film = Film([100, 100])
    events = watch(film.pictures(), mode)
    next(events)
    assert film.given_out < 200
    events.close()
    assert film.closed


@pytest.mark.parametrize("mode", ShotMode)
def test_an_error_of_the_pictures_comes_through(mode: ShotMode) -> None:
    def broken() -> Iterator[FakePicture]:
        yield from Film([10]).pictures()
        raise RuntimeError("decoder")

    with pytest.raises(RuntimeError, match="decoder"):
        list(watch(broken(), mode))


def test_an_exact_frame_comes_as_soon_as_it_is_settled() -> None:
    film = Film([400], every=10)
    for event in watch(film.pictures(), ShotMode.EXACT):
        if film.given_out < 400:
            assert film.given_out - 1 - event.time_us // STEP_US == REACH


@pytest.mark.parametrize(("film", "at_least"), [(Film([2000], first=1999, every=2000), SPARES_KEPT), (Film([2000]), 1)])
def test_few_pictures_are_held(film: Film, at_least: int) -> None:
    """None is due until the very end, or one every second: decoded pictures are large."""
    gc.collect()
    for _ in watch(film.pictures(), ShotMode.EXACT):
        pass
    assert at_least <= film.most_alive <= SPARES_KEPT + REACH // SPARE_EVERY + 4


def test_a_long_shot_without_a_due_picture_is_sampled_near_its_middle() -> None:
    film = Film([50, 3000, 50], first=3099, every=3100)
    early, middle, late = times(list(watch(film.pictures(), ShotMode.EXACT)), Frame)
    assert early < film.cuts[0] < middle < film.cuts[1] < late
    assert abs(middle / STEP_US - 1550) <= 3000 / SPARES_KEPT


def test_few_pictures_are_held_even_in_an_endless_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.clip(np.arange(120) * 2, 0, 235).astype(np.uint8)
    lags: list[int] = []

    def look(picture: FakePicture) -> Pixels:
        return np.full((48, 48, 3), ramp[picture.time_us // STEP_US], np.uint8)

    def push(detector: ShotDetector, time_us: int, look: Pixels) -> list[int]:
        cuts = plain_push(detector, time_us, look)
        lags.append((time_us - detector.settled_us) // STEP_US)
        return cuts

    plain_push = ShotDetector.push
    monkeypatch.setattr(FakePicture, "look", look)
    monkeypatch.setattr(ShotDetector, "push", push)
    film = Film([120], first=119, every=120)
    events = list(watch(film.pictures(), ShotMode.EXACT))
    assert max(lags) >= RUN_MOST, "the transition never was the longest"
    assert film.most_alive <= SPARES_KEPT + (REACH + RUN_MOST + RUN_GAP) // SPARE_EVERY + 4
    assert in_order(events)
