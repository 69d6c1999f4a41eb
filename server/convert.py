"""Turns decoded frames into what an encoder and a shot detector look at.

Scaling happens in planar YUV by area means, and only the small result becomes RGB: 0.26 ms from 720p to 224x224
where a direct conversion of the whole frame takes over 1 ms. Range and colour matrix are the frame's own; where it
names none, swscale's defaults hold (limited range, BT.601).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from matchcut.server.errors import MediaLimitExceeded, UnreadableMedia
from matchcut.server.records import InputSize, MediaLimits, Pixels

__all__ = ["LARGEST_SIDE", "LOOK", "Converter", "FramePicture", "Geometry", "check_pixels"]

LOOK = 48
LARGEST_SIDE = 16_384  # swscale's tables for much longer ones overflow
LONGEST = 16  # most that a side may exceed the other; beyond, "crop" would scale to absurd sizes


@dataclass(frozen=True, slots=True)
class Geometry:
    """How stored pixels become an upright picture.

    quarters: quarter turns counter-clockwise, 0 to 3.
    pixel_aspect: width of a stored pixel by its height.
    """

    quarters: int = 0
    pixel_aspect: Fraction = Fraction(1)

    @classmethod
    def of(cls, rotation: int, pixel_aspect: Fraction | None) -> Geometry:
        """From degrees counter-clockwise, of which only multiples of 90 are honoured, and a sample aspect ratio."""
        sane = pixel_aspect is not None and Fraction(1, LONGEST) <= pixel_aspect <= LONGEST
        return cls(round(rotation / 90) % 4, pixel_aspect if sane and pixel_aspect is not None else Fraction(1))

    def displayed(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) as shown, of stored pixels."""
        shown = max(1, round(width * self.pixel_aspect)), height
        return (shown[1], shown[0]) if self.quarters % 2 else shown


def covering(size: InputSize, width: int, height: int) -> tuple[int, int]:
    """The size to scale a displayed picture to, so that the encoder's picture can be taken out of its middle."""
    if size.fit == "stretch":
        return size.width, size.height
    scale = max(Fraction(size.width, width), Fraction(size.height, height))
    scaled_width = max(size.width, min(round(width * scale), size.width * LONGEST))
    scaled_height = max(size.height, min(round(height * scale), size.height * LONGEST))
    return scaled_width, scaled_height


def middle(rgb: Pixels, size: InputSize) -> Pixels:
    """The (size.height, size.width) middle of a picture, contiguous."""
    top, left = (rgb.shape[0] - size.height) // 2, (rgb.shape[1] - size.width) // 2
    return np.ascontiguousarray(rgb[top : top + size.height, left : left + size.width])


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    """Raises MediaLimitExceeded for pictures of more pixels than are taken, or with a side of more than 16384."""
    if max(width, height) > LARGEST_SIDE:
        raise MediaLimitExceeded(
            f"the pictures are {width}x{height}; a side may have at most {LARGEST_SIDE} pixels, so scale them down",
            reason="PICTURE_TOO_LARGE",
        )
    if width * height > limits.pixels:
        raise MediaLimitExceeded(
            f"the pictures are {width}x{height}, more than the {limits.pixels} pixels that are taken; scale them down",
            reason="PICTURE_TOO_LARGE",
        )


def plane(frame: av.VideoFrame, index: int, width: int) -> Pixels:
    """(height, width) bytes of one plane, a view that leaves out the padding at the end of each row."""
    source = frame.planes[index]
    return np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)[:, :width]


def scaled(
    scaler: VideoReformatter,
    frame: av.VideoFrame,
    size: tuple[int, int],
    pixel_format: str,
    how: Interpolation = Interpolation.AREA,
    matrix: Colorspace | None = None,
) -> av.VideoFrame:
    """The frame in another (width, height) and pixel format. Raises UnreadableMedia where that cannot be made of it."""
    try:
        return scaler.reformat(frame, *size, pixel_format, dst_colorspace=matrix, interpolation=how, threads=1)
    except av.FFmpegError as error:
        raise UnreadableMedia(
            f"a picture of {frame.width}x{frame.height} in {frame.format.name} cannot be scaled; send it in a common "
            "size and pixel format"
        ) from error


class Converter:
    """Scales frames to one encoder's size; for one thread. Keeps swscale's tables from frame to frame.

    Both rgb() and look() raise UnreadableMedia for a frame that cannot be scaled.

    Args:
        size: the picture that the encoder wants.
    """

    def __init__(self, size: InputSize) -> None:
        self.size = size
        self._shrink, self._paint, self._glance = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def rgb(self, frame: av.VideoFrame, geometry: Geometry) -> Pixels:
        """(height, width, 3) uint8 at the encoder's size, upright, contiguous."""
        width, height = covering(self.size, *geometry.displayed(frame.width, frame.height))
        if geometry.quarters % 2:
            width, height = height, width
        small = frame
        if frame.format.name.startswith(("yuv", "nv")):
            small = scaled(self._shrink, frame, (width, height), "yuv420p")
        # POINT where nothing is left to scale; AREA for RGB and grey frames, which come here in their own size.
        how = Interpolation.POINT if (small.width, small.height) == (width, height) else Interpolation.AREA
        painted = scaled(self._paint, small, (width, height), "rgb24", how)
        pixels = plane(painted, 0, width * 3).reshape(height, width, 3)
        return middle(np.rot90(pixels, geometry.quarters), self.size)

    def look(self, frame: av.VideoFrame) -> Pixels:
        """(48, 48, 3) uint8 YCbCr: area means, of the picture as it is stored (not rotated)."""
        matrix = Colorspace.ITU601 if frame.format.is_rgb else None
        small = scaled(self._glance, frame, (LOOK, LOOK), "yuv444p", matrix=matrix)
        return np.stack([plane(small, index, LOOK) for index in range(3)], axis=-1)


@dataclass(frozen=True, slots=True)
class FramePicture:
    """A decoded frame as a Picture: converted when asked, by the thread that decodes."""

    time_us: int
    due: bool
    frame: av.VideoFrame
    geometry: Geometry
    converter: Converter

    def rgb(self) -> Pixels:
        """(height, width, 3) uint8 at the encoder's size, upright."""
        return self.converter.rgb(self.frame, self.geometry)

    def look(self) -> Pixels:
        """(48, 48, 3) uint8 YCbCr, area means over the whole picture as it is stored (not rotated)."""
        return self.converter.look(self.frame)
