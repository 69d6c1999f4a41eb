"""The small parts under decoding: wanted times, time stamps, first bytes, codec headers, geometry."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.convert import Converter, Geometry
from matchcut.server.decode.codecs import starts_with_idr, temporal_layers, traits
from matchcut.server.decode.lead import Lead, lead
from matchcut.server.decode.reader import Whole
from matchcut.server.decode.timeline import Timeline
from matchcut.server.errors import UnreadableMedia
from matchcut.server.records import InputSize
from matchcut.server.sampling import Instants


@given(st.lists(st.integers(0, 10**7), min_size=1, unique=True).map(sorted), st.sampled_from([0.3, 1.0, 4.0, 23.976]))
def test_wanted_times_are_served_by_the_first_picture_after(times: list[int], rate: float) -> None:
    instants = Instants(rate)
    taken = [time for time in times if instants.take(time)]
    period, expected, wanted = 1e6 / rate, [], 0
    for time in times:
        if time >= wanted * period - 1:
            expected.append(time)
            while time >= wanted * period - 1:
                wanted += 1
    assert taken == expected


def test_every_frame_of_a_rate_is_due_at_that_rate() -> None:
    for rate in (23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0, 999.0):
        instants = Instants(rate)
        assert all(instants.take(round(index * 1e6 / rate)) for index in range(5000))


def test_stamps_that_are_missing_or_jump() -> None:
    timeline = Timeline(Fraction(1, 1000), Fraction(25))
    assert [timeline.place(s) for s in (500, 540, None, 620)] == [0, 40_000, 80_000, 120_000]
    assert timeline.place(600) == 120_001  # a small step back is put just after
    assert timeline.place(100_000) == 99_500_000  # a hole is a hole
    assert timeline.place(0) == 99_540_000  # another recording goes on
    assert timeline.place(40) == 99_580_000


def box(kind: bytes, body: bytes = b"", *, wide: bool = False) -> bytes:
    size = len(body) + (16 if wide else 8)
    head = (1).to_bytes(4, "big") + kind + size.to_bytes(8, "big") if wide else size.to_bytes(4, "big") + kind
    return head + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Lead()),
        (b"\x00\x00\x00\x08ftyp", Lead()),
        (box(b"ftyp", b"isom") + box(b"moov", b"trak") + box(b"mdat", b"x" * 9), Lead()),
        (box(b"ftyp", b"isom") + box(b"moov", b"mvex") + box(b"moof"), Lead(fragmented=True)),
        (box(b"ftyp") + box(b"free", b"?" * 99) + box(b"mdat", b"x" * 9), Lead(index_last=True, promised=132)),
        (box(b"ftyp") + box(b"mdat", b"x" * 9, wide=True), Lead(index_last=True, promised=33)),
        (box(b"ftyp") + b"\0\0\0\0mdat", Lead(index_last=True)),
        (box(b"ftyp") + b"\0\0\0\3free" + b"?" * 99, Lead()),
        (b"RIFF\x10\0\0\0AVI ", Lead(promised=24)),
        (b"\x1aE\xdf\xa3\x82ab\x18\x53\x80\x67\x88", Lead(promised=20)),
        (b"\x1aE\xdf\xa3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", Lead()),
    ],
)
def test_first_bytes(data: bytes, expected: Lead) -> None:
    assert lead(lambda n: data[:n]) == expected


@given(st.binary(max_size=200))
def test_no_first_bytes_do_harm(data: bytes) -> None:
    for head in (b"", b"\x1aE\xdf\xa3", b"\0\0\0\x10ftyp", b"RIFF"):
        assert lead(lambda n, whole=head + data: whole[:n]).promised >= 0  # type: ignore[misc]
    starts_with_idr(data, 4)
    starts_with_idr(data, 0)
    temporal_layers(data)
    traits("h264", data)


def test_idr_is_told_from_other_pictures() -> None:
    for prefix, width in ((b"\0\0\0\2", 4), (b"\0\0\1", 0)):
        delimiter, idr, recovery = prefix + b"\x09\x10", prefix + b"\x65\x88", prefix + b"\x06\x06"
        plain = prefix + b"\x41\x9a"
        assert starts_with_idr(delimiter + idr, width)
        assert not starts_with_idr(delimiter + recovery + plain, width)
        assert not starts_with_idr(delimiter, width)


def test_codecs_that_nothing_is_known_of_are_decoded_in_full() -> None:
    assert traits("cinepak", None) is None
    assert temporal_layers(b"") == 0
    hevc = traits("hevc", None)
    assert hevc is not None
    assert not hevc.skips


def test_geometry() -> None:
    assert Geometry.of(90, None).displayed(192, 144) == (144, 192)
    assert Geometry.of(-180, Fraction(2)).displayed(100, 100) == (200, 100)
    assert Geometry.of(270, Fraction(2)).displayed(100, 100) == (100, 200)
    for absurd in (Fraction(0), Fraction(-1), Fraction(1000), Fraction(1, 1000)):
        assert Geometry.of(0, absurd).displayed(100, 50) == (100, 50)


def grey(width: int, height: int, layout: str) -> av.VideoFrame:
    """A frame of level 100. Ten bits are written plane by plane: swscale now and then leaves bytes of them unset."""
    if layout != "yuv422p10le":
        pixels = np.full((height, width, 3), 100, np.uint8)
        return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=layout)
    frame = av.VideoFrame(width, height, layout)
    for plane, level in zip(frame.planes, (408, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, level, "<u2").tobytes())
    return frame


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize(("width", "height"), [(2, 2), (2, 400), (4000, 16), (34, 18), (640, 360)])
@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p", "yuv422p10le", "nv12", "gray", "rgb24", "gbrp"])
def test_any_frame_becomes_the_encoders_size(width: int, height: int, layout: str, fit: str) -> None:
    frame = grey(width, height, layout)
    converter = Converter(InputSize(31, 45, fit=fit))  # type: ignore[arg-type]
    for quarters in range(4):
        rgb = converter.rgb(frame, Geometry(quarters))
        assert rgb.shape == (45, 31, 3)
        assert np.abs(rgb.astype(int) - 100).max() <= 8  # chroma of 10 bits is dithered
    assert converter.look(frame).shape == (48, 48, 3)


def test_a_frame_that_cannot_be_scaled_is_the_callers_to_know() -> None:
    with pytest.raises(UnreadableMedia, match="65000x1 in rgb24"):
        Converter(InputSize()).rgb(av.VideoFrame(65_000, 1, "rgb24"), Geometry())


def test_range_and_matrix_of_a_frame_are_kept() -> None:
    red = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    converter = Converter(InputSize(32, 32))
    for colorspace in (1, 5):  # BT.709, BT.601
        for color_range in (1, 2):  # limited, full
            frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=colorspace, dst_color_range=color_range
            )
            frame.colorspace, frame.color_range = (1 if colorspace == 1 else 6), color_range
            assert np.abs(converter.rgb(frame, Geometry()).astype(int) - (255, 0, 0)).max() <= 4


def test_a_whole_container_is_read_as_a_file_is() -> None:
    data = bytes(range(100))
    whole, file = Whole(bytearray(data)), io.BytesIO(data)
    for offset, whence in ((10, 0), (5, 1), (-20, 2), (200, 0), (0, 0)):
        assert whole.seek(offset, whence) == file.seek(offset, whence)
        assert whole.tell() == file.tell()
        assert whole.read(7) == file.read(7)


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-12, 1e-9])
def test_a_rate_of_almost_nothing_wants_the_first_picture(rate: float) -> None:
    instants = Instants(rate)
    assert [instants.take(time) for time in (0, 1, 86_400_000_000, 10**14)] == [True, False, False, False]
    instants.skip()
    assert instants.wanted_us > 10**15


@given(
    st.lists(st.integers(0, 10**7), min_size=1, unique=True).map(sorted),
    st.lists(st.integers(0, 10**7), unique=True).map(sorted),
    st.sampled_from([1e-9, 0.3, 1.0, 23.976]),
)
def test_more_wanted_times_are_served_beside_those_of_the_rate(times: list[int], also: list[int], rate: float) -> None:
    plain, instants = Instants(rate), Instants(rate, also_us=tuple(also))
    regular = {time for time in times if plain.take(time)}
    more = {next(time for time in times if time >= wanted) for wanted in also if wanted <= times[-1]}
    assert [time for time in times if instants.take(time)] == sorted(regular | more)


def test_no_early_picture_serves_one_of_the_others() -> None:
    instants = Instants(1.0, 1000, (1_500_000,))
    assert instants.take(0)
    assert instants.take(999_001)
    assert (instants.strict, instants.wanted_us, instants.earliest_us) == (True, 1_500_000, 1_500_000)
    assert not instants.take(1_499_999)
    assert instants.take(1_500_000)
    assert (instants.strict, instants.wanted_us, instants.earliest_us) == (False, 2_000_000, 1_999_000)
