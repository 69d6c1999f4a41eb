"""Pictures that come one by one: their times, which are due, and the limits that end them."""

from __future__ import annotations

import pytest

from matchcut.server.errors import InvalidInput, MediaLimitExceeded
from matchcut.server.images import from_frames
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Sampling, ShotMode

EVERY = Sampling(1000.0)


def shown(
    *times: int,
    sampling: Sampling = EVERY,
    limits: MediaLimits | None = None,
    wanted: MediaLimits | None = None,
    report: MediaReport | None = None,
) -> list[int]:
    """When the due ones of pictures of one black pixel are shown."""
    found = from_frames(
        ((time, bytes(3)) for time in times),
        width=1,
        height=1,
        pixel_format="rgb24",
        size=InputSize(),
        sampling=sampling,
        limits=limits or MediaLimits(),
        wanted=wanted,
        report=MediaReport() if report is None else report,
    )
    return [picture.time_us for picture in found if picture.due]


@pytest.mark.parametrize("start", [0, 1_700_000_000_000_000, -5, -(1 << 63), (1 << 63) - 1_100_001])
def test_times_count_from_the_first_picture(start: int) -> None:
    report = MediaReport()
    times = [start, start + 300_000, start + 1_100_000]
    assert shown(*times, sampling=Sampling(1.0), report=report) == [0, 1_100_000]
    assert (report.duration_us, report.bytes, report.frames_seen) == (1_900_000, 9, 3)
    for later in (0, -1):
        with pytest.raises(InvalidInput, match=f"{start + later} us follows {start} us") as caught:
            shown(start, start + later)
        assert caught.value.reason == "TIMES_MUST_GROW"


def test_a_single_picture_at_the_end_of_time() -> None:
    report = MediaReport()
    assert shown((1 << 63) - 1, report=report) == [0]
    assert report.duration_us == 0


def test_from_the_first_to_the_last_time_is_too_long() -> None:
    with pytest.raises(MediaLimitExceeded) as caught:
        shown(-(1 << 63), (1 << 63) - 1)
    assert caught.value.reason == "MEDIA_TOO_LONG"


@pytest.mark.parametrize(
    ("wanted", "times", "duration_us"),
    [
        (MediaLimits(frames=2, duration_us=0), [0, 1_000_000], 2_000_000),
        (MediaLimits(frames=0, duration_us=2_500_000), [0, 1_000_000, 2_000_000], 2_500_000),
        (MediaLimits(frames=0, duration_us=3_000_000), [0, 1_000_000, 2_000_000], 3_000_000),
    ],
)
@pytest.mark.parametrize("shots", [ShotMode.EXACT, ShotMode.OFF])
def test_a_limit_of_the_callers_own_ends_the_pictures(
    wanted: MediaLimits, times: list[int], duration_us: int, shots: ShotMode
) -> None:
    report = MediaReport()
    # The server's own limits are just above, and the pictures far beyond both.
    server = MediaLimits(frames=3, duration_us=3_000_000)
    stream = range(0, 60_000_000, 500_000)
    assert shown(*stream, sampling=Sampling(1.0, shots=shots), limits=server, wanted=wanted, report=report) == times
    assert [warning.reason for warning in report.warnings] == ["LIMIT_REACHED"]
    assert report.truncated
    assert report.duration_us == duration_us


def test_a_limit_of_the_callers_own_that_is_just_enough_ends_nothing() -> None:
    report, wanted = MediaReport(), MediaLimits(frames=3, duration_us=2_000_001)
    assert shown(0, 1_000_000, 2_000_000, wanted=wanted, report=report) == [0, 1_000_000, 2_000_000]
    assert not report.warnings
    assert not report.truncated
    assert report.duration_us == 2_000_001  # the last picture would stay for a second


def test_more_instants_are_served_by_the_first_picture_at_or_after_them() -> None:
    sampling = Sampling(0.1, instants_us=(250_000, 300_000, 400_001))
    assert shown(*range(0, 1_000_000, 100_000), sampling=sampling) == [0, 300_000, 500_000]
