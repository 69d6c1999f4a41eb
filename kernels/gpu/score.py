"""Scores of rows against queries, in Triton: bounds of all rows from their codes; exact.py has the rest.

The scan is a product [rows x dimensions] x [dimensions x queries] on the tensor cores; rows are the tall operand, so
that these work even for one query. Its epilogue turns a product of codes into a score and its error, as codes.py
proves, and what cannot be ruled out is appended to a list. No score of a row that is ruled out is ever stored.

Which tile a program takes: tile = (first + program) * hop mod tiles, with hop coprime to the tiles. `sample` looks at
the first few programs' tiles, spread over all rows; `scan` begins with the same, which are still in the cache.

Operands of the scan, by KIND:
  int8   rows int8 (n, pitch), scale float32 (n,); queries int8 (PARTS, BN, pitch), where RADIX * high + low is a code;
  bf16   rows bfloat16 (n, pitch); queries bfloat16 (PARTS, BN, pitch), whose sum is the query;
  fp32   rows float32 (n, pitch); queries float32 (1, BN, pitch); multiplied as tf32 where there is that.
Of int8 rows CODES says how much is read: the "dense" part, which is all there is; a "prefix", with more beyond it; or
"all", the tail levels too. `terms` is float32 (5, BN): base, step, and the error's share of the scale, of the norm
beyond or the tail's scale, and of nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.pairs import ordered, packed, slot_of
from matchcut.kernels.gpu.spec import Constant, Kernel
from matchcut.kernels.launch.scans import LIMIT, SCANS


@triton.jit
def bounds_of_tile(
    rows,
    scale,
    beyond,
    mask,
    queries,
    terms,
    tails,
    tail_scale,
    tail_queries,
    tail_steps,
    levels,
    n,
    pitch,
    first,
    tiles,
    hop,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    RADIX: tl.constexpr,
    CODES: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Scores and errors (BM, BN) of this program's tile, its rows (BM,), and which of them count."""
    tile = (((tl.program_id(0) + first).to(tl.int64) * hop) % tiles).to(tl.int32)
    row = tile * BM + tl.arange(0, BM)
    live = tl.load(mask + row, mask=row < n, other=0) != 0
    column = tl.arange(0, BN)
    depth = tl.arange(0, BK)
    x_at = rows + row.to(tl.int64)[:, None] * pitch + depth[None, :]
    q_at = queries + column[None, :] * pitch + depth[:, None]
    if KIND == "int8":
        high = tl.zeros((BM, BN), tl.int32)
        low = tl.zeros((BM, BN), tl.int32)
        for start in range(0, pitch, BK):
            x = tl.load(x_at + start, mask=live[:, None], other=0)
            high = tl.dot(x, tl.load(q_at + start), acc=high, out_dtype=tl.int32)
            if PARTS == 2:
                low = tl.dot(x, tl.load(q_at + BN * pitch + start), acc=low, out_dtype=tl.int32)
        dots = (high * RADIX + low if PARTS == 2 else high).to(tl.float32)
        row_scale = tl.load(scale + row, mask=live, other=0.0)
        step = tl.load(terms + BN + column)
        value = tl.load(terms + column)[None, :] + dots * (row_scale[:, None] * step[None, :])
        error = (
            row_scale[:, None] * tl.load(terms + 2 * BN + column)[None, :] + tl.load(terms + 4 * BN + column)[None, :]
        )
        share = tl.load(terms + 3 * BN + column)
        if CODES == "prefix":
            error += tl.load(beyond + row, mask=live, other=0.0)[:, None] * share[None, :]
        if CODES == "all":
            more = tl.zeros((BM, BN), tl.float32)
            deep = tl.arange(0, 64)
            x_at = tails + row.to(tl.int64)[:, None] * (levels * 64) + deep[None, :]
            q_at = tail_queries + column[None, :] * (levels * 64) + deep[:, None]
            for level in range(levels):
                codes = tl.load(x_at + level * 64, mask=live[:, None], other=0)
                products = tl.dot(codes, tl.load(q_at + level * 64), out_dtype=tl.int32)
                more += products.to(tl.float32) * tl.load(tail_steps + level * BN + column)[None, :]
            rest_scale = tl.load(tail_scale + row, mask=live, other=0.0)
            value += rest_scale[:, None] * more
            error += rest_scale[:, None] * share[None, :]
    else:
        value = tl.zeros((BM, BN), tl.float32)
        for start in range(0, pitch, BK):
            x = tl.load(x_at + start, mask=live[:, None], other=0.0)
            for part in tl.static_range(PARTS):
                q = tl.load(q_at + part * BN * pitch + start)
                if UPCAST:
                    value = tl.dot(x.to(tl.float32), q.to(tl.float32), acc=value)
                else:
                    value = tl.dot(x, q, acc=value)
        error = tl.zeros((BM, BN), tl.float32) + tl.load(terms + 4 * BN + column)[None, :]
    return value, error, row, live


@triton.jit
def sample(
    rows,
    scale,
    beyond,
    mask,
    queries,
    terms,
    tails,
    tail_scale,
    tail_queries,
    tail_steps,
    groups,
    best,
    best_row,
    levels,
    n,
    pitch,
    tiles,
    hop,
    count,
    slots,
    direct,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    RADIX: tl.constexpr,
    CODES: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """The best row of each 16: by its lower bound into the slot of its group, or by its score for `exact` to look at.

    best: int32 (count, slots), ordered, lowest before. best_row: int32 (count, slots), if not direct.
    """
    value, error, row, live = bounds_of_tile(
        rows,
        scale,
        beyond,
        mask,
        queries,
        terms,
        tails,
        tail_scale,
        tail_queries,
        tail_steps,
        levels,
        n,
        pitch,
        0,
        tiles,
        hop,
        KIND,
        PARTS,
        RADIX,
        CODES,
        UPCAST,
        BM,
        BN,
        BK,
    )
    column = tl.arange(0, BN)
    shown = tl.where(direct != 0, value - error, value)
    shown = tl.where(live[:, None], shown, float("-inf"))
    peak, at = tl.max(tl.reshape(shown, (BM // 16, 16, BN)), axis=1, return_indices=True)
    place = tl.arange(0, BM // 16)
    base_row = tl.min(row, axis=0)
    winner = base_row + place[:, None] * 16 + at
    there = (peak > float("-inf")) & (column[None, :] < count)
    line = column.to(tl.int64)[None, :] * slots
    if direct != 0:
        group = tl.load(groups + winner, mask=there, other=0)
        tl.atomic_max(best + line + slot_of(group, slots), ordered(peak), mask=there, sem="relaxed")
    else:
        target = line + tl.program_id(0) * (BM // 16) + place[:, None]
        tl.store(best + target, ordered(peak), mask=there)
        tl.store(best_row + target, winner, mask=there)


@triton.jit
def scan(
    rows,
    scale,
    beyond,
    mask,
    queries,
    terms,
    tails,
    tail_scale,
    tail_queries,
    tail_steps,
    tau,
    found,
    pairs,
    levels,
    n,
    pitch,
    first,
    tiles,
    hop,
    capacity,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    RADIX: tl.constexpr,
    CODES: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Appends each row whose upper bound reaches tau (BN,), with its score: pairs int64 (BN, capacity), found (BN,).

    What finds no room is counted all the same. tau of a column without a query is infinity or NaN. BN * capacity must
    stay below 2**31.
    """
    value, error, row, live = bounds_of_tile(
        rows,
        scale,
        beyond,
        mask,
        queries,
        terms,
        tails,
        tail_scale,
        tail_queries,
        tail_steps,
        levels,
        n,
        pitch,
        first,
        tiles,
        hop,
        KIND,
        PARTS,
        RADIX,
        CODES,
        UPCAST,
        BM,
        BN,
        BK,
    )
    column = tl.arange(0, BN)
    hit = (value + error >= tl.load(tau + column)[None, :]) & live[:, None]
    if tl.max(tl.max(hit.to(tl.int32), axis=1), axis=0) > 0:
        # Of 8192 pairs a few hit: an atomic for each is less work than to count them first.
        place = tl.atomic_add(found + tl.broadcast_to(column[None, :], (BM, BN)), 1, mask=hit, sem="relaxed")
        target = column[None, :] * capacity + place
        tl.store(pairs + target, packed(value, row[:, None]), mask=hit & (place < capacity))


_TYPES = {"int8": "*i8", "bf16": "*bf16", "fp32": "*fp32"}


def _scans() -> list[Kernel]:
    made = []
    for one in SCANS:
        operand = _TYPES[one.kind]
        constants: dict[str, Constant] = {
            "KIND": one.kind,
            "PARTS": one.parts,
            "RADIX": 2 * LIMIT,
            "CODES": one.codes,
            "UPCAST": False,
            "BM": one.tile,
            "BN": one.columns,
            "BK": one.depth,
        }
        operands = {
            "rows": operand,
            "scale": "*fp32",
            "beyond": "*fp32",
            "mask": "*u8",
            "queries": operand,
            "terms": "*fp32",
            "tails": "*i8",
            "tail_scale": "*fp32",
            "tail_queries": "*i8",
            "tail_steps": "*fp32",
        }
        oldest, newest = one.only or (75 if one.kind == "fp32" else 80), one.only or 999
        listing = {"tau": "*fp32", "found": "*i32", "pairs": "*i64"}
        sizes = {
            "levels": "i32",
            "n": "i32",
            "pitch": "i32",
            "first": "i32",
            "tiles": "i32",
            "hop": "i32",
            "capacity": "i32",
        }
        made.append(
            Kernel(
                one.kernel("scan"),
                scan,
                {**operands, **listing, **sizes},
                constants,
                frozenset({"pitch", "capacity"}),
                oldest=oldest,
                newest=newest,
                warps=one.warps,
                stages=one.stages,
            )
        )
        listing = {"groups": "*i32", "best": "*i32", "best_row": "*i32"}
        names = ("levels", "n", "pitch", "tiles", "hop", "count", "slots", "direct")
        made.append(
            Kernel(
                one.kernel("sample"),
                sample,
                {**operands, **listing, **dict.fromkeys(names, "i32")},
                constants,
                frozenset({"pitch", "slots"}),
                oldest=oldest,
                newest=newest,
                warps=one.warps,
                stages=one.stages,
            )
        )
    return made


KERNELS = tuple(_scans())
