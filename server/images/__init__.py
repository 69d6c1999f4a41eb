"""Pictures from media that needs no demuxer: JPEG and PNG files, and frames that are already decoded."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from PIL import Image

from matchcut.server.convert import LARGEST_SIDE, Converter, FramePicture, Geometry, check_pixels
from matchcut.server.errors import InvalidInput, MediaLimitExceeded, UnreadableMedia
from matchcut.server.images.metadata import bare
from matchcut.server.images.schedule import Schedule, check_limits
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Picture, Pixels, Sampling

__all__ = ["from_frames", "from_pictures", "still"]

UPRIGHT = Geometry()
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# FFmpeg's name and the number of rows of `width` bytes per row of the frame, times 2.
LAYOUTS = {
    "rgb24": ("rgb24", 6),
    "bgr24": ("bgr24", 6),
    "gray8": ("gray", 2),
    "i420": ("yuv420p", 3),
    "nv12": ("nv12", 3),
}
PixelFormat = Literal["rgb24", "bgr24", "gray8", "i420", "nv12"]


def from_pictures(
    stream: Iterable[tuple[int, bytes]],
    *,
    size: InputSize,
    sampling: Sampling,
    limits: MediaLimits,
    wanted: MediaLimits | None = None,
    report: MediaReport,
) -> Iterator[Picture]:
    """Decodes JPEG and PNG files, each with its time in microseconds, and yields the due ones.

    Times may count from anywhere; those of the pictures that come out are relative to the first one. EXIF orientation
    is honoured, transparency and colour profiles are not. With exact shots every picture is yielded. All but due
    pictures stay undecoded otherwise. A limit of the caller's own, `wanted`, ends it and is reported.

    Raises:
        UnreadableMedia: a file is empty, damaged, or neither JPEG nor PNG.
        MediaLimitExceeded: too many pixels (found before any is decoded), bytes or pictures, or too long.
        InvalidInput: times do not grow.
    """
    schedule = Schedule(sampling, limits, wanted, report)
    converter = Converter(size)
    for time_us, data in stream:
        slot = schedule.admit(time_us, len(data))
        if slot is None:
            return
        if slot.due or schedule.every:
            yield StillPicture(slot.time_us, slot.due, opened(data, size, limits, report), converter)


def still(data: bytes, converter: Converter, limits: MediaLimits) -> Pixels:
    """(height, width, 3) uint8 of one JPEG or PNG file, as from_pictures() gives them of the same bytes.

    Raises:
        UnreadableMedia, MediaLimitExceeded: as from_pictures().
    """
    check_limits(limits, length=len(data), since_us=0, used=1)
    return StillPicture(0, True, opened(data, converter.size, limits, MediaReport()), converter).rgb()


def from_frames(
    stream: Iterable[tuple[int, bytes]],
    *,
    width: int,
    height: int,
    pixel_format: PixelFormat,
    size: InputSize,
    sampling: Sampling,
    limits: MediaLimits,
    wanted: MediaLimits | None = None,
    report: MediaReport,
) -> Iterator[Picture]:
    """Takes decoded frames, rows packed, each with its time in microseconds, and yields the due ones.

    Times as in from_pictures. i420 and nv12 are of limited range and BT.601; gray8 is of full range.

    Raises:
        InvalidInput: a side is not 1 to 16384 or, for i420 and nv12, odd; the pixel format is unknown; a frame has
            another number of bytes than its size and format say; times do not grow.
        MediaLimitExceeded: too many pixels, bytes or frames, or too long.
    """
    length = frame_bytes(width, height, pixel_format, limits)
    report.width, report.height = width, height
    schedule = Schedule(sampling, limits, wanted, report)
    converter = Converter(size)
    for time_us, data in stream:
        if len(data) != length:
            raise InvalidInput(
                f"a {width}x{height} {pixel_format} frame has {length} bytes, not {len(data)}; pack its rows",
                reason="FRAME_SIZE_MISMATCH",
                field="chunk.frame.pixels",
            )
        slot = schedule.admit(time_us, length)
        if slot is None:
            return
        if slot.due or schedule.every:
            frame = wrapped(data, width, height, pixel_format)
            yield FramePicture(slot.time_us, slot.due, frame, UPRIGHT, converter)


@dataclass(frozen=True, slots=True)
class StillPicture:
    """A Picture of upright pixels, (height, width, 3) uint8 of any size."""

    time_us: int
    due: bool
    pixels: Pixels
    converter: Converter

    def rgb(self) -> Pixels:
        """See Picture; pixels that have the encoder's size are those that would come out of a conversion."""
        size = self.converter.size
        if self.pixels.shape[:2] == (size.height, size.width):
            return self.pixels
        return self.converter.rgb(self._frame(), UPRIGHT)

    def look(self) -> Pixels:
        """See Picture."""
        return self.converter.look(self._frame())

    def _frame(self) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(self.pixels, format="rgb24")


def opened(data: bytes, size: InputSize, limits: MediaLimits, report: MediaReport) -> Pixels:
    """One JPEG or PNG file as upright pixels, of reduced size where JPEG allows that for nothing."""
    if not data:
        raise UnreadableMedia("a picture is empty; send a whole JPEG or PNG file", reason="EMPTY_MEDIA")
    file = bare(data)
    check_pixels(file.width, file.height, limits)
    try:
        with Image.open(io.BytesIO(file.data), formats=("JPEG", "PNG")) as image:
            sideways = file.orientation >= 5
            report.width, report.height = image.size[::-1] if sideways else image.size
            report.codec = (image.format or "").lower()
            if size.fit == "stretch":  # JPEG's own halving; twice the wanted size is left, to be averaged properly
                longer = 2 * max(size.width, size.height)
                image.draft("RGB", (longer, longer))
            turn = TURNS.get(file.orientation)
            return flat(image if turn is None else image.transpose(turn))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaLimitExceeded(
            f"a picture has more than the {limits.pixels} pixels that are taken; scale it down",
            reason="PICTURE_TOO_LARGE",
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableMedia("a picture is damaged or neither JPEG nor PNG; send a whole file of those") from error


def flat(image: Image.Image) -> Pixels:
    """(height, width, 3) uint8 of an image of any mode."""
    if image.mode.startswith("I"):  # PNG of 16 bits of grey, which Pillow would clip, not scale
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def wrapped(data: bytes, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """Packed pixels as a frame."""
    name, rows = LAYOUTS[pixel_format]
    shape = {6: (height, width, 3), 3: (height * 3 // 2, width), 2: (height, width)}[rows]
    return av.VideoFrame.from_ndarray(np.frombuffer(data, np.uint8).reshape(shape), format=name)


def frame_bytes(width: int, height: int, pixel_format: str, limits: MediaLimits) -> int:
    """How many bytes a frame has."""
    if pixel_format not in LAYOUTS:
        raise InvalidInput(
            f"the pixel format {pixel_format!r} is not one of {', '.join(LAYOUTS)}", field="media.frames.pixel_format"
        )
    rows = LAYOUTS[pixel_format][1]
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise InvalidInput(f"width and height must be 1 to {LARGEST_SIDE}, not {width}x{height}", field="media.frames")
    if rows == 3 and (width % 2 or height % 2):
        raise InvalidInput(f"{pixel_format} needs even width and height, not {width}x{height}", field="media.frames")
    check_pixels(width, height, limits)
    return width * height * rows // 2
