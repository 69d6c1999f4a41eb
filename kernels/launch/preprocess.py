"""The launch of preprocess on a GPU: see kernels/gpu/preprocess.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.launch.plan import Argument, Launch, Plan, Slot
from matchcut.kernels.pixels import Yuv420, to_rgb
from matchcut.kernels.preprocess import SITED, Layout, affine, axes, check
from matchcut.kernels.resample import Taps

ACROSS = 64  # output pixels of a row in one program
MOST = 65535  # programs along the second and the third axis of a grid
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def plan(
    frames: NDArray[np.uint8] | Yuv420,
    mean: Sequence[float],
    std: Sequence[float],
    layout: Layout,
    *,
    size: tuple[int, int] | None = None,
    dtype: str = "float32",
) -> Plan:
    """The launch that does what preprocess.preprocess does, for frames like these.

    Only shapes and strides are looked at, so the arrays may stand for memory on the device. The inputs are "pixels",
    or "luma" and "chroma": the bytes from the first that a picture has to the last, gaps between rows included. The
    output is "out".

    Raises:
        ValueError: as preprocess; or the pixels of a row do not lie together, or rows or pictures lie backwards; or
            there are no frames, or more than a launch takes, or larger than 2**31 bytes or numbers.
    """
    height, width = check(frames, layout, size, dtype)
    scale, shift = affine(mean, std)
    if isinstance(frames, Yuv420):
        name, count, mixed = "yuv420", len(frames.luma), to_rgb(frames.matrix, full_range=frames.full_range)
    else:
        name, count, mixed = "rgb", len(frames), np.eye(3, 4)
    if min(count, height, width) < 1 or max(count, height) > MOST or 3 * height * width >= 2**31:
        raise ValueError(f"{count} frames of {height} x {width} pixels cannot be made in one launch")
    source = _planes(frames, height, width) if isinstance(frames, Yuv420) else _interleaved(frames, height, width)
    inputs = tuple(argument for argument in source if isinstance(argument, Slot))
    out = Slot(
        "out",
        (count, 3, height, width) if layout == "NCHW" else (count, height, width, 3),
        "uint16" if dtype == "bfloat16" else dtype,
    )
    numbers = np.concatenate([mixed.astype(np.float32), scale[:, None], shift[:, None]], axis=1)
    strides = (height * width, width, 1) if layout == "NCHW" else (1, 3 * width, 3)
    launch = Launch(
        f"preprocess_{name}_{SHORT[dtype]}",
        (-(-width // ACROSS), height, count),
        (*source, numbers, out, width, 3 * height * width, *strides),
    )
    return Plan((launch,), inputs, (out,), sum(slot.nbytes for slot in (*inputs, out)))


def _interleaved(frames: NDArray[np.uint8], height: int, width: int) -> tuple[Argument, ...]:
    _, rows, columns, _ = frames.shape
    apart, pitch = _strides("frames", frames, (3, 1))
    pixels = _slot("pixels", frames)
    return (pixels, apart, pitch, *_tables(axes(rows, height, None), axes(columns, width, None)))


def _planes(frames: Yuv420, height: int, width: int) -> tuple[Argument, ...]:
    _, rows, columns = frames.luma.shape
    across = axes(columns, width, SITED[frames.siting])
    luma_apart, luma_pitch = _strides("luma", frames.luma, (1,))
    if frames.order == "nv12":
        apart, pitch = _strides("chroma", frames.chroma, (2, 1))
        step, red = 2, 1
    else:
        apart, red, pitch = _strides("chroma", frames.chroma, (1,))
        step = 1
    return (
        *(_slot("luma", frames.luma), luma_apart, luma_pitch),
        *_tables(axes(rows, height, None), axes(columns, width, None)),
        *(_slot("chroma", frames.chroma), apart, pitch, step, red),
        *_tables(axes(rows, height, SITED["centre"]), across),
    )


def _strides(name: str, array: NDArray[np.uint8], together: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes from one picture, (plane) and row to the next; the strides after those must be these."""
    outer = array.ndim - len(together)
    # An axis of length 1 has a stride that is never used, and NumPy leaves anything there.
    steps = [0 if size == 1 else stride for size, stride in zip(array.shape[:outer], array.strides, strict=False)]
    inner = [
        wanted if size == 1 else stride
        for size, stride, wanted in zip(array.shape[outer:], array.strides[outer:], together, strict=True)
    ]
    if tuple(inner) != together or min(steps) < 0:
        raise ValueError(f"the pixels of a row of {name} must lie together, not {array.strides} bytes apart")
    if sum((size - 1) * step for size, step in zip(array.shape[1:], (*steps[1:], *inner), strict=True)) >= 2**31 - 1:
        raise ValueError(f"one picture's {name} lie 2**31 bytes apart or more")
    return tuple(steps)


def _slot(name: str, array: NDArray[np.uint8]) -> Slot:
    extent = 1 + sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
    return Slot(name, (extent,), "uint8")


def _tables(down: Taps, across: Taps) -> tuple[Argument, ...]:
    """The weights as the kernel reads them: a row's taps together, and the same tap of all columns together."""
    return (
        *(down.first, down.weights.astype(np.float32), down.weights.shape[1]),
        *(across.first, np.ascontiguousarray(across.weights.T, np.float32), across.weights.shape[1]),
    )
