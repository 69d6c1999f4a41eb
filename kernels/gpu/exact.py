"""Scores of the few rows that a scan could not rule out, in Triton: the rest of their codes, then float64.

exact_score is defined by the order in which NumPy sums (pairwise, eight sums at a time). `exact` keeps that order, so
its float64 scores are those of score.exact_score bit by bit: the product of two float32 is exact in float64, hence
fused multiply-add changes nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.pairs import ordered, packed, row_of, slot_of, value_of
from matchcut.kernels.gpu.spec import Kernel


@triton.jit
def tails(codes, scale, queries, steps, done, found, pairs, levels, capacity, P: tl.constexpr):
    """Adds to the score of each pair what the tail levels of its row say, from done (b,) to found (b,).

    codes: int8 (n, levels * 64). scale: float32 (n,). queries: int32 (b, levels * 64), whole codes. steps: float32
    (b, levels). Grid: (programs, b).
    """
    query = tl.program_id(1)
    count = tl.minimum(tl.load(found + query), capacity)
    depth = tl.arange(0, 64)
    width = levels * 64
    start = tl.load(done + query) + tl.program_id(0) * P
    for first in range(start, count, tl.num_programs(0) * P):
        at = first + tl.arange(0, P)
        inside = at < count
        target = query.to(tl.int64) * capacity + at
        pair = tl.load(pairs + target, mask=inside, other=0)
        row = row_of(pair).to(tl.int64)
        total = tl.zeros((P,), tl.float32)
        for level in range(levels):
            x = tl.load(codes + row[:, None] * width + level * 64 + depth[None, :], mask=inside[:, None], other=0)
            q = tl.load(queries + query * width + level * 64 + depth)
            dots = tl.sum(x.to(tl.int32) * q[None, :], axis=1)
            total += dots.to(tl.float32) * tl.load(steps + query * levels + level)
        value = value_of(pair) + tl.load(scale + row, mask=inside, other=0.0) * total
        tl.store(pairs + target, packed(value, row), mask=inside)


@triton.jit
def exact(
    rows,
    queries,
    groups,
    plan,
    excluded,
    excluded_from,
    found,
    row_list,
    score,
    best,
    stride,
    pitch,
    leaves,
    rest_from,
    rest,
    capacity,
    slots,
    P: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """exact_score of each pair, float64 (b, capacity), and into the slots of its group, rounded down to float32.

    row_list: int32 (b, capacity, stride), the row first. A pair whose group its query excludes gets -inf, as does one
    whose score is NaN. plan: int32 (leaves, 3): where a leaf of the sum begins, how many steps of eight it has, and how
    many sums are joined after it; rest: dimensions after the last whole eight. excluded: int32, ascending for each
    query, from excluded_from[query] to excluded_from[query + 1]. Grid: (programs, b).
    """
    query = tl.program_id(1)
    count = tl.minimum(tl.load(found + query), capacity)
    lane = tl.arange(0, 8)
    deep = tl.arange(0, 16)
    ban_from = tl.load(excluded_from + query)
    ban_to = tl.load(excluded_from + query + 1)
    q_at = queries + query * pitch
    for first in range(tl.program_id(0) * P, count, tl.num_programs(0) * P):
        at = first + tl.arange(0, P)
        inside = at < count
        target = query.to(tl.int64) * capacity + at
        row = tl.load(row_list + target * stride, mask=inside, other=0)
        x_at = rows + row.to(tl.int64) * pitch
        stack = tl.zeros((P, 16), tl.float64)
        height = 0
        for leaf in range(leaves):
            begin = tl.load(plan + 3 * leaf)
            steps = tl.load(plan + 3 * leaf + 1)
            sums = tl.zeros((P, 8), tl.float64)
            for step in range(0, steps, AHEAD):
                for ahead in tl.static_range(AHEAD):
                    offset = begin + (step + ahead) * 8
                    wanted = lane * 0 + step + ahead < steps
                    x = tl.load(
                        x_at[:, None] + offset + lane[None, :], mask=inside[:, None] & wanted[None, :], other=0.0
                    )
                    q = tl.load(q_at + offset + lane, mask=wanted, other=0.0)
                    sums += x.to(tl.float64) * q.to(tl.float64)[None, :]
            total = tl.sum(
                tl.reshape(tl.sum(tl.reshape(tl.sum(tl.reshape(sums, (P, 4, 2)), axis=2), (P, 2, 2)), axis=2), (P, 2)),
                axis=1,
            )
            if leaf == leaves - 1:
                for one in range(rest):
                    x = tl.load(x_at + rest_from + one, mask=inside, other=0.0)
                    total += x.to(tl.float64) * tl.load(q_at + rest_from + one).to(tl.float64)
            for _ in range(tl.load(plan + 3 * leaf + 2)):
                height -= 1
                total += tl.sum(tl.where(deep[None, :] == height, stack, 0.0), axis=1)
            stack = tl.where(deep[None, :] == height, total[:, None], stack)
            height += 1
        result = tl.sum(tl.where(deep[None, :] == 0, stack, 0.0), axis=1)
        result = tl.where(result == 0, 0.0, result)  # zero is never negative
        group = tl.load(groups + row, mask=inside, other=0)
        low = tl.zeros((P,), tl.int32) + ban_from
        high = tl.zeros((P,), tl.int32) + ban_to
        left = ban_to - ban_from
        while left > 0:  # the first that is not less
            middle = (low + high) // 2
            less = tl.load(excluded + middle, mask=low < high, other=0) < group
            searching = low < high
            low = tl.where(searching & less, middle + 1, low)
            high = tl.where(searching & ~less, middle, high)
            left = left // 2
        banned = (low < ban_to) & (tl.load(excluded + low, mask=low < ban_to, other=-1) == group)
        stays = inside & ~banned & (result == result)
        result = tl.where(stays, result, float("-inf"))
        tl.store(score + target, result, mask=inside)
        near = result.to(tl.float32)
        key = ordered(near) - (near.to(tl.float64) > result).to(tl.int32)
        line = query.to(tl.int64) * slots
        tl.atomic_max(best + line + slot_of(group, slots), key, mask=stays & (result > float("-inf")), sem="relaxed")


PAIRS = 16  # of a program of `exact`
TAILS = 32

KERNELS = (
    Kernel(
        "tails",
        tails,
        {
            "codes": "*i8",
            "scale": "*fp32",
            "queries": "*i32",
            "steps": "*fp32",
            "done": "*i32",
            "found": "*i32",
            "pairs": "*i64",
            "levels": "i32",
            "capacity": "i32",
        },
        {"P": TAILS},
        frozenset({"capacity"}),
    ),
    Kernel(
        "exact",
        exact,
        {
            "rows": "*fp32",
            "queries": "*fp32",
            "groups": "*i32",
            "plan": "*i32",
            "excluded": "*i32",
            "excluded_from": "*i32",
            "found": "*i32",
            "row_list": "*i32",
            "score": "*fp64",
            "best": "*i32",
            "stride": "i32",
            "pitch": "i32",
            "leaves": "i32",
            "rest_from": "i32",
            "rest": "i32",
            "capacity": "i32",
            "slots": "i32",
        },
        {"P": PAIRS, "AHEAD": 8},
        frozenset({"pitch", "capacity", "slots"}),
    ),
)
