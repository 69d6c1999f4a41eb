"""What the ranking kernels share: floats that compare as integers, pairs of a row and a score, slots of groups."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def ordered(x):
    """int32 that compare as these float32 do; its own inverse."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def packed(value, row):
    """An int64 of a float32 and an int32, the row in the lower half."""
    return (value.to(tl.int32, bitcast=True).to(tl.int64) << 32) | row.to(tl.int64)


@triton.jit
def row_of(pair):
    """The row of a packed pair."""
    return (pair & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def value_of(pair):
    """The score of a packed pair."""
    return (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def slot_of(group, slots):
    """Where the best of a group is kept: groups may share one of the slots, a power of two, but no group has two."""
    mixed = group.to(tl.uint32) * 2654435769
    return (mixed >> 7).to(tl.int32) & (slots - 1)
