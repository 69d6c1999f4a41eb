"""What is taken off a JPEG or PNG file before it is decoded, and what is learned from it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from matchcut.server.errors import InvalidInput
from matchcut.server.images import from_pictures
from matchcut.server.images.metadata import Bare, bare, orientation
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Pixels, Sampling

NOISE = np.random.default_rng(2).integers(0, 256, (24, 40, 3), np.uint8)


def encoded(kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind, **how)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def exif(*entries: tuple[int, int, bytes], order: str = ">") -> bytes:
    """A TIFF header and one directory of (tag, type, four bytes)."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    return head + b"".join(struct.pack(order + "HHI", tag, kind, 1) + value for tag, kind, value in entries)


def with_exif(body: bytes, *, ahead: bytes = b"") -> Iterator[bytes]:
    """A JPEG, which has `ahead` before it, and a PNG with this in the place of EXIF."""
    jpeg, png = encoded("JPEG"), encoded("PNG")
    segment = b"Exif\0\0" + body
    yield jpeg[:20] + ahead + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[20:]
    chunk = b"eXIf" + body
    yield png[:33] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("hidden", "words " * 100, zip=True)
    return info


FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"comment": b"hidden", "icc_profile": b"hidden" * 20_000, "dpi": (72, 72)}),
    "progressive jpeg": ("JPEG", {"progressive": True, "comment": b"hidden"}),
    "jpeg with restarts": ("JPEG", {"restart_marker_blocks": 1, "comment": b"hidden"}),
    "jpeg with two pictures": ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (40, 24))]}),
    "png": ("PNG", {"pnginfo": text(), "icc_profile": b"hidden" * 100}),
    "animated png": ("PNG", {"save_all": True, "append_images": [Image.new("RGB", (40, 24))]}),
}


@pytest.mark.parametrize("name", FILES)
def test_the_picture_stays_and_all_else_goes(name: str) -> None:
    kind, how = FILES[name]
    data = encoded(kind, **how)
    file = bare(data)
    assert len(file.data) < len(data)
    assert (file.width, file.height, file.orientation) == (40, 24, 1)
    for words in (b"hidden", b"ICC", b"iCCP", b"zTXt", b"MPF", b"acTL"):
        assert words not in file.data
    with Image.open(io.BytesIO(file.data)) as image:
        assert image.format == kind.replace("MPO", "JPEG")
        np.testing.assert_array_equal(np.asarray(image), decoded(data))


@pytest.mark.parametrize("name", ["cheetah.jpg", "lion.jpg", "tower.jpg"])
def test_photographs_are_the_same_without_their_metadata(media: Path, name: str) -> None:
    data = (media / name).read_bytes()
    np.testing.assert_array_equal(decoded(bare(data).data), decoded(data))


def test_inverted_colours_of_cmyk_stay_known() -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert("CMYK").save(file, "JPEG", comment=b"hidden")
    np.testing.assert_array_equal(decoded(bare(file.getvalue()).data), decoded(file.getvalue()))


@pytest.mark.parametrize("padding", [b"\xff", b"\xff\xff\xff", b"junk", b"\xff\0", b"\xff\x01\xff\xd7", b"\xff\xff\0j"])
def test_what_lies_between_segments_hides_none(padding: bytes) -> None:
    found = bare(next(with_exif(exif((0x0112, 3, b"\0\6\0\0")), ahead=padding)))
    assert found == Bare(encoded("JPEG"), 40, 24, 6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("width", ["H", "I"])
@pytest.mark.parametrize("value", [0, 1, 2, 5, 8, 9, 77, 65_535])
def test_orientation_is_one_of_eight(order: str, width: str, value: int) -> None:
    entry = (0x0112, 3 if width == "H" else 4, struct.pack(order + width, value).ljust(4, b"\0"))
    body = exif((0x010E, 2, b"abc\0"), entry, order=order)
    expected = value if 1 <= value <= 8 else 1
    assert orientation(body) == expected
    for data in with_exif(body):
        assert bare(data).orientation == expected
        report = MediaReport()
        list(from_pictures([(0, data)], size=InputSize(), sampling=Sampling(), limits=MediaLimits(), report=report))
        assert (report.width, report.height) == ((24, 40) if expected >= 5 else (40, 24))


CORRUPT = [
    b"",
    b"II*\0",
    b"no TIFF at all",
    exif((0x0112, 3, b"\0\6\0\0"))[:-6],
    exif((0x0112, 3, b"\0\6\0\0"))[:9] + b"\xff" * 30,
    b"MM\0*" + struct.pack(">I", 0xFFFFFFF0),
    b"MM\0*" + struct.pack(">IH", 8, 0xFFFF) + b"\x01\x0e\0\x02\xff\xff\xff\xff\xff\xff\xff\xff" * 3,
]


@pytest.mark.parametrize("body", CORRUPT)
def test_corrupt_exif_does_no_harm(body: bytes, recwarn: pytest.WarningsRecorder) -> None:
    for data in with_exif(body):
        (found,) = from_pictures(
            [(0, data)], size=InputSize(40, 24), sampling=Sampling(), limits=MediaLimits(), report=MediaReport()
        )
        assert np.abs(found.rgb().astype(int) - decoded(bare(data).data)).max() <= 1
    assert not recwarn.list


def test_corrupt_exif_is_what_the_decoder_would_warn_of() -> None:
    with (
        pytest.warns(UserWarning, match="EXIF|Tag data"),
        Image.open(io.BytesIO(next(with_exif(CORRUPT[-1])))) as image,
    ):
        image.getexif()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", encoded("JPEG")[:30]])
def test_what_is_no_picture_is_left_to_the_decoder(data: bytes) -> None:
    assert bare(data).width == 0
    assert data.startswith(bare(data).data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([encoded("JPEG"), encoded("PNG"), next(with_exif(CORRUPT[-1]))]), st.data())
def test_whatever_the_bytes_it_is_a_picture_or_an_error_that_can_be_told(data: bytes, draw: st.DataObject) -> None:
    file = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, len(file) - 1))
        file[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    report = MediaReport()
    try:
        list(from_pictures([(0, bytes(file))], size=InputSize(), sampling=Sampling(), limits=MediaLimits(),
                           report=report))  # fmt: skip
    except InvalidInput:
        return
    assert report.width > 0


def test_the_largest_size_that_is_announced_counts() -> None:
    png = encoded("PNG")
    second = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 5, 8, 2, 0, 0, 0)
    data = png[:33] + struct.pack(">I", 13) + second + struct.pack(">I", zlib.crc32(second)) + png[33:]
    assert bare(data) == Bare(data, 9_000, 24)
