"""Media from strangers: whatever the bytes are, the answer is pictures, perhaps with a warning, or a clear error."""

from __future__ import annotations

import gc
import io
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from matchcut.server.decode import pictures
from matchcut.server.errors import Cancelled, InvalidInput, MatchcutError, MediaLimitExceeded, UnreadableMedia
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Picture, Sampling, ShotMode

EVERY = Sampling(1000.0)


def run(
    synth: ModuleType,
    data: bytes,
    *,
    sampling: Sampling = EVERY,
    limits: MediaLimits | None = None,
    format: str = "",
    **source: Any,
) -> tuple[list[Picture], MediaReport]:
    report = MediaReport()
    found = pictures(
        synth.Source(data, **source),
        size=InputSize(96, 72),
        sampling=sampling,
        limits=limits or MediaLimits(),
        report=report,
        format=format,
    )
    return list(found), report


def refused(synth: ModuleType, data: bytes, kind: type[MatchcutError], **how: Any) -> MatchcutError:
    with pytest.raises(kind) as caught:
        run(synth, data, **how)
    return caught.value


@pytest.mark.parametrize("data", [b"garbage " * 4000, b"\0" * 50_000, b"\x00\x00\x00\x18ftypmp42" + b"x" * 99, b"RIFF"])
def test_garbage_is_refused(synth: ModuleType, data: bytes) -> None:
    assert refused(synth, data, UnreadableMedia).reason == "UNREADABLE_MEDIA"


def test_nothing_is_refused(synth: ModuleType) -> None:
    assert refused(synth, b"", UnreadableMedia).reason == "EMPTY_MEDIA"


@pytest.mark.parametrize("name", ["mp4", "MOV", ".mp4"])
def test_the_named_format_is_used(synth: ModuleType, name: str) -> None:
    assert len(run(synth, synth.clip(frames=5), format=name)[0]) == 5
    refused(synth, synth.clip(frames=5, container="matroska"), UnreadableMedia, format=name)


def huge_mjpeg(synth: ModuleType, container: str) -> bytes:
    """A few hundred bytes that claim to be 16000x16000: only the header of the JPEG says so."""
    small = synth.clip(frames=1, codec="mjpeg", container=container, pix_fmt="yuvj420p", size=(64, 64))
    at = small.index(b"\xff\xc0") + 5
    return bytes(small[:at] + struct.pack(">HH", 16000, 16000) + small[at + 4 :])


@pytest.mark.parametrize("container", ["avi", "matroska", "mp4"])
def test_a_huge_picture_is_never_allocated(synth: ModuleType, container: str) -> None:
    refused(synth, huge_mjpeg(synth, container), (MediaLimitExceeded, UnreadableMedia))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{}, {"container": "mpegts"}, {"container": "h264"}, {"container": "matroska"}])
def test_pictures_over_the_limit_are_refused_by_their_header(synth: ModuleType, how: dict[str, Any]) -> None:
    error = refused(synth, synth.clip(frames=3, **how), MediaLimitExceeded, limits=MediaLimits(pixels=100 * 100))
    assert error.reason == "PICTURE_TOO_LARGE"
    assert "192x144" in error.message


def test_a_side_may_have_16384_pixels(synth: ModuleType) -> None:
    how: dict[str, Any] = {"frames": 1, "codec": "mjpeg", "container": "matroska", "pix_fmt": "yuvj420p"}
    for size in ((16_400, 16), (16, 16_400)):
        assert refused(synth, synth.clip(size=size, **how), MediaLimitExceeded).reason == "PICTURE_TOO_LARGE"
    for size in ((16_384, 16), (16, 16_384)):
        (found,) = run(synth, synth.clip(size=size, **how))[0]
        assert found.rgb().shape == (72, 96, 3)
        assert found.look().shape == (48, 48, 3)


def test_bytes_are_limited(synth: ModuleType) -> None:
    for faststart in (True, False):
        data = synth.clip(frames=60, faststart=faststart)
        error = refused(synth, data, MediaLimitExceeded, limits=MediaLimits(bytes=len(data) - 1))
        assert error.reason == "MEDIA_TOO_MANY_BYTES"
        assert run(synth, data, limits=MediaLimits(bytes=len(data)))[1].bytes == len(data)


@pytest.mark.parametrize("shots", [ShotMode.EXACT, ShotMode.OFF])
def test_frames_and_time_are_limited(synth: ModuleType, shots: ShotMode) -> None:
    data, sampling = synth.clip(frames=60), Sampling(5.0, shots=shots)
    assert refused(synth, data, MediaLimitExceeded, sampling=sampling, limits=MediaLimits(frames=11)).reason == (
        "MEDIA_TOO_MANY_FRAMES"
    )
    run(synth, data, sampling=sampling, limits=MediaLimits(frames=12))
    error = refused(synth, data, MediaLimitExceeded, sampling=sampling, limits=MediaLimits(duration_us=2_399_999))
    assert error.reason == "MEDIA_TOO_LONG"
    run(synth, data, sampling=sampling, limits=MediaLimits(duration_us=2_400_000))


def test_frames_without_end_in_no_time_are_refused(synth: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.decode.notes.GRACE_FRAMES", 20)
    monkeypatch.setattr("matchcut.server.decode.notes.DENSEST_FPS", 10)
    dense = synth.clip(frames=60)
    assert refused(synth, dense, MediaLimitExceeded, sampling=Sampling(1, shots=ShotMode.EXACT)).reason == (
        "MEDIA_TOO_MANY_FRAMES"
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_a_positive_number(synth: ModuleType, rate: float) -> None:
    refused(synth, synth.clip(frames=2), InvalidInput, sampling=Sampling(rate))


def audio_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=8000, layout="mono")
        for index in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * index
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def test_sound_alone_is_refused(synth: ModuleType) -> None:
    assert refused(synth, audio_only(), UnreadableMedia).reason == "NO_VIDEO"


def test_cover_art_is_not_the_video(synth: ModuleType, media: Path) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        sound: Any = output.add_stream("aac", rate=8000, layout="mono")
        output.add_attachment("cover.jpg", "image/jpeg", (media / "lion.jpg").read_bytes())
        for samples in synth.tone(1.0):
            output.mux(sound.encode(samples))
        output.mux(sound.encode())
    assert refused(synth, file.getvalue(), UnreadableMedia).reason == "NO_VIDEO"


def with_broken_sound(synth: ModuleType) -> bytes:
    """The sound's packets, and the description of its decoder, are noise; the video is whole."""
    data = bytearray(synth.clip(frames=50, audio=True))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    for position, size in packets:
        assert position is not None
        data[position : position + size] = b"\xff" * size
    at = data.index(b"esds")
    data[at + 8 : at + 30] = b"\xff" * 22
    return bytes(data)


def test_broken_sound_does_no_harm(synth: ModuleType) -> None:
    found, report = run(synth, with_broken_sound(synth))
    assert len(found) == 50
    assert not report.truncated


@pytest.mark.parametrize("shots", [ShotMode.EXACT, ShotMode.OFF])
@pytest.mark.parametrize(
    "how", [{}, {"fragmented": True}, {"container": "matroska"}, {"container": "avi", "codec": "mpeg4"}]
)
def test_half_a_file_gives_half_the_pictures_and_says_so(
    synth: ModuleType, how: dict[str, Any], shots: ShotMode
) -> None:
    data = synth.clip(frames=100, **how)
    found, report = run(synth, data[: len(data) * 6 // 10], sampling=Sampling(25.0, shots=shots))
    assert 20 < len(found) < 80
    assert report.truncated
    assert "TRUNCATED" in [w.reason for w in report.warnings]
    assert not run(synth, data)[1].truncated


def test_a_file_whose_index_never_came_says_so(synth: ModuleType) -> None:
    data = synth.clip(frames=50, faststart=False)
    error = refused(synth, data[: len(data) // 2], UnreadableMedia)
    assert error.reason == "TRUNCATED"
    assert "index" in error.message


def test_a_file_that_ends_before_its_first_picture_is_refused(synth: ModuleType) -> None:
    data = synth.clip(frames=50)
    assert refused(synth, data[: data.index(b"mdat") + 20], UnreadableMedia).reason == "TRUNCATED"


@pytest.mark.parametrize("shots", [ShotMode.EXACT, ShotMode.OFF])
@pytest.mark.parametrize("container", ["mp4", "mpegts", "matroska"])
def test_damage_in_the_middle_costs_only_what_it_hits(synth: ModuleType, container: str, shots: ShotMode) -> None:
    data = bytearray(synth.clip(frames=100, container=container, size=(320, 240)))
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(np.random.default_rng(1).integers(0, 256, 3000, np.uint8))
    found, report = run(synth, bytes(data), sampling=Sampling(25.0, shots=shots))
    shown = [synth.number(p.rgb()) for p in found]
    assert shown[:20] == list(range(20))
    assert shown[-10:] == list(range(90, 100))
    assert report.frames_seen >= 60


def test_the_containers_claim_of_duration_is_not_believed(synth: ModuleType) -> None:
    data = bytearray(synth.clip(frames=25))
    at = data.index(b"mvhd") + 4 + 16
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    _, report = run(synth, bytes(data), limits=MediaLimits(duration_us=2_000_000))
    assert report.duration_us == 1_000_000


@pytest.mark.parametrize("at", [0, 20, 400, 9_000])
@pytest.mark.parametrize("error", [Cancelled("gone"), RuntimeError("a defect")])
@pytest.mark.parametrize("how", [{}, {"faststart": False}, {"container": "mpegts"}])
def test_an_error_of_the_source_comes_out_as_itself(
    synth: ModuleType, at: int, error: Exception, how: dict[str, Any]
) -> None:
    data = synth.clip(frames=60, **how)
    with pytest.raises(type(error)) as caught:
        run(synth, data[:at], error=error)
    assert caught.value is error
    # and it does not come out again, of something that has nothing to do with it
    assert len(run(synth, data)[0]) == 60


def test_closing_stops_reading_at_once(synth: ModuleType) -> None:
    data = synth.clip(frames=200, size=(320, 240))
    source = synth.Source(data, step=2048)
    stream: Any = pictures(
        source, size=InputSize(), sampling=EVERY, limits=MediaLimits(), report=MediaReport(), format="mp4"
    )
    kept = next(stream)
    stream.close()
    taken = source.taken
    assert taken < len(data)
    assert list(stream) == []
    assert source.taken == taken
    assert synth.number(kept.rgb()) == 0  # a picture outlives its container


def test_containers_do_not_pile_up(synth: ModuleType) -> None:
    data = synth.clip(frames=3)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def many(count: int) -> None:
        for _ in range(count):
            stream: Any = pictures(
                synth.Source(data), size=InputSize(), sampling=EVERY, limits=MediaLimits(), report=MediaReport()
            )
            next(stream)
            stream.close()
            with pytest.raises(UnreadableMedia):
                run(synth, b"garbage")

    many(40)
    before = resident()
    many(160)
    assert resident() - before < 24 << 20  # one kept container has a decoder of more than 1 MB
