"""Shot detection on real clips and on sequences spliced from them, and what `watch` makes of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from matchcut.server.records import Floats, Pixels
from matchcut.server.shots import SHORTEST_SHOT, CoarseDetector, ShotDetector, exact
from matchcut.server.shots.exact import REACH, RUN_GAP, RUN_MOST

# Established by looking at every picture around each place where the clip changes: these are the numbers of the first
# pictures of new shots. world and b show one turning globe, bigbuckbunny one animated shot, carphone one man in a car;
# a is a title card that fades to black at its very end, with no shot after.
CUTS = {"bikes": [30, 76, 137, 187, 242], "world": [], "b": [], "bigbuckbunny": [], "carphone": [], "a": []}

STEP_US = 40_000
BLACK, WHITE = np.array([16, 128, 128], np.float32), np.array([235, 128, 128], np.float32)

Clips = dict[str, Pixels]
Shots = list[Pixels]


def looks_of(path: Path) -> Pixels:
    """(frames, 48, 48, 3): every picture's look."""
    shrink, looks = VideoReformatter(), []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            small = shrink.reformat(frame, 48, 48, "yuv444p", interpolation="AREA")
            planes = [
                np.frombuffer(memoryview(plane), np.uint8).reshape(48, plane.line_size)[:, :48]
                for plane in small.planes
            ]
            looks.append(np.stack(planes, axis=-1))
    return np.stack(looks)


@pytest.fixture(scope="session")
def clips(media: Path) -> Clips:
    return {name: looks_of(media / f"{name}.mp4") for name in CUTS}


@pytest.fixture(scope="session")
def shots(clips: Clips) -> Shots:
    """Single shots of at least 40 pictures, each unlike all others."""
    bikes = np.split(clips["bikes"], CUTS["bikes"])
    return [shot for shot in bikes if len(shot) >= 40] + [clips[name] for name in ("world", "bigbuckbunny", "carphone")]


def detect(looks: Sequence[Pixels] | Pixels, times_us: Sequence[int] | None = None) -> list[int]:
    """The cuts, as picture numbers."""
    times = [STEP_US * n for n in range(len(looks))] if times_us is None else list(times_us)
    detector = ShotDetector()
    found = [cut for time, look in zip(times, looks, strict=True) for cut in detector.push(time, look)]
    return [times.index(cut) for cut in found + detector.finish()]


def rounded(looks: Floats) -> Pixels:
    return np.clip(np.rint(looks), 0, 255).astype(np.uint8)


def extended(shot: Pixels, length: int, start: int) -> Floats:
    """`length` pictures of a shot that runs forth and back, from `start` on."""
    there_and_back = np.concatenate([shot, shot[-2:0:-1]]).astype(np.float32)
    return there_and_back[(start + np.arange(length)) % len(there_and_back)]


class Splicer:
    """Two shots after each other, chosen and trimmed by a seed; both run on during a transition."""

    def __init__(self, shots: Shots, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        one, two = self.rng.choice(len(shots), 2, replace=False)
        self.before, self.after, self.length = map(int, self.rng.integers((30, 30, 8), (60, 60, 25)))
        self.first = extended(shots[one], self.before + self.length, int(self.rng.integers(40)))
        self.second = extended(shots[two], self.length + self.after, int(self.rng.integers(40)))
        self.ramp = ((np.arange(self.length) + 1) / (self.length + 1)).astype(np.float32)[:, None, None, None]

    def hard(self) -> Pixels:
        return rounded(np.concatenate([self.first[: self.before], self.second]))

    def dissolve(self) -> Pixels:
        mixed = self.first[self.before :] * (1 - self.ramp) + self.second[: self.length] * self.ramp
        return rounded(np.concatenate([self.first[: self.before], mixed, self.second[self.length :]]))

    def fade(self, colour: Floats, hold: int) -> Pixels:
        out = self.first[self.before :] * (1 - self.ramp) + colour * self.ramp
        back = colour * (1 - self.ramp) + self.second[: self.length] * self.ramp
        blank = np.broadcast_to(colour, (hold, 48, 48, 3))
        parts = [self.first[: self.before], out, blank, back, self.second[self.length :]]
        return rounded(np.concatenate(parts))

    def flash(self, duration: int) -> Pixels:
        lit = self.first.copy()
        lit[self.before - 10 : self.before - 10 + duration] *= 0.3
        lit[self.before - 10 : self.before - 10 + duration] += 0.7 * 255
        return rounded(lit)


# --- real clips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUTS)
def test_real_clips_are_cut_where_they_are(clips: Clips, name: str) -> None:
    assert detect(clips[name]) == CUTS[name]


@pytest.mark.parametrize("every", [2, 3, 4])
@pytest.mark.parametrize("name", CUTS)
def test_faster_motion_is_no_cut(clips: Clips, name: str, every: int) -> None:
    """Every 2nd to 4th picture only: no cut is added. The one out of the fastest motion (a taxi fills the picture) may
    then be lost; the others are found at the first picture that remains of the new shot."""
    looks = clips[name][::every]
    expected = [-(-cut // every) for cut in CUTS[name]]
    surely = {cut for cut in expected if cut <= len(looks) - SHORTEST_SHOT} - {-(-76 // every)}
    assert surely <= set(detect(looks)) <= set(expected)


def test_a_night_scene_is_cut_like_a_day_scene(clips: Clips) -> None:
    assert detect(rounded((clips["bikes"].astype(np.float32) - BLACK) * np.float32(0.4) + BLACK)) == CUTS["bikes"]


@pytest.mark.parametrize("times", [2, 3])
def test_repeated_pictures_are_no_cuts(clips: Clips, times: int) -> None:
    assert detect(np.repeat(clips["bikes"], times, axis=0)) == [cut * times for cut in CUTS["bikes"]]


def test_a_variable_rate_changes_times_only(clips: Clips) -> None:
    gaps = np.random.default_rng(1).choice([1_000, 40_000, 700_000], len(clips["bikes"]))
    assert detect(clips["bikes"], np.cumsum(gaps).tolist()) == CUTS["bikes"]


# --- spliced sequences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_every_hard_cut_is_found_to_the_picture(shots: Shots, seed: int) -> None:
    splice = Splicer(shots, seed)
    assert detect(splice.hard()) == [splice.before]


def test_most_dissolves_are_found_once_and_inside(shots: Shots) -> None:
    found = 0
    for seed in range(40):
        splice = Splicer(shots, seed)
        cuts = detect(splice.dissolve())
        assert len(cuts) <= 1
        found += any(splice.before <= cut <= splice.before + splice.length for cut in cuts)
    assert found >= 36


def test_a_hard_cut_inside_a_dissolve_stands_for_both(shots: Shots) -> None:
    splice = Splicer(shots, 8)
    looks, jump = splice.dissolve(), splice.before + splice.length // 2
    assert len(detect(looks)) == 1
    looks[jump : splice.before + splice.length] = rounded(splice.second[: splice.length])[splice.length // 2 :]
    assert detect(looks) == [jump]


@pytest.mark.parametrize("colour", [BLACK, WHITE], ids=["black", "white"])
@pytest.mark.parametrize("seed", range(20))
def test_every_fade_is_one_cut(shots: Shots, colour: Floats, seed: int) -> None:
    splice = Splicer(shots, seed)
    hold = seed % 10
    (cut,) = detect(splice.fade(colour, hold))
    assert splice.before <= cut <= splice.before + 2 * splice.length + hold


def test_a_fade_out_ends_its_shot_where_the_picture_is_gone(shots: Shots) -> None:
    splice = Splicer(shots, 2)
    cut = detect(splice.fade(BLACK, 30))[0]
    assert splice.before + splice.length * 0.7 <= cut <= splice.before + splice.length + 1


@pytest.mark.parametrize("duration", range(1, SHORTEST_SHOT))
@pytest.mark.parametrize("seed", range(10))
def test_a_flash_is_no_cut(shots: Shots, duration: int, seed: int) -> None:
    assert detect(Splicer(shots, seed).flash(duration)) == []


def test_what_stays_longer_than_a_flash_is_a_shot(shots: Shots) -> None:
    splice = Splicer(shots, 0)
    start = splice.before - 10
    assert detect(splice.flash(SHORTEST_SHOT)) == [start, start + SHORTEST_SHOT]


def test_a_blended_picture_at_a_cut_makes_no_second_one(shots: Shots) -> None:
    looks = Splicer(shots, 3).hard().astype(np.float32)
    at = Splicer(shots, 3).before
    looks[at] = (looks[at - 1] + looks[at]) / 2
    assert detect(rounded(looks)) in ([at], [at + 1])


def test_a_still_is_one_shot() -> None:
    still = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    assert detect([still] * 200) == []


@pytest.mark.parametrize("blur", [8, 16, 32])
@pytest.mark.parametrize("seed", range(3))
def test_a_camera_over_a_soft_picture_cuts_nothing(
    synth: ModuleType, seed: int, blur: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without detail all motion is straight for a while; only that it does not mix two pictures tells it from a cut."""
    scene = synth.SoftScene(seed, blur)
    moves = [*map(scene.pan, (0.5, 1, 2, 4)), scene.zoom(1.005), scene.zoom(1.005)[::-1], scene.zoom(1.01)]
    assert [detect(looks) for looks in moves] == [[]] * len(moves)
    monkeypatch.setattr(exact, "GRADUAL_MIXTURE", -np.inf)
    assert any(detect(looks) for looks in moves)


# --- beginnings, ends, and how late an answer may come ---------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 5, 13, 30])
def test_short_clips_are_one_shot(shots: Shots, count: int) -> None:
    assert detect(shots[0][:count]) == []


@pytest.mark.parametrize("ends", [(SHORTEST_SHOT, 40), (40, SHORTEST_SHOT), (SHORTEST_SHOT, SHORTEST_SHOT)])
def test_the_shortest_first_and_last_shots_are_found(shots: Shots, ends: tuple[int, int]) -> None:
    assert detect(np.concatenate([shots[0][: ends[0]], shots[1][: ends[1]]])) == [ends[0]]


@pytest.mark.parametrize("ends", [(SHORTEST_SHOT - 1, 40), (40, SHORTEST_SHOT - 1)])
def test_less_than_a_shot_at_either_end_is_no_shot(shots: Shots, ends: tuple[int, int]) -> None:
    assert detect(np.concatenate([shots[0][: ends[0]], shots[1][: ends[1]]])) == []


def settled_after(looks: Pixels) -> tuple[list[int], list[int]]:
    """How many pictures each answer lags behind, and the cuts; asserts that no cut comes that was ruled out."""
    detector, lags, cuts, promised = ShotDetector(), [], [], 0
    for number, look in enumerate(looks):
        for cut in detector.push(number, look):
            assert cut >= promised
            cuts.append(cut)
        assert detector.settled_us >= promised
        promised = detector.settled_us
        lags.append(number - promised)
    assert all(cut >= promised for cut in detector.finish())
    assert detector.finish() == []
    assert detector.settled_us == len(looks)
    assert cuts == sorted(set(cuts))
    return lags, cuts


def test_what_is_settled_stays_settled(clips: Clips) -> None:
    lags, cuts = settled_after(clips["bikes"])
    assert cuts == CUTS["bikes"][:-1]
    assert max(lags) <= REACH + RUN_MOST + RUN_GAP
    assert float(np.median(lags)) < REACH


def test_an_endless_transition_does_not_wait_for_ever() -> None:
    ramp = np.clip(np.arange(120) * 2, 0, 235)
    lags, cuts = settled_after(np.broadcast_to(ramp[:, None, None, None], (120, 48, 48, 3)).astype(np.uint8))
    assert REACH + RUN_MOST - 1 <= max(lags) <= REACH + RUN_MOST + RUN_GAP
    assert len(cuts) >= 1


# --- coarse ----------------------------------------------------------------------------------------------------


def coarse(looks: Pixels, every: int) -> list[int]:
    detector = CoarseDetector()
    cuts: list[int] = []
    for number in range(0, len(looks), every):
        cuts += detector.push(number, looks[number])
        assert detector.settled_us == number
    assert detector.finish() == []
    return cuts


def test_coarse_cuts_lie_half_way_between_the_samples_around_each_cut(clips: Clips) -> None:
    """In the second shot a taxi drives in between samples 50 and 75 and leaves nothing of the picture: 63 is no cut
    but another scene to look at. The last shot holds no sample."""
    assert coarse(clips["bikes"], 25) == [38, 63, 88, 138, 188]


@pytest.mark.parametrize("name", ["world", "b", "bigbuckbunny", "carphone"])
@pytest.mark.parametrize("every", [1, 10, 25, 50])
def test_one_shot_is_one_shot_to_the_coarse_detector(clips: Clips, name: str, every: int) -> None:
    assert coarse(clips[name], every) == []


@pytest.mark.parametrize("detector", [ShotDetector, CoarseDetector])
def test_a_detector_that_saw_nothing_has_found_nothing(detector: Callable[[], ShotDetector | CoarseDetector]) -> None:
    empty = detector()
    assert empty.settled_us == 0
    assert empty.finish() == []
