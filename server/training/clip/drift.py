"""Clips of a handwritten digit that drifts, of which only the order of the frames tells where it went.

The digit drifts left or right, once around: what leaves on one side comes in on the other. Then it drifts up or down,
once around. That makes four classes. In all of them the digit is seen at exactly the same places, whatever its start;
left is the places of right in the other order. So no mean over the frames of anything that is computed from each frame
alone can tell the classes apart: chance, 0.25, is the best it can do by construction.
"""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Pixels

__all__ = ["CLASSES", "FPS", "digits", "draw", "places", "video"]

CLASSES = ("left-up", "left-down", "right-up", "right-down")
FPS = 8
SHORTEST = 6  # with two steps a round, one there and one back, left and right would be the same
# Of libx264 a preset that looks at no other frames to decide on a frame's quality: for pictures this small, those that
# do were seen to write other bytes for the same frames now and then, and a training could not be repeated.
CODECS = {"libx264": {"preset": "ultrafast", "qp": "18"}, "mpeg4": {"qscale": "3"}}

Places = NDArray[np.int64]
Digits = NDArray[np.float64]


def digits() -> Digits:
    """(1797, 8, 8) in 0..1: the handwritten digits that scikit-learn ships (UCI's optdigits, its test part).

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    return np.asarray(load_digits().images, np.float64) / 16


def places(label: int, frames: int, size: int, start: tuple[int, int]) -> Places:
    """(frames, 2) x and y of the digit's corner in each frame, from 0 up to size.

    Args:
        label: of CLASSES.
        frames: an even number, half of them for each drift.
        size: of the square picture, in pixels.
        start: x and y.

    Raises:
        InvalidInput: so many frames cannot show where it goes.
    """
    if frames < SHORTEST or frames % 2:
        raise InvalidInput(
            f"a clip of a drifting digit has an even number of at least {SHORTEST} frames, not {frames}", field="frames"
        )
    half = frames // 2
    around = np.arange(half) * size // half
    forth_and_back = around, np.roll(around[::-1], 1)  # both begin at the start
    across, along = CLASSES[label].split("-")
    x = np.concatenate([forth_and_back[across == "left"], np.zeros(half, np.int64)])
    y = np.concatenate([np.zeros(half, np.int64), forth_and_back[along == "up"]])
    return np.stack([start[0] + x, start[1] + y], axis=1) % size


def draw(digit: Digits, label: int, *, frames: int, size: int, rng: np.random.Generator) -> Pixels:
    """(frames, size, size, 3) uint8: the digit, in some bright colour, drifts over a texture; all frames are noisy.

    Args:
        digit: (8, 8) in 0..1.
        label: of CLASSES.
        rng: decides on start, colours, texture and noise.
    """
    side = size * 7 // 16
    stamp = np.zeros((size, size))
    grey = Image.fromarray((digit * 255).astype(np.uint8))
    stamp[:side, :side] = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR)) / 255
    coarse = Image.fromarray(rng.integers(40, 100, (5, 5, 3), np.uint8))
    texture = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64)
    colour = rng.uniform(170, 255, 3)
    start = int(rng.integers(size)), int(rng.integers(size))
    shown = []
    for x, y in places(label, frames, size, start):
        cover = np.roll(stamp, (int(y), int(x)), axis=(0, 1))[..., None]
        shown.append(texture * (1 - cover) + colour * cover + rng.normal(0, 6, texture.shape))
    return np.clip(np.stack(shown), 0, 255).astype(np.uint8)


def video(frames: Pixels) -> bytes:
    """An MP4 file of the frames, FPS of them a second, H.264 where FFmpeg has an encoder for it and MPEG-4 elsewhere.

    Args:
        frames: (t, height, width, 3) uint8, of even height and width.
    """
    codec = next(name for name in CODECS if name in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream(codec, rate=FPS, options=CODECS[codec])
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()
