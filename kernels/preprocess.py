"""From pixels to the numbers that an encoder wants.

Dispatch: device.Cpu calls this reference; a GPU home does the same arithmetic where its pixels already lie, in one
pass: kernels/gpu/preprocess.py, launched as kernels/launch/preprocess.py plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.pixels import Yuv420, to_rgb
from matchcut.kernels.resample import Taps, triangle

Layout = Literal["NCHW", "NHWC"]
Half = Literal["float16", "bfloat16"]
LAYOUTS = ("NCHW", "NHWC")
DTYPES = ("float32", "float16", "bfloat16")
# Where a chroma sample lies within its two pixels: 0.5 on the first, 1 between them.
SITED = {"left": 0.5, "centre": 1.0}


@overload
def preprocess(
    frames: NDArray[np.uint8] | Yuv420,
    mean: Sequence[float],
    std: Sequence[float],
    layout: Layout,
    *,
    size: tuple[int, int] | None = None,
    dtype: Literal["float32"] = "float32",
) -> NDArray[np.float32]: ...


@overload
def preprocess(
    frames: NDArray[np.uint8] | Yuv420,
    mean: Sequence[float],
    std: Sequence[float],
    layout: Layout,
    *,
    size: tuple[int, int] | None = None,
    dtype: Half,
) -> NDArray[np.float16] | NDArray[np.uint16]: ...


def preprocess(
    frames: NDArray[np.uint8] | Yuv420,
    mean: Sequence[float],
    std: Sequence[float],
    layout: Layout,
    *,
    size: tuple[int, int] | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> NDArray[Any]:
    """(colour - mean) / std for each colour channel, resized, in the encoder's layout.

    Where nothing is to be resized or converted it is computed as pixel * (1 / std) - mean / std in float32: exact
    where both are binary fractions, such as 127 and 128, else within 3 units in the last place of the larger of the
    two terms. Otherwise in float64, rounded to float32 and then to the type asked for.

    Resizing is the antialiased triangle of resample.py, with no rounding to levels after it. The planes of a Yuv420
    are each resized on their own, chroma from its own samples and siting, and each pixel's colours are made of the
    result and cut off at 0 and 255: what swscale does, but that a colour out of range is cut off after the resizing
    and not before.

    Args:
        frames: (n, height, width, 3) uint8, red, green, blue; or the planes of a decoder.
        mean: 3 values, in levels of 0 to 255.
        std: 3 values, in levels, none of them zero.
        layout: "NCHW" gives (n, 3, height, width), "NHWC" (n, height, width, 3).
        size: (height, width) to resize to, whatever the aspect; None: as it is.
        dtype: "bfloat16" gives the bits of each number as uint16, since NumPy knows no such type.

    Returns:
        Of the type asked for, C-contiguous.

    Raises:
        ValueError: a shape, the pixels' type, the layout, the size, or a mean or std that is not a usable number.
    """
    height, width = check(frames, layout, size, dtype)
    scale, shift = affine(mean, std)
    if isinstance(frames, Yuv420) or (height, width) != frames.shape[1:3]:
        made = _resized(frames, height, width, layout, np.asarray(mean, np.float64), np.asarray(std, np.float64))
    elif layout == "NCHW":
        made = _planes(frames, scale, shift)
    else:
        made = _interleaved(frames, scale, shift)
    return made if dtype == "float32" else made.astype(np.float16) if dtype == "float16" else bfloat16_bits(made)


def check(frames: NDArray[np.uint8] | Yuv420, layout: str, size: tuple[int, int] | None, dtype: str) -> tuple[int, int]:
    """(height, width) of the result; ValueError where an argument is none that preprocess takes."""
    if isinstance(frames, Yuv420):
        _, height, width = frames.luma.shape
    else:
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames must be (n, height, width, 3) uint8, not {frames.shape} {frames.dtype}")
        _, height, width, _ = frames.shape
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be 'NCHW' or 'NHWC', not {layout!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, not {dtype!r}")
    if size is None:
        return height, width
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1, not {size}")
    if min(height, width) < 1:
        raise ValueError(f"frames of {height} x {width} pixels cannot be resized")
    return size


def affine(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(3,) float32 each: what to multiply a colour by and what to add then."""
    middle, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if middle.shape != (3,) or spread.shape != (3,):
        raise ValueError(f"mean and std must have 3 values each, not {middle.shape} and {spread.shape}")
    if not (np.isfinite(middle).all() and np.isfinite(spread).all() and spread.all()):
        raise ValueError(f"mean and std must be finite and std not zero, not {list(mean)} and {list(std)}")
    return (1 / spread).astype(np.float32), (-middle / spread).astype(np.float32)


def axes(count: int, outputs: int, siting: float | None) -> Taps:
    """The weights along one axis of `count` pixels.

    Args:
        siting: None for a value at each pixel; for chroma one of SITED.
    """
    if siting is None:
        return triangle(outputs, count)
    # Sample k lies at 2 * k + siting, counted from the edge of the picture, so k + 0.5 = (that - siting + 1) / 2.
    return triangle(outputs, (count + 1) // 2, step=count / outputs / 2, origin=(1 - siting) / 2)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """uint16: the nearest bfloat16, ties to even. Finite numbers only."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def _resized(
    frames: NDArray[np.uint8] | Yuv420,
    height: int,
    width: int,
    layout: Layout,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> NDArray[np.float32]:
    if isinstance(frames, Yuv420):
        rows, columns = frames.luma.shape[1:]
        planes = [(frames.luma, axes(rows, height, None), axes(columns, width, None))]
        down, across = axes(rows, height, SITED["centre"]), axes(columns, width, SITED[frames.siting])
        planes += [(plane, down, across) for plane in frames.planes]
        mixed = to_rgb(frames.matrix, full_range=frames.full_range)
    else:
        down, across = axes(frames.shape[1], height, None), axes(frames.shape[2], width, None)
        planes = [(frames[..., channel], down, across) for channel in range(3)]
        mixed = np.eye(3, 4)
    matrices = [(plane, down.dense, across.dense.T) for plane, down, across in planes]
    count = len(planes[0][0])
    out = np.empty((count, 3, height, width) if layout == "NCHW" else (count, height, width, 3), np.float32)
    for index, picture in enumerate(out):
        values = np.stack([down @ plane[index].astype(np.float64) @ across for plane, down, across in matrices])
        colours = np.tensordot(mixed[:, :3], values, 1) + mixed[:, 3, None, None]
        numbers = (np.clip(colours, 0, 255) - mean[:, None, None]) / std[:, None, None]
        picture[...] = numbers if layout == "NCHW" else numbers.transpose(1, 2, 0)
    return out


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
