"""Scores of rows against queries, in Triton: bounds of all rows from their codes; exact.py has the rest.

The scan is a product [rows x dimensions] x [dimensions x queries] on the tensor cores; rows are the tall operand, so
that these work even for one query. Its epilogue turns a product of codes into a score and its error, as codes.py
proves, and what cannot be ruled out is appended to a list. No score of a row that is ruled out is ever stored.

Which tile a program takes: tile = program * hop mod tiles, with hop coprime to the tiles. `sample` looks at the first
few programs' tiles, spread over all rows; `scan` begins with the same, which are still in the cache.

Operands of the scan, by KIND:
  int8   rows int8 (n, pitch), scale float32 (n,); queries int8 (PARTS, BN, pitch), where RADIX * high + low is a code;
  bf16   rows bfloat16 (n, pitch); queries bfloat16 (PARTS, BN, pitch), whose sum is the query;
  fp32   rows float32 (n, pitch); queries float32 (1, BN, pitch); multiplied as tf32 where there is that.
`terms` is float32 (5, BN): base, step, and the error's share of the scale, of the norm beyond, and of nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Constant, Kernel


@triton.jit
def ordered(x):
    """int32 that compare as these float32 do; its own inverse."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def slot_of(group, slots):
    """Where the best of a group is kept: groups may share one of the slots, a power of two, but no group has two."""
    mixed = group.to(tl.uint32) * 2654435769
    return (mixed >> 7).to(tl.int32) & (slots - 1)


@triton.jit
def bounds_of_tile(
    rows,
    scale,
    beyond,
    mask,
    queries,
    terms,
    n,
    pitch,
    tiles,
    hop,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    RADIX: tl.constexpr,
    TAIL: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Scores and errors (BM, BN) of this program's tile, its rows (BM,), and which of them count."""
    tile = ((tl.program_id(0).to(tl.int64) * hop) % tiles).to(tl.int32)
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
        if TAIL:
            rest = tl.load(beyond + row, mask=live, other=0.0)
            error += rest[:, None] * tl.load(terms + 3 * BN + column)[None, :]
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
    groups,
    best,
    best_row,
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
    TAIL: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """The best row of each 16: by its lower bound into the slot of its group, or by its score for `exact` to look at.

    best: int32 (count, slots), ordered, lowest before. best_row: int32 (count, slots), if not direct.
    """
    value, error, row, live = bounds_of_tile(
        rows, scale, beyond, mask, queries, terms, n, pitch, tiles, hop, KIND, PARTS, RADIX, TAIL, UPCAST, BM, BN, BK
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
    tau,
    found,
    found_row,
    found_value,
    n,
    pitch,
    tiles,
    hop,
    capacity,
    EACH: tl.constexpr,
    KIND: tl.constexpr,
    PARTS: tl.constexpr,
    RADIX: tl.constexpr,
    TAIL: tl.constexpr,
    UPCAST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Appends each pair whose upper bound reaches tau (BN,): its row and score, (BN, capacity); found (BN,) counts.

    What finds no room is counted all the same. tau of a column without a query is infinity or NaN. BN * capacity must
    stay below 2**31.
    """
    value, error, row, live = bounds_of_tile(
        rows, scale, beyond, mask, queries, terms, n, pitch, tiles, hop, KIND, PARTS, RADIX, TAIL, UPCAST, BM, BN, BK
    )
    column = tl.arange(0, BN)
    hit = (value + error >= tl.load(tau + column)[None, :]) & live[:, None]
    hits = hit.to(tl.int32)
    many = tl.sum(hits, axis=0)
    if tl.sum(many, axis=0) > 0:
        if EACH:
            place = tl.atomic_add(found + tl.broadcast_to(column[None, :], (BM, BN)), 1, mask=hit, sem="relaxed")
        else:
            start = tl.atomic_add(found + column, many, mask=many > 0, sem="relaxed")
            place = start[None, :] + tl.cumsum(hits, axis=0) - hits
        fits = hit & (place < capacity)
        target = column[None, :] * capacity + place
        tl.store(found_row + target, tl.broadcast_to(row[:, None], (BM, BN)), mask=fits)
        tl.store(found_value + target, value, mask=fits)


RADIX = 254  # of fine codes: twice the largest int8 code
ROWS = 128  # of a tile

_TYPES = {"int8": "*i8", "bf16": "*bf16", "fp32": "*fp32"}
_DEPTH = {"int8": 64, "bf16": 64, "fp32": 32}
# kind, queries of a pass, parts, tail
SCANS = (
    ("int8", 16, 2, False),
    ("int8", 16, 2, True),
    ("int8", 64, 1, False),
    ("int8", 64, 2, True),
    ("bf16", 16, 2, False),
    ("bf16", 64, 1, False),
    ("fp32", 16, 1, False),
    ("fp32", 64, 1, False),
)


def scan_name(op: str, kind: str, queries: int, tail: bool) -> str:
    """Of one of SCANS, after "scan_", or of its sample."""
    return f"{op}_{kind}_{queries}{'_tail' if tail else ''}"


def _scans() -> list[Kernel]:
    made = []
    for kind, columns, parts, tail in SCANS:
        operand = _TYPES[kind]
        constants: dict[str, Constant] = {
            "KIND": kind,
            "PARTS": parts,
            "RADIX": RADIX,
            "TAIL": tail,
            "UPCAST": False,
            "BM": ROWS,
            "BN": columns,
            "BK": _DEPTH[kind],
        }
        operands = {
            "rows": operand,
            "scale": "*fp32",
            "beyond": "*fp32",
            "mask": "*u8",
            "queries": operand,
            "terms": "*fp32",
        }
        sizes = {"n": "i32", "pitch": "i32", "tiles": "i32", "hop": "i32"}
        oldest = 75 if kind == "fp32" else 80
        listing = {"tau": "*fp32", "found": "*i32", "found_row": "*i32", "found_value": "*fp32"}
        made.append(
            Kernel(
                scan_name("scan", kind, columns, tail),
                scan,
                {**operands, **listing, **sizes, "capacity": "i32"},
                {"EACH": False, **constants},
                frozenset({"pitch", "capacity"}),
                oldest=oldest,
                warps=4 if columns <= 16 else 8,
                stages=4,
            )
        )
        made.append(
            Kernel(
                scan_name("sample", kind, columns, tail),
                sample,
                {
                    **operands,
                    "groups": "*i32",
                    "best": "*i32",
                    "best_row": "*i32",
                    **sizes,
                    "count": "i32",
                    "slots": "i32",
                    "direct": "i32",
                },
                constants,
                frozenset({"pitch", "slots"}),
                oldest=oldest,
                warps=4 if columns <= 16 else 8,
                stages=4,
            )
        )
    return made


KERNELS = tuple(_scans())
