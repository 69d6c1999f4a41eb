"""The definition of preprocess in float64, written down a second time: slow, plain, and of no shared part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.pixels import Yuv420

Doubles = NDArray[np.float64]


def matrix(places: NDArray[np.floating], size: float, outputs: int) -> Doubles:
    """(outputs, samples): weights of samples at these places of an axis as long as `size` pixels.

    The triangle reaches as far as from one output, or from one sample, to the next, whichever is more.
    """
    apart = places[1] - places[0] if len(places) > 1 else 1.0
    reach = max(size / outputs, apart)
    centres = (np.arange(outputs) + 0.5) * size / outputs
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - places[None, :]) / reach)
    made: Doubles = weights / weights.sum(axis=1, keepdims=True)
    return made


def resized(plane: NDArray[np.uint8], rows: Doubles, columns: Doubles) -> Doubles:
    made: Doubles = np.einsum("yr,nrc,xc->nyx", rows, plane.astype(np.float64), columns)
    return made


def of_rgb(frames: NDArray[np.uint8], size: tuple[int, int]) -> Doubles:
    """(n, 3, height, width): levels."""
    _, height, width, _ = frames.shape
    rows = matrix(np.arange(height) + 0.5, height, size[0])
    columns = matrix(np.arange(width) + 0.5, width, size[1])
    return np.stack([resized(frames[..., channel], rows, columns) for channel in range(3)], axis=1)


def of_yuv(frames: Yuv420, size: tuple[int, int]) -> Doubles:
    """(n, 3, height, width): levels."""
    count, height, width = frames.luma.shape
    rows = matrix(np.arange(height) + 0.5, height, size[0])
    columns = matrix(np.arange(width) + 0.5, width, size[1])
    luma = resized(frames.luma, rows, columns)
    half = ((height + 1) // 2, (width + 1) // 2)
    if frames.order == "nv12":
        blue, red = frames.chroma[..., 0], frames.chroma[..., 1]
    else:
        blue, red = frames.chroma[:, 0], frames.chroma[:, 1]
    assert blue.shape == (count, *half)
    # A sample stands for two pixels, also where it is the only one.
    down = _chroma(half[0], height, size[0], 1.0)
    across = _chroma(half[1], width, size[1], 0.5 if frames.siting == "left" else 1.0)
    y, b, r = luma, resized(blue, down, across) - 128, resized(red, down, across) - 128
    if not frames.full_range:
        y, b, r = (y - 16) * 255 / 219, b * 255 / 224, r * 255 / 224
    of_red, of_blue = (0.299, 0.114) if frames.matrix == "bt601" else (0.2126, 0.0722)
    reds, blues = y + r * (2 - 2 * of_red), y + b * (2 - 2 * of_blue)
    greens = (y - of_red * reds - of_blue * blues) / (1 - of_red - of_blue)
    return np.clip(np.stack([reds, greens, blues], axis=1), 0, 255)


def _chroma(samples: int, size: int, outputs: int, siting: float) -> Doubles:
    places = 2 * np.arange(samples) + siting
    if samples == 1:
        return np.ones((outputs, 1))
    return matrix(places, size, outputs)


def picture(*shape: int, seed: int = 7) -> NDArray[np.uint8]:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def yuv(count: int, height: int, width: int, **options: str | bool) -> Yuv420:
    """Random planes."""
    half = ((height + 1) // 2, (width + 1) // 2)
    shape = (count, 2, *half) if options.get("order") == "i420" else (count, *half, 2)
    return Yuv420(picture(count, height, width), picture(*shape, seed=8), **options)  # type: ignore[arg-type]
