"""Media of any form to frames and cuts: given segments, the caller's own limits, and when work ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import pytest

from matchcut.server.clock import Clock
from matchcut.server.errors import DeadlineExceeded, MediaLimitExceeded
from matchcut.server.frames import frames_and_cuts
from matchcut.server.intake import Intake
from matchcut.server.records import (
    Container,
    Cut,
    DecodedFrames,
    Frame,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Sampling,
    ShotMode,
    TimeRange,
)

SECOND = 1_000_000
SIZE = InputSize(96, 72)
NONE = MediaLimits(pixels=0, bytes=0, frames=0, duration_us=0)
MODES = list(ShotMode)


def clip_of(synth: ModuleType, seconds: float = 4.0, **how: object) -> Callable[[], Container]:
    data = synth.clip(frames=round(seconds * 25), **how)
    return lambda: Container(synth.Source(data))


def still(*times_s: float) -> DecodedFrames:
    """Frames of one grey pixel."""
    return DecodedFrames(((round(time * SECOND), b"\x50") for time in times_s), 1, 1, "gray8")


def run(
    form: Container | DecodedFrames,
    sampling: Sampling = Sampling(),  # noqa: B008  # frozen
    *,
    wanted: MediaLimits | None = None,
    limits: MediaLimits = MediaLimits(),  # noqa: B008  # frozen
    segments: Sequence[tuple[float, float]] = (),
) -> tuple[list[float], MediaReport]:
    """When the frames are shown, in seconds, and the report."""
    given = tuple(TimeRange(round(start * SECOND), round(end * SECOND)) for start, end in segments)
    report = MediaReport()
    intake = Intake(Media(form, sampling, limits, wanted, given), Clock(), report)
    events = frames_and_cuts(intake.media, SIZE, report, Clock())
    return [event.time_us / SECOND for event in events if isinstance(event, Frame)], report


def reasons(report: MediaReport) -> list[str]:
    return [warning.reason for warning in report.warnings]


# --- given segments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", MODES)
def test_each_given_segment_has_a_frame_from_its_start(synth: ModuleType, shots: ShotMode) -> None:
    segments = [(0, 1), (1.1, 1.9), (1.91, 1.93), (2, 3)]
    times, report = run(clip_of(synth)(), Sampling(1.0, shots=shots), segments=segments)
    assert times == [0, 1, 1.12, 1.92, 2, 3]
    assert not report.warnings
    assert report.duration_us == 4 * SECOND


@pytest.mark.parametrize("gap_s", [0.1, 0.25])
def test_each_given_segment_of_pictures_has_a_frame(gap_s: float) -> None:
    form = still(*(1e9 + gap_s * n for n in range(round(4 / gap_s))))
    times, report = run(form, Sampling(1.0), segments=[(0, 1), (1.1, 1.9), (2, 3)])
    assert any(1.1 <= time < 1.9 for time in times)
    assert set(times) >= {0, 1, 2, 3}
    assert len(times) == 5
    assert not report.warnings


def test_a_tolerance_does_not_lead_out_of_a_given_segment(synth: ModuleType) -> None:
    """Keyframes lie at 0, 0.48, 0.96 ... s; each of the segments lies between two, and the tolerance reaches both."""
    segments = [(0.5, 0.9), (1.0, 1.4), (1.5, 1.9), (1.95, 2.3)]
    times, report = run(clip_of(synth)(), Sampling(1.0, tolerance_us=SECOND), segments=segments)
    assert not report.warnings
    for start, end in segments:
        assert any(start <= time < end for time in times)


def test_given_segments_need_no_picture_but_theirs(synth: ModuleType) -> None:
    """Shots are not looked for where segments are given, so not every picture is decoded, in whatever mode."""
    clip = clip_of(synth)
    seen = [run(clip(), Sampling(1.0, shots=mode), segments=[(0, 1)])[1].frames_seen for mode in MODES]
    assert len(set(seen)) == 1
    assert seen[0] < 100 == run(clip(), Sampling(1.0, shots=ShotMode.EXACT))[1].frames_seen


def test_given_segments_without_a_frame_are_told_of(synth: ModuleType) -> None:
    segments = [(0, 1), (1.001, 1.002), (3.5, 9), (12, 13)]
    _, report = run(clip_of(synth)(), segments=segments)
    assert reasons(report) == ["SEGMENT_WITHOUT_FRAME"]
    assert "2 of the given segments" in report.warnings[0].message
    assert "1.001 to 1.002 s" in report.warnings[0].message


# --- the caller's own limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", MODES)
@pytest.mark.parametrize("tolerance_us", [0, 200_000])
def test_the_callers_limit_of_frames_wins_over_the_servers(
    synth: ModuleType, shots: ShotMode, tolerance_us: int
) -> None:
    wanted, limits = MediaLimits(frames=15, duration_us=0), MediaLimits(frames=16)
    times, report = run(clip_of(synth)(), Sampling(25.0, tolerance_us, shots), wanted=wanted, limits=limits)
    assert len(times) == 15
    assert reasons(report) == ["LIMIT_REACHED"]
    assert report.truncated
    assert times[-1] * SECOND < report.duration_us <= (times[-1] + 0.5) * SECOND


@pytest.mark.parametrize("shots", MODES)
@pytest.mark.parametrize("tolerance_us", [0, 200_000])
@pytest.mark.parametrize("rate", [25.0, 1.0, 0.01])
@pytest.mark.parametrize("container", ["mp4", "matroska", "h264"])
def test_the_callers_limit_of_time_wins_over_the_servers(
    synth: ModuleType, shots: ShotMode, tolerance_us: int, rate: float, container: str
) -> None:
    wanted, limits = MediaLimits(frames=0, duration_us=2_500_000), MediaLimits(duration_us=2_600_000)
    clip = clip_of(synth, container=container)
    times, report = run(clip(), Sampling(rate, tolerance_us, shots), wanted=wanted, limits=limits)
    assert times[0] == 0
    assert {25.0: 2, 1.0: 1.9, 0.01: 0}[rate] <= times[-1] < 2.5
    assert reasons(report) == ["LIMIT_REACHED"]
    assert report.truncated
    assert report.duration_us == 2_500_000
    with pytest.raises(MediaLimitExceeded):
        run(clip(), Sampling(rate, tolerance_us, shots), limits=limits)


def test_frames_are_the_same_up_to_the_callers_limit(synth: ModuleType) -> None:
    clip, wanted = clip_of(synth, gop=50, bframes=3), MediaLimits(frames=0, duration_us=2_500_000)
    for mode in MODES:
        whole, _ = run(clip(), Sampling(5.0, shots=mode))
        assert run(clip(), Sampling(5.0, shots=mode), wanted=wanted)[0] == [time for time in whole if time < 2.5]


def test_a_limit_of_time_between_the_samples_ends_the_media_there(synth: ModuleType) -> None:
    times, report = run(clip_of(synth)(), wanted=MediaLimits(frames=0, duration_us=3_500_000))
    assert times == [0, 1, 2, 3]
    assert report.duration_us == 3_500_000
    assert reasons(report) == ["LIMIT_REACHED"]


@pytest.mark.parametrize("shots", MODES)
def test_a_callers_limit_that_is_just_enough_ends_nothing(synth: ModuleType, shots: ShotMode) -> None:
    wanted = MediaLimits(frames=4, duration_us=4 * SECOND)
    times, report = run(clip_of(synth)(), Sampling(shots=shots), wanted=wanted, limits=wanted)
    assert times == [0, 1, 2, 3]
    assert not report.warnings
    assert not report.truncated
    assert report.duration_us == 4 * SECOND


@pytest.mark.parametrize("wanted", [MediaLimits(frames=1000, duration_us=0), MediaLimits(frames=0, duration_us=10**12)])
@pytest.mark.parametrize("form", ["container", "pictures"])
def test_a_callers_limit_does_not_raise_the_servers(synth: ModuleType, wanted: MediaLimits, form: str) -> None:
    limits = MediaLimits(frames=3, duration_us=2 * SECOND)
    media = clip_of(synth)() if form == "container" else still(0, 1, 2, 3, 4)
    with pytest.raises(MediaLimitExceeded):
        run(media, wanted=wanted, limits=limits)


def test_frames_of_shots_without_a_sample_count_too() -> None:
    """Three shots within the first second: the sample is the first frame, and the other two add one each."""
    scenes = np.random.default_rng(1).integers(0, 256, (4, 48, 48, 3), np.uint8)
    stream = ((40_000 * n, scenes[n // 8].tobytes()) for n in range(32))
    media = DecodedFrames(stream, 48, 48, "rgb24")
    times, report = run(media, Sampling(0.1, shots=ShotMode.EXACT), wanted=MediaLimits(frames=3, duration_us=0))
    assert len(times) == 3
    assert reasons(report) == ["LIMIT_REACHED"]
    assert 0.64 < report.duration_us / SECOND < 1.28


@pytest.mark.parametrize("how", [{}, {"fragmented": True}, {"container": "mpegts"}, {"container": "matroska"}])
@pytest.mark.parametrize("shots", MODES)
@pytest.mark.parametrize("part", [0.45, 0.62, 0.81])
def test_where_the_callers_limit_of_bytes_ends_the_media_nothing_is_amiss(
    synth: ModuleType, how: dict[str, str], shots: ShotMode, part: float
) -> None:
    data = synth.clip(frames=100, **how)
    wanted = MediaLimits(bytes=round(len(data) * part), frames=0, duration_us=0)
    times, report = run(Container(synth.Source(data)), Sampling(25.0, shots=shots), wanted=wanted)
    assert 10 < len(times) < 95
    assert reasons(report) == ["LIMIT_REACHED"]
    assert report.truncated


def test_damage_before_the_callers_limit_of_bytes_is_told_of(synth: ModuleType) -> None:
    data = synth.clip(frames=100, container="mpegts", size=(320, 240))
    gap = len(data) // 4 // 188 * 188
    lossy = data[:gap] + data[gap + 5 * 188 :]
    wanted = MediaLimits(bytes=len(data) // 2, frames=0, duration_us=0)
    _, report = run(Container(synth.Source(lossy)), Sampling(25.0), wanted=wanted)
    assert sorted(reasons(report)) == ["CORRUPT_PACKETS", "LIMIT_REACHED"]


# --- when work ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", MODES)
@pytest.mark.parametrize("faststart", [True, False])
def test_a_caller_who_is_gone_ends_the_work_although_no_frame_comes(
    synth: ModuleType, shots: ShotMode, faststart: bool
) -> None:
    """A hundred pictures, of which one is wanted; the caller leaves after the fortieth question."""
    gone, asked, report = DeadlineExceeded("too late"), 0, MediaReport()

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 40:
            raise gone

    media = Media(clip_of(synth, faststart=faststart)(), Sampling(0.001, shots=shots), MediaLimits())
    with pytest.raises(DeadlineExceeded) as caught:
        list(frames_and_cuts(media, SIZE, report, Clock(), check=check))
    assert caught.value is gone
    assert asked == 41
    assert report.frames_seen < 41


def test_the_caller_is_asked_after_for_each_packet_that_is_decoded(synth: ModuleType) -> None:
    """The hundred packets of one group wait until the last but one proves to be wanted, and then all are decoded."""
    asked, report = 0, MediaReport()

    def check() -> None:
        nonlocal asked
        asked += 1

    sampling = Sampling(0.001, shots=ShotMode.OFF, instants_us=(3_900_000,))
    media = Media(clip_of(synth, gop=100, bframes=0)(), sampling, MediaLimits())
    assert len(list(frames_and_cuts(media, SIZE, report, Clock(), check=check))) == 2
    assert report.frames_seen > 90
    assert asked >= 100 + report.frames_seen


def test_cuts_come_with_the_frames(synth: ModuleType) -> None:
    def scene(index: int, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        shade = np.random.default_rng(index // 30).integers(0, 256, (6, 8, 3), np.uint8)
        return np.ascontiguousarray(np.kron(shade, np.ones((size[1] // 6, size[0] // 8, 1), np.uint8)))

    media = Media(clip_of(synth, draw=scene)(), Sampling(1.0, shots=ShotMode.EXACT), MediaLimits())
    events = list(frames_and_cuts(media, SIZE, MediaReport(), Clock()))
    assert [event.time_us for event in events if isinstance(event, Cut)] == [1_200_000, 2_400_000, 3_600_000]
