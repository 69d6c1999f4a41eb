"""Pictures that need no demuxer: JPEG, PNG and frames that are already decoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matchcut.server.errors import InvalidInput, MatchcutError, MediaLimitExceeded, UnreadableMedia
from matchcut.server.images import from_frames, from_pictures
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Picture, Pixels, Sampling, ShotMode

EVERY = Sampling(1000.0)
SIZE = InputSize(64, 48)


def quarters(width: int = 64, height: int = 48) -> Pixels:
    """Red, green over blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def encoded(picture: Pixels, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **how)
    return file.getvalue()


def files(*data: bytes, size: InputSize = SIZE, sampling: Sampling = EVERY, limits: MediaLimits | None = None,
          report: MediaReport | None = None, step_us: int = 40_000) -> list[Picture]:  # fmt: skip
    stream = ((step_us * index, one) for index, one in enumerate(data))
    report = MediaReport() if report is None else report
    return list(from_pictures(stream, size=size, sampling=sampling, limits=limits or MediaLimits(), report=report))


def frames(data: list[tuple[int, bytes]], width: int, height: int, layout: Any, *, size: InputSize = SIZE,
           sampling: Sampling = EVERY, limits: MediaLimits | None = None, report: MediaReport | None = None
           ) -> list[Picture]:  # fmt: skip
    return list(
        from_frames(
            iter(data), width=width, height=height, pixel_format=layout, size=size, sampling=sampling,
            limits=limits or MediaLimits(), report=MediaReport() if report is None else report,
        )
    )  # fmt: skip


def test_png_comes_out_as_it_went_in() -> None:
    report = MediaReport()
    (found,) = files(encoded(quarters()), report=report)
    assert np.array_equal(found.rgb(), quarters())
    assert found.rgb().flags.c_contiguous
    assert (report.codec, report.width, report.height, report.frames_seen) == ("png", 64, 48, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_honoured(orientation: int, kind: str) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = Image.fromarray(quarters(256, 192))
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, kind, exif=exif)
    report = MediaReport()
    (found,) = files(file.getvalue(), report=report)
    assert np.abs(found.rgb()[4:20, 4:28].astype(int) - (255, 0, 0)).max() < 12
    assert np.abs(found.rgb()[28:44, 4:28].astype(int) - (0, 0, 255)).max() < 12
    assert (report.width, report.height) == (256, 192)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = np.full((48, 64), 128 if mode != "1" else 255, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    (found,) = files(file.getvalue())
    assert np.abs(found.rgb().astype(int) - int(grey[0, 0])).max() <= 2


@pytest.mark.parametrize("name", ["cheetah.jpg", "lion.jpg", "tower.jpg"])
def test_photographs_agree_with_pillow(media: Path, name: str) -> None:
    data = (media / name).read_bytes()
    (found,) = files(data, size=InputSize())
    with Image.open(io.BytesIO(data)) as image:
        reference = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(found.rgb().astype(int) - reference).mean() < 2
    (cropped,) = files(data, size=InputSize(fit="crop"))
    with Image.open(io.BytesIO(data)) as image:
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        square = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR, box=box))
    assert np.abs(cropped.rgb().astype(int) - square).mean() < 2
    assert cropped.look().shape == (48, 48, 3)


def test_look_is_the_mean_colour_in_ycbcr() -> None:
    (found,) = files(encoded(quarters(480, 480)))
    look = found.look().astype(int)
    # BT.601, limited range: red is 81, 90, 240 and white is 235, 128, 128
    assert np.abs(look[8, 8] - (81, 90, 240)).max() <= 2
    assert np.abs(look[40, 40] - (235, 128, 128)).max() <= 2


def claiming(width: int, height: int) -> bytes:
    """A PNG that says it is of this size and holds nothing of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(16_000, 16_000), (10_000, 10_000), (5_000, 4_000), (16_385, 1), (1, 20_000)]
)
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(MediaLimitExceeded) as caught:
        files(claiming(width, height))
    assert caught.value.reason == "PICTURE_TOO_LARGE"


@pytest.mark.parametrize("sides", [(65_000, 1), (1, 16_385)])
def test_a_side_may_have_16384_pixels(sides: tuple[int, int]) -> None:
    with pytest.raises(MediaLimitExceeded) as caught:
        files(encoded(np.zeros((*sides, 3), np.uint8), "JPEG"))
    assert caught.value.reason == "PICTURE_TOO_LARGE"
    for shape in ((16_384, 1, 3), (1, 16_384, 3)):
        for fit in ("stretch", "crop"):
            (found,) = files(encoded(np.full(shape, 255, np.uint8), "JPEG"), size=InputSize(fit=fit))
            assert found.rgb().min() == 255
            assert found.look().shape == (48, 48, 3)


def gif() -> bytes:
    return encoded(quarters(), "GIF")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "EMPTY_MEDIA"),
        (b"garbage", "UNREADABLE_MEDIA"),
        (gif(), "UNREADABLE_MEDIA"),
        (claiming(64, 48), "UNREADABLE_MEDIA"),
        (encoded(quarters(), "JPEG")[:300], "UNREADABLE_MEDIA"),
        (encoded(quarters())[:60], "UNREADABLE_MEDIA"),
        (b"\xff\xd8\xff\xe0", "UNREADABLE_MEDIA"),
    ],
)
def test_what_is_no_whole_picture_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableMedia) as caught:
        files(data)
    assert caught.value.reason == reason


def test_only_due_pictures_are_decoded() -> None:
    good = encoded(quarters())
    found = files(good, b"never looked at", good, sampling=Sampling(12.5))
    assert [p.time_us for p in found] == [0, 80_000]
    every = files(good, good, good, sampling=Sampling(12.5, shots=ShotMode.EXACT))
    assert [p.due for p in every] == [True, False, True]


@pytest.mark.parametrize("layout", ["rgb24", "bgr24", "gray8", "i420", "nv12"])
def test_pixel_layouts(layout: str) -> None:
    width, height = 64, 48
    rgb = quarters(width, height)
    luma, blue, red = ycbcr(rgb)
    data = {
        "rgb24": rgb.tobytes(),
        "bgr24": rgb[:, :, ::-1].tobytes(),
        "gray8": rgb[:, :, 0].tobytes(),
        "i420": luma.tobytes() + blue[::2, ::2].tobytes() + red[::2, ::2].tobytes(),
        "nv12": luma.tobytes() + np.stack([blue[::2, ::2], red[::2, ::2]], axis=-1).tobytes(),
    }[layout]
    report = MediaReport()
    (found,) = frames([(0, data)], width, height, layout, report=report)
    expected = np.repeat(rgb[:, :, :1], 3, axis=2) if layout == "gray8" else rgb
    assert np.abs(found.rgb().astype(int) - expected).mean() < 3
    assert found.rgb().shape == (48, 64, 3)
    assert found.look().shape == (48, 48, 3)
    assert (report.width, report.height, report.codec) == (width, height, "")


def ycbcr(rgb: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """BT.601 of limited range, ITU-R BT.601-7 section 2.5.3."""
    red, green, blue = (rgb[:, :, i].astype(float) / 255 for i in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (16 + 219 * luma, 128 + 224 * (blue - luma) / 1.772, 128 + 224 * (red - luma) / 1.402)
    first, second, third = (np.rint(plane).astype(np.uint8) for plane in planes)
    return first, second, third


@pytest.mark.parametrize(
    ("width", "height", "layout", "length", "reason"),
    [
        (4, 4, "rgb24", 47, "FRAME_SIZE_MISMATCH"),
        (4, 4, "rgb24", 49, "FRAME_SIZE_MISMATCH"),
        (4, 4, "i420", 0, "FRAME_SIZE_MISMATCH"),
        (5, 4, "i420", 30, "INVALID_INPUT"),
        (4, 5, "nv12", 30, "INVALID_INPUT"),
        (0, 4, "rgb24", 0, "INVALID_INPUT"),
        (4, -1, "rgb24", 0, "INVALID_INPUT"),
        (16_385, 1, "rgb24", 0, "INVALID_INPUT"),
        (4, 4, "yuv9", 0, "INVALID_INPUT"),
        (16_000, 16_000, "gray8", 0, "PICTURE_TOO_LARGE"),
    ],
)
def test_frames_that_are_not_as_announced(width: int, height: int, layout: str, length: int, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        frames([(0, bytes(length))], width, height, layout)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MediaLimits(bytes=29), "MEDIA_TOO_MANY_BYTES"),
        (MediaLimits(frames=9), "MEDIA_TOO_MANY_FRAMES"),
        (MediaLimits(duration_us=8), "MEDIA_TOO_LONG"),
    ],
)
def test_limits(limits: MediaLimits, reason: str) -> None:
    stream = [(i, bytes(3)) for i in range(10)]
    sampling = Sampling(1000.0)
    with pytest.raises(MatchcutError) as caught:
        frames([(1000 * t if reason.endswith("FRAMES") else t, b) for t, b in stream], 1, 1, "rgb24",
               sampling=sampling, limits=limits)  # fmt: skip
    assert caught.value.reason == reason
    roomy = MediaLimits(bytes=30, frames=10, duration_us=9)
    assert frames(stream, 1, 1, "rgb24", sampling=sampling, limits=roomy)
