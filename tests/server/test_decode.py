"""What comes out of a container: which pictures, when, and that leaving work out changes no bit of them."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from matchcut.server.convert import FramePicture
from matchcut.server.decode import pictures
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Sampling, ShotMode

SIZE = InputSize(96, 72)
X265 = "log-level=none:pools=none:frame-threads=1"

# name: (how the clip is made, whether pictures are left out at 5 fps of 25)
CLIPS: dict[str, tuple[dict[str, Any], bool]] = {
    "h264": ({}, True),
    "h264 without B": ({"bframes": 0}, True),
    "h264 b-pyramid": ({"gop": 50, "bframes": 3, "options": {"x264-params": "b-pyramid=normal"}}, True),
    "h264 open gop": ({"options": {"x264-params": "open-gop=1:bframes=3:min-keyint=12"}}, True),
    "h264 intra refresh": ({"container": "mpegts", "options": {"x264-params": "intra-refresh=1"}}, True),
    "h264 interlaced": ({"options": {"x264-params": "interlaced=1"}}, True),
    "h264 fragmented": ({"fragmented": True}, True),
    "h264 index last": ({"faststart": False}, True),
    "h264 10 bit": ({"pix_fmt": "yuv420p10le"}, True),
    "h264 mpegts": ({"container": "mpegts"}, True),
    "h264 matroska": ({"container": "matroska"}, True),
    "h264 flv": ({"container": "flv"}, True),
    "h264 raw": ({"container": "h264"}, False),
    "hevc": ({"codec": "libx265", "options": {"x265-params": X265}}, True),
    "hevc closed, layers": (
        {"codec": "libx265", "options": {"x265-params": X265 + ":open-gop=0:temporal-layers=3:b-adapt=0:bframes=4"}},
        True,
    ),
    "hevc mpegts": ({"codec": "libx265", "container": "mpegts", "options": {"x265-params": X265}}, True),
    "hevc raw": ({"codec": "libx265", "container": "hevc", "options": {"x265-params": X265}}, False),
    "vp8": ({"codec": "libvpx", "container": "webm", "options": {"cpu-used": "8", "lag-in-frames": "16"}}, True),
    "vp9": ({"codec": "libvpx-vp9", "container": "webm", "options": {"cpu-used": "8", "deadline": "good"}}, True),
    "av1": ({"codec": "libsvtav1", "container": "webm", "options": {"preset": "12"}}, True),
    "mpeg4": ({"codec": "mpeg4", "bframes": 2}, True),
    "mpeg4 avi": ({"codec": "mpeg4", "bframes": 2, "container": "avi"}, True),
    "mpeg2": ({"codec": "mpeg2video", "bframes": 2, "container": "mpegts"}, True),
    "mpeg2 ps": ({"codec": "mpeg2video", "bframes": 2, "container": "mpeg"}, True),
    "mjpeg": ({"codec": "mjpeg", "container": "matroska", "pix_fmt": "yuvj420p"}, True),
}


def decode(
    synth: ModuleType, data: bytes, sampling: Sampling, *, size: InputSize = SIZE, format: str = ""
) -> tuple[list[FramePicture], MediaReport]:
    report = MediaReport()
    source = synth.Source(data)
    found = list(pictures(source, size=size, sampling=sampling, limits=MediaLimits(), report=report, format=format))
    assert all(isinstance(picture, FramePicture) for picture in found)
    return found, report  # type: ignore[return-value]


@pytest.mark.parametrize("name", CLIPS)
def test_leaving_work_out_changes_no_bit(synth: ModuleType, name: str) -> None:
    how, saves = CLIPS[name]
    data = synth.clip(frames=60, size=(128, 96), **how)
    for rate in (5.0, 0.7):
        every, full = decode(synth, data, Sampling(rate, shots=ShotMode.EXACT))
        due = [picture for picture in every if picture.due]
        picked, report = decode(synth, data, Sampling(rate, shots=ShotMode.COARSE))
        assert len(every) == full.frames_seen == 60
        assert [p.time_us for p in picked] == [p.time_us for p in due]
        assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(picked, due, strict=True))
        assert (report.frames_seen < 60) is saves
        # not only the same, but the right ones
        wanted = [round(i / rate * 1e6) for i in range(len(picked))]
        assert [synth.number(p.rgb()) for p in picked] == [-(-w // 40_000) for w in wanted]
        assert report.duration_us == full.duration_us == 2_400_000
        assert report.max_time_error_us == 0
        assert not report.warnings


@pytest.mark.parametrize("clip", ["bikes.mp4", "carphone.mp4", "a.mp4", "bigbuckbunny.mp4"])
def test_real_clips_are_sampled_exactly(synth: ModuleType, media: Path, clip: str) -> None:
    data = (media / clip).read_bytes()
    due = [p for p in decode(synth, data, Sampling(1.0, shots=ShotMode.EXACT))[0] if p.due]
    picked, report = decode(synth, data, Sampling(1.0, shots=ShotMode.OFF))
    assert [p.time_us for p in picked] == [p.time_us for p in due]
    assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(picked, due, strict=True))
    assert report.codec == "h264"
    assert report.container == "mp4"
    assert report.bytes == len(data)


@pytest.mark.parametrize("rate", [25.0, 30.0, 1e9])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_rate_above_the_medias_own_takes_every_picture(synth: ModuleType, rate: float, container: str) -> None:
    found, _ = decode(synth, synth.clip(frames=30, container=container), Sampling(rate))
    assert [synth.number(p.rgb()) for p in found] == list(range(30))


def test_thirty_frames_a_second_survive_a_clock_of_milliseconds(synth: ModuleType) -> None:
    found, _ = decode(synth, synth.clip(frames=45, fps=30, container="matroska"), Sampling(30.0))
    assert len(found) == 45


def test_variable_rate_goes_by_time_stamps(synth: ModuleType) -> None:
    times = [0, 10, 500, 990, 1000, 1010, 1700, 2100, 2101, 2900]
    found, report = decode(synth, synth.clip(frames=10, times_ms=times, container="matroska"), Sampling(1.0))
    assert [p.time_us // 1000 for p in found] == [0, 1000, 2100]
    assert [synth.number(p.rgb()) for p in found] == [0, 4, 7]
    assert report.duration_us >= 2_900_000


def trimmed(data: bytes, frames: int) -> bytes:
    """The same packets with an edit list that hides the first frames, as cutting without encoding leaves them."""
    file = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"}
    with av.open(io.BytesIO(data), "r") as source, av.open(file, "w", format="mp4", options=options) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        cut = round(frames / 25 / stream.time_base)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, copy
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("shots", [ShotMode.EXACT, ShotMode.OFF])
def test_what_an_edit_list_hides_stays_hidden(synth: ModuleType, shots: ShotMode) -> None:
    data = trimmed(synth.clip(frames=60, gop=50), 17)
    with av.open(io.BytesIO(data), "r") as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) == 17
    found, report = decode(synth, data, Sampling(5.0, shots=shots))
    due = [picture for picture in found if picture.due]
    assert [synth.number(p.rgb()) for p in due] == list(range(17, 60, 5))
    assert [p.time_us for p in due] == list(range(0, 1_720_000, 200_000))
    assert (report.frames_seen < 43) is (shots is ShotMode.OFF)


def test_a_hole_of_three_hours_makes_one_picture_due(synth: ModuleType) -> None:
    times = [0, 40, 80, 10_800_000, 10_800_040]
    for shots in (ShotMode.EXACT, ShotMode.OFF):
        found, _ = decode(synth, synth.clip(frames=5, times_ms=times), Sampling(10.0, shots=shots))
        assert [p.time_us for p in found if p.due] == [0, 10_800_000_000]


def test_times_start_at_the_first_picture(synth: ModuleType) -> None:
    times = [5_000 + 40 * i for i in range(30)]
    found, _ = decode(synth, synth.clip(frames=30, times_ms=times, container="mpegts"), Sampling(5.0))
    assert [p.time_us for p in found] == [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]


def test_joined_recordings_go_on_in_time(synth: ModuleType) -> None:
    part = synth.clip(frames=50, container="mpegts")
    found, report = decode(synth, part + part, Sampling(5.0, shots=ShotMode.EXACT))
    times = [p.time_us for p in found]
    assert 96 <= len(found) <= 100  # the seam itself may cost a picture
    assert all(a < b for a, b in pairwise(times))
    assert 3_900_000 <= report.duration_us <= 4_200_000
    assert 19 <= sum(p.due for p in found) <= 21


@pytest.mark.parametrize("tolerance_us", [100_000, 240_000, 1_000_000])
def test_a_tolerance_is_kept_and_reported(synth: ModuleType, tolerance_us: int) -> None:
    found, report = decode(synth, synth.clip(frames=100), Sampling(5.0, tolerance_us))
    assert [synth.number(p.rgb()) for p in found] == [p.time_us // 40_000 for p in found]
    errors = [min(abs(p.time_us - wanted) for p in found) for wanted in range(0, 3_960_001, 200_000)]
    assert max(errors) <= max(tolerance_us, 40_000)
    assert 0 < report.max_time_error_us <= tolerance_us


def test_keyframes_alone_are_decoded_where_they_will_do(synth: ModuleType) -> None:
    found, report = decode(synth, synth.clip(frames=100, bframes=0), Sampling(5.0, 240_000))
    assert [p.time_us // 40_000 for p in found] == list(range(0, 100, 12))
    assert report.frames_seen == len(found)
    assert report.max_time_error_us == 240_000


def test_without_a_keyframe_in_reach_sampling_is_exact(synth: ModuleType) -> None:
    found, report = decode(synth, synth.clip(frames=100, gop=100), Sampling(1.0, 300_000))
    assert [p.time_us for p in found] == [0, 1_000_000, 2_000_000, 3_000_000]
    assert report.max_time_error_us == 0


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
def test_rotated_pictures_come_upright(synth: ModuleType, degrees: int) -> None:
    def sideways(index: int, size: tuple[int, int]) -> Any:
        upright = (size[1], size[0]) if degrees % 180 else size
        return np.ascontiguousarray(np.rot90(synth.image(index, upright), -degrees // 90))

    data = synth.clip(frames=3, rotation=degrees, draw=sideways)
    found, report = decode(synth, data, Sampling(25.0), size=InputSize(120, 120))
    assert [synth.number(p.rgb()) for p in found] == [0, 1, 2]
    assert (report.width, report.height) == ((144, 192) if degrees % 180 else (192, 144))
    assert found[0].rgb().flags.c_contiguous


def test_pixel_aspect_counts_in_crop(synth: ModuleType) -> None:
    # 96x144 stored pixels, each twice as wide as high: shown as 192x144; the middle square is stored columns 12..84
    def squeezed(index: int, size: tuple[int, int]) -> Any:
        picture = np.zeros((144, 96, 3), np.uint8)
        picture[:, 12:84] = 255
        return picture

    data = synth.clip(frames=2, size=(96, 144), sar=Fraction(2), draw=squeezed)
    found, report = decode(synth, data, Sampling(1.0), size=InputSize(72, 72, fit="crop"))
    assert (report.width, report.height) == (192, 144)
    assert found[0].rgb().shape == (72, 72, 3)
    assert found[0].rgb()[:, 2:-2].min() > 200
    stretched, _ = decode(synth, data, Sampling(1.0), size=InputSize(72, 72))
    assert stretched[0].rgb()[:, :4].max() < 60


def test_exact_shots_yield_every_picture_small(synth: ModuleType) -> None:
    found, _ = decode(synth, synth.clip(frames=20), Sampling(5.0, shots=ShotMode.EXACT))
    assert len(found) == 20
    look = found[7].look()
    assert look.shape == (48, 48, 3)
    assert look.dtype == np.uint8
    whole = found[7].frame.to_ndarray(format="gray").astype(float)
    means = whole.reshape(48, 3, 48, 4).mean(axis=(1, 3))
    assert np.abs(means - look[:, :, 0]).mean() < 20  # gray stretches the luma range
    assert np.corrcoef(means.ravel(), look[:, :, 0].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("how", [{"fragmented": True}, {"container": "mpegts"}, {"container": "matroska"}, {}])
@pytest.mark.parametrize("named", [True, False])
def test_the_first_picture_comes_while_bytes_arrive(synth: ModuleType, how: dict[str, Any], named: bool) -> None:
    def noisy(index: int, size: tuple[int, int]) -> Any:
        return np.random.default_rng(index).integers(0, 255, (size[1], size[0], 3), np.uint8)

    data = synth.clip(frames=100, size=(256, 192), gop=10, bframes=0, draw=noisy, **how)
    source = synth.Source(data, step=4096)
    name = how.get("container", "mp4") if named else ""
    stream = pictures(
        source, size=SIZE, sampling=Sampling(1.0), limits=MediaLimits(), report=MediaReport(), format=name
    )
    assert next(stream).time_us == 0
    assert source.taken < len(data) / 3
    stream.close()  # type: ignore[attr-defined]


def test_the_same_frames_whatever_the_pieces(synth: ModuleType) -> None:
    data = synth.clip(frames=30)
    for step in (1, 1000, 1 << 20):
        source = synth.Source(data, step=step)
        found = list(pictures(source, size=SIZE, sampling=Sampling(5.0), limits=MediaLimits(), report=MediaReport()))
        assert [synth.number(p.rgb()) for p in found] == [0, 5, 10, 15, 20, 25]
