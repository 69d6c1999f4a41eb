"""preprocess in Triton: pixels or planes are read, resized, converted and normalised in one pass.

A program makes X pixels of one row of one picture. It reads DOWN rows of its window at a time, weighs their pixels
across, and then the rows; neighbouring programs read the same rows again, from the cache. Products are added by
explicit fma and nothing else is fused, so that what is not resized comes out as the reference has it, to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.launch.preprocess import ACROSS, SHORT

DOWN = 4  # with more, most would be idle where nothing is resized; with fewer, loads would wait for one another


@triton.jit
def _weighed(
    plane,
    pitch,
    step,
    second,
    third,
    tops,
    down_weights,
    down_taps,
    lefts,
    across_weights,
    across_taps,
    width,
    PLANES: tl.constexpr,
    DOWN: tl.constexpr,
    X: tl.constexpr,
):
    """Three (X,) float32: row program_id(1), columns program_id(0) * X and on, of up to three planes resized alike.

    plane: uint8, of this picture. pitch, step: bytes from row to row and from pixel to pixel; second, third: from the
    first plane to the others. tops, down_weights: int32 (height,), float32 (height, down_taps): the first row and the
    weights of each output row. lefts, across_weights: int32 (width,), float32 (across_taps, width): of each column.
    """
    row = tl.program_id(1)
    x = tl.program_id(0) * X + tl.arange(0, X)
    inside = x < width
    top = tl.load(tops + row)
    left = tl.load(lefts + x, mask=inside, other=0)
    a = tl.zeros([X], tl.float32)
    b = tl.zeros([X], tl.float32)
    c = tl.zeros([X], tl.float32)
    for done in range(0, down_taps, DOWN):
        down = done + tl.arange(0, DOWN)
        weight = tl.load(down_weights + row * down_taps + down, mask=down < down_taps, other=0.0)[:, None]
        lines = plane + (top + down)[:, None] * pitch
        used = (down < down_taps)[:, None] & inside[None, :]
        part_a = tl.zeros([DOWN, X], tl.float32)
        part_b = tl.zeros([DOWN, X], tl.float32)
        part_c = tl.zeros([DOWN, X], tl.float32)
        for tap in range(across_taps):
            share = tl.load(across_weights + tap * width + x, mask=inside, other=0.0)[None, :]
            pixels = lines + ((left + tap) * step)[None, :]
            part_a = tl.fma(tl.load(pixels, mask=used, other=0).to(tl.float32), share, part_a)
            if PLANES > 1:
                part_b = tl.fma(tl.load(pixels + second, mask=used, other=0).to(tl.float32), share, part_b)
            if PLANES > 2:
                part_c = tl.fma(tl.load(pixels + third, mask=used, other=0).to(tl.float32), share, part_c)
        a += tl.sum(part_a * weight, axis=0)
        if PLANES > 1:
            b += tl.sum(part_b * weight, axis=0)
        if PLANES > 2:
            c += tl.sum(part_c * weight, axis=0)
    return a, b, c


@triton.jit
def _mixed(luma, blue, red, numbers, channel):
    """(X,) float32: the colour of a channel, see pixels.to_rgb, cut off at 0 and 255."""
    own = numbers + channel * 6
    colour = tl.fma(luma, tl.load(own), tl.load(own + 3))
    colour = tl.fma(blue, tl.load(own + 1), colour)
    colour = tl.fma(red, tl.load(own + 2), colour)
    return tl.minimum(tl.maximum(colour, 0.0), 255.0)


@triton.jit
def _put(colour, numbers, channel, out, width, apart, of_channel, of_row, of_column, X: tl.constexpr):
    """Normalises and stores a channel; numbers: float32 (3, 6), the last two of each row to multiply by and to add."""
    x = tl.program_id(0) * X + tl.arange(0, X)
    made = colour * tl.load(numbers + channel * 6 + 4) + tl.load(numbers + channel * 6 + 5)
    picture = out + tl.program_id(2).to(tl.int64) * apart
    at = channel * of_channel + tl.program_id(1) * of_row + x * of_column
    tl.store(picture + at, made.to(out.dtype.element_ty), mask=x < width)


@triton.jit
def rgb(
    pixels,
    apart,
    pitch,
    tops,
    down_weights,
    down_taps,
    lefts,
    across_weights,
    across_taps,
    numbers,
    out,
    width,
    out_apart,
    of_channel,
    of_row,
    of_column,
    DOWN: tl.constexpr,
    X: tl.constexpr,
):
    """Pictures of red, green and blue together. Grid: (ceil(width / X), height, pictures).

    pixels: uint8; apart, pitch: bytes from picture to picture and from row to row. tops to across_taps: see _weighed.
    numbers: see _put. out: (pictures, 3 colours of height * width) in any layout; out_apart, of_channel, of_row,
    of_column: its strides in numbers.
    """
    picture = pixels + tl.program_id(2).to(tl.int64) * apart
    red, green, blue = _weighed(
        picture, pitch, 3, 1, 2, tops, down_weights, down_taps, lefts, across_weights, across_taps, width, 3, DOWN, X
    )
    _put(red, numbers, 0, out, width, out_apart, of_channel, of_row, of_column, X)
    _put(green, numbers, 1, out, width, out_apart, of_channel, of_row, of_column, X)
    _put(blue, numbers, 2, out, width, out_apart, of_channel, of_row, of_column, X)


@triton.jit
def yuv420(
    lumas,
    apart,
    pitch,
    tops,
    down_weights,
    down_taps,
    lefts,
    across_weights,
    across_taps,
    chromas,
    chroma_apart,
    chroma_pitch,
    step,
    red_from_blue,
    chroma_tops,
    chroma_down_weights,
    chroma_down_taps,
    chroma_lefts,
    chroma_across_weights,
    chroma_across_taps,
    numbers,
    out,
    width,
    out_apart,
    of_channel,
    of_row,
    of_column,
    DOWN: tl.constexpr,
    X: tl.constexpr,
):
    """Pictures of luma and half as many rows and columns of chroma; as rgb, but for these.

    chromas: uint8; step: bytes from sample to sample; red_from_blue: from a blue difference to the red one.
    """
    picture = tl.program_id(2).to(tl.int64)
    luma, _, _ = _weighed(
        *(lumas + picture * apart, pitch, 1, 0, 0),
        *(tops, down_weights, down_taps, lefts, across_weights, across_taps, width, 1, DOWN, X),
    )
    blue, red, _ = _weighed(
        *(chromas + picture * chroma_apart, chroma_pitch, step, red_from_blue, 0),
        *(chroma_tops, chroma_down_weights, chroma_down_taps),
        *(chroma_lefts, chroma_across_weights, chroma_across_taps, width, 2, DOWN, X),
    )
    for channel in tl.static_range(3):
        colour = _mixed(luma, blue, red, numbers, channel)
        _put(colour, numbers, channel, out, width, out_apart, of_channel, of_row, of_column, X)


_TABLES = {"tops": "*i32", "down_weights": "*fp32", "down_taps": "i32"} | {
    "lefts": "*i32",
    "across_weights": "*fp32",
    "across_taps": "i32",
}
_SOURCE = {"apart": "i64", "pitch": "i32"}
_TARGET = {"width": "i32", "out_apart": "i64", "of_channel": "i32", "of_row": "i32", "of_column": "i32"}
_CHROMA = {f"chroma_{name}": kind for name, kind in _TABLES.items()}


def _kernels(dtype: str) -> tuple[Kernel, ...]:
    rest = {"numbers": "*fp32", "out": f"*{dtype}", **_TARGET}
    chroma = {"chromas": "*u8", "chroma_apart": "i64", "chroma_pitch": "i32", "step": "i32", "red_from_blue": "i32"}
    of = {
        "rgb": (rgb, {"pixels": "*u8", **_SOURCE, **_TABLES, **rest}),
        "yuv420": (yuv420, {"lumas": "*u8", **_SOURCE, **_TABLES, **chroma, **_CHROMA, **rest}),
    }
    return tuple(
        Kernel(
            name=f"preprocess_{name}_{dtype}",
            function=function,
            arguments=arguments,
            constants={"DOWN": DOWN, "X": ACROSS},
            fusion=False,
            oldest=80 if dtype == "bf16" else 75,
        )
        for name, (function, arguments) in of.items()
    )


KERNELS: tuple[Kernel, ...] = tuple(kernel for dtype in SHORT.values() for kernel in _kernels(dtype))
