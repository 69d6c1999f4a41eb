"""Clips made on the spot, in which every frame shows its own number.

The number stands in 4x4 blocks, bright for 1 and dark for 0, on a background that moves, so that inter prediction has
something to do and a wrong reference leaves a trace. And looks of a camera that moves over a picture without detail.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Places = NDArray[np.float64]
GRID = 4
DARK, BRIGHT = 32, 224


class Source:
    """Bytes that arrive in pieces; counts what was taken and can end in an error."""

    def __init__(self, data: bytes, *, step: int = 1 << 14, error: Exception | None = None) -> None:
        self.taken = 0
        self._data, self._step, self._error = io.BytesIO(data), step, error

    def read(self, n: int = -1, /) -> bytes:
        chunk = self._data.read(self._step if n < 0 else min(n, self._step))
        if not chunk and self._error is not None:
            raise self._error
        self.taken += len(chunk)
        return chunk


@cache
def image(number: int, size: tuple[int, int] = (192, 144)) -> Pixels:
    """(height, width, 3) uint8 that shows a number of 16 bits."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 50 * np.sin((x + 3 * number) / 9.0) * np.cos((y - 2 * number) / 7.0)
    picture = np.stack([wave, np.roll(wave, number, axis=1), 255 - wave], axis=-1).astype(np.uint8)
    for bit in range(GRID * GRID):
        top, left = height * (bit // GRID) // GRID, width * (bit % GRID) // GRID
        block = picture[top + height // 16 : top + 3 * height // 16, left + width // 16 : left + 3 * width // 16]
        block[:] = BRIGHT if number >> bit & 1 else DARK
    return picture


def number(rgb: Pixels) -> int:
    """The number that a picture of any size shows."""
    height, width = rgb.shape[:2]
    shown = 0
    for bit in range(GRID * GRID):
        y, x = height * (2 * (bit // GRID) + 1) // (2 * GRID), width * (2 * (bit % GRID) + 1) // (2 * GRID)
        spread = max(1, height // 24)
        shown |= int(rgb[y - spread : y + spread, x - spread : x + spread].mean() > 128) << bit
    return shown


def clip(
    *,
    container: str = "mp4",
    codec: str = "libx264",
    frames: int = 60,
    fps: int = 25,
    size: tuple[int, int] = (192, 144),
    gop: int = 12,
    bframes: int | None = None,
    options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    faststart: bool = True,
    fragmented: bool = False,
    rotation: int = 0,
    sar: Fraction | None = None,
    audio: bool = False,
    times_ms: Sequence[int] | None = None,
    draw: Callable[[int, tuple[int, int]], Pixels] = image,
) -> bytes:
    """A container with `frames` frames that show 0, 1, 2, ...

    times_ms: when each is shown; None: evenly, at `fps`.
    faststart, fragmented: MP4 only; neither puts the index last.
    """
    flags = "frag_keyframe+empty_moov+default_base_moof" if fragmented else "faststart" if faststart else ""
    settings = {"movflags": flags} if container in ("mp4", "mov") and flags else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        with av.open(str(path), "w", format=container, options=settings) as output:
            quick = {"preset": "veryfast"} if codec in ("libx264", "libx265") else {}
            stream: Any = output.add_stream(codec, rate=fps, options={**quick, **(options or {})})
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            context = stream.codec_context
            context.gop_size = gop
            context.thread_count = 1
            if bframes is not None:
                context.max_b_frames = bframes
            if sar is not None:
                context.sample_aspect_ratio = sar
            if rotation:
                stream.set_display_rotation(rotation)
            context.time_base = Fraction(1, 1000) if times_ms is not None else Fraction(1, fps)
            sound: Any = output.add_stream("aac", rate=8000, layout="mono") if audio else None
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(draw(index, size), format="rgb24")
                frame.pts = times_ms[index] if times_ms is not None else index
                frame.time_base = context.time_base
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
            for samples in tone(frames / fps) if audio else ():
                output.mux(sound.encode(samples))
            if audio:
                output.mux(sound.encode())
        return path.read_bytes()


def tone(seconds: float) -> Iterator[av.AudioFrame]:
    """A sine at 8 kHz."""
    for start in range(0, int(seconds * 8000), 1024):
        wave = np.sin(np.arange(start, start + 1024) / 5).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        yield frame


class SoftScene:
    """A large picture without detail that a camera moves over; its integral, so that any window's means are exact."""

    WIDTH, HEIGHT = 320, 180  # of the camera's picture

    def __init__(self, seed: int, blur: int) -> None:
        noise = np.random.default_rng(seed).integers(0, 256, (108, 192, 3), np.uint8)
        large = Image.fromarray(noise).resize((960, 540), Image.Resampling.BICUBIC)
        blurred = np.asarray(large.filter(ImageFilter.GaussianBlur(blur))).astype(np.float64)
        strong = np.clip((blurred - blurred.mean()) / blurred.std() * 60 + 128, 0, 255)
        self._integral = np.pad(strong.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))

    def look(self, left: float, top: float, scale: float = 1.0) -> Pixels:
        """(48, 48, 3): the area means of the window at this place."""
        rows = np.linspace(top, top + self.HEIGHT * scale, 49)
        columns = np.linspace(left, left + self.WIDTH * scale, 49)
        sums = np.diff(np.diff(_between(_between(self._integral, rows, 0), columns, 1), axis=0), axis=1)
        return np.rint(sums / (self.HEIGHT * self.WIDTH * scale**2 / 48**2)).astype(np.uint8)

    def pan(self, speed: float, length: int = 150) -> Pixels:
        """The camera moves by so many pixels a picture to the side, and by half as many down."""
        return np.stack([self.look(speed * n, speed * n / 2) for n in range(length)])

    def zoom(self, rate: float, length: int = 100) -> Pixels:
        """The camera's window becomes larger by this factor from picture to picture; backwards it zooms in."""
        scales = rate ** np.arange(length)
        return np.stack([self.look(480 - self.WIDTH * s / 2, 270 - self.HEIGHT * s / 2, s) for s in scales])


def _between(values: Places, places: Places, axis: int) -> Places:
    """The values at places between the indices of one axis."""
    whole = np.minimum(places.astype(int), values.shape[axis] - 2)
    part = np.expand_dims(places - whole, axis=tuple(other for other in range(values.ndim) if other != axis))
    mixed: Places = np.take(values, whole, axis) * (1 - part) + np.take(values, whole + 1, axis) * part
    return mixed
