"""From pixels to the numbers that an encoder wants.

Dispatch: device.Cpu calls this reference; a GPU home does the same arithmetic where its pixels already lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Layout = Literal["NCHW", "NHWC"]


def preprocess(
    frames: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], layout: Layout
) -> NDArray[np.float32]:
    """(pixel - mean) / std for each colour channel, in the encoder's layout.

    It is computed as pixel * (1 / std) - mean / std in float32: exact where both are binary fractions, such as 127
    and 128, else within 3 units in the last place of the larger of the two terms.

    Args:
        frames: (n, height, width, 3) uint8.
        mean: 3 values, in levels of 0 to 255.
        std: 3 values, in levels, none of them zero.
        layout: "NCHW" gives (n, 3, height, width), "NHWC" (n, height, width, 3).

    Returns:
        float32, C-contiguous.

    Raises:
        ValueError: a shape, the pixels' type, the layout, or a mean or std that is not a usable number.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (n, height, width, 3) uint8, not {frames.shape} {frames.dtype}")
    scale, shift = _affine(mean, std)
    if layout == "NCHW":
        return _planes(frames, scale, shift)
    if layout == "NHWC":
        return _interleaved(frames, scale, shift)
    raise ValueError(f"layout must be 'NCHW' or 'NHWC', not {layout!r}")


def _affine(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    middle, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if middle.shape != (3,) or spread.shape != (3,):
        raise ValueError(f"mean and std must have 3 values each, not {middle.shape} and {spread.shape}")
    if not (np.isfinite(middle).all() and np.isfinite(spread).all() and spread.all()):
        raise ValueError(f"mean and std must be finite and std not zero, not {list(mean)} and {list(std)}")
    return (1 / spread).astype(np.float32), (-middle / spread).astype(np.float32)


def _planes(frames: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]) -> NDArray[np.float32]:
    count, height, width, _ = frames.shape
    out = np.empty((count, 3, height, width), np.float32)
    for frame, planes in zip(frames, out, strict=True):  # a plane at a time stays in the cache for all three steps
        for channel, plane in enumerate(planes):
            plane[...] = frame[..., channel]
            plane *= scale[channel]
            plane += shift[channel]
    return out


def _interleaved(
    frames: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[np.float32]:
    _, _, width, _ = frames.shape
    out = np.empty(frames.shape, np.float32)
    row_scale, row_shift = np.tile(scale, width), np.tile(shift, width)  # an inner loop of width * 3, not of 3
    for frame, picture in zip(frames, out, strict=True):
        rows = picture.reshape(-1, width * 3)
        picture[...] = frame
        rows *= row_scale
        rows += row_shift
    return out
