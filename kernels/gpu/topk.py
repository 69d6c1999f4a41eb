"""Selection in Triton: thresholds that k groups are known to reach, and the k best groups in order.

A slot holds the best of the groups that share it, so the k-th best of all slots is a score that k groups reach
(`kth`): a valid threshold, and the exact one but for groups that share a slot. Nothing is sorted until almost nothing
but the answer is left, and then places are counted, not sorted: a pair's place is how many groups are ahead of it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.pairs import ordered, row_of, slot_of, value_of
from matchcut.kernels.gpu.spec import Kernel


@triton.jit
def kth(best, less, least, tau, k, SLOTS: tl.constexpr, DIGIT: tl.constexpr, DIGITS: tl.constexpr):
    """tau[query] = the k-th best of its slots, less[query] taken away, or least[query] if that is more.

    Found digit by digit, DIGIT (at most 4) bits at a time; bits after DIGIT * DIGITS count as 0, so what it gives may
    be a little less. best: int32 (b, SLOTS), ordered. less, least, tau: float32 (b,). -inf where fewer than k slots are
    taken; that also stands for least where there is none. Grid: (b,).
    """
    query = tl.program_id(0)
    keys = tl.load(best + query.to(tl.int64) * SLOTS + tl.arange(0, SLOTS))
    value = tl.full((), -(2**31), tl.int64)
    step = tl.full((), 2**32, tl.int64)
    for _ in range(DIGITS):
        step = step >> DIGIT
        digit = tl.full((), 0, tl.int32)
        for word in tl.static_range((2**DIGIT - 1 + 2) // 3):
            counts = tl.zeros((SLOTS,), tl.int64)  # three of them at a time, 21 bits each
            for part in tl.static_range(3):
                if 3 * word + part + 1 < 2**DIGIT:
                    reached = keys >= (value + (3 * word + part + 1) * step).to(tl.int32)
                    counts += reached.to(tl.int64) << (21 * part)
            total = tl.sum(counts, axis=0)
            for part in tl.static_range(3):
                if 3 * word + part + 1 < 2**DIGIT:
                    digit += (((total >> (21 * part)) & 0x1FFFFF) >= k).to(tl.int32)
        value += digit * step
    reached = ordered(value.to(tl.int32)).to(tl.float32, bitcast=True)
    reached = tl.where(value == -(2**31), float("-inf"), reached)
    taken = tl.load(less + query)
    lower = reached - taken
    lower = tl.where(taken > 0, ordered(ordered(lower) - 1).to(tl.float32, bitcast=True), lower)
    lower = tl.where((reached != reached) | (reached == float("-inf")), float("-inf"), lower)
    tl.store(tau + query, tl.maximum(lower, tl.load(least + query)))


@triton.jit
def seeds(best, best_row, tau, found, found_row, slots, capacity, BLOCK: tl.constexpr):
    """Lists the sampled rows whose score reaches tau: found (b,), found_row int32 (b, capacity).

    Grid: (slots / BLOCK, b).
    """
    query = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    line = query.to(tl.int64) * slots
    key = tl.load(best + line + at)
    hit = (key > -(2**31)) & (key >= ordered(tl.load(tau + query)))
    hits = hit.to(tl.int32)
    start = tl.atomic_add(found + query, tl.sum(hits, axis=0), sem="relaxed")
    place = start + tl.cumsum(hits, axis=0) - hits
    row = tl.load(best_row + line + at, mask=hit, other=0)
    tl.store(found_row + query.to(tl.int64) * capacity + place, row, mask=hit & (place < capacity))


@triton.jit
def lowers(scale, tail_scale, errors, groups, done, found, pairs, best, capacity, slots, P: tl.constexpr):
    """Puts the lower bound of each pair, from done (b,) to found (b,), into the slot of its group.

    errors: float32 (b, 3): the error's share of the row's scale, of the scale of its tail, and of nothing.
    Grid: (programs, b).
    """
    query = tl.program_id(1)
    count = tl.minimum(tl.load(found + query), capacity)
    of_scale = tl.load(errors + 3 * query)
    of_tail = tl.load(errors + 3 * query + 1)
    of_all = tl.load(errors + 3 * query + 2)
    start = tl.load(done + query) + tl.program_id(0) * P
    for first in range(start, count, tl.num_programs(0) * P):
        at = first + tl.arange(0, P)
        inside = at < count
        pair = tl.load(pairs + query.to(tl.int64) * capacity + at, mask=inside, other=0)
        row = row_of(pair)
        error = tl.load(scale + row, mask=inside, other=0.0) * of_scale + of_all
        error += tl.load(tail_scale + row, mask=inside, other=0.0) * of_tail
        lower = value_of(pair) - error
        group = tl.load(groups + row, mask=inside, other=0)
        counts = inside & (lower == lower)
        tl.atomic_max(
            best + query.to(tl.int64) * slots + slot_of(group, slots), ordered(lower), mask=counts, sem="relaxed"
        )


@triton.jit
def narrow(scale, tail_scale, errors, tau, found, pairs, left, left_row, capacity, P: tl.constexpr):
    """Lists the pairs whose upper bound reaches tau: left (b,), left_row int32 (b, capacity). Grid: (programs, b)."""
    query = tl.program_id(1)
    count = tl.minimum(tl.load(found + query), capacity)
    of_scale = tl.load(errors + 3 * query)
    of_tail = tl.load(errors + 3 * query + 1)
    of_all = tl.load(errors + 3 * query + 2)
    bar = tl.load(tau + query)
    for first in range(tl.program_id(0) * P, count, tl.num_programs(0) * P):
        at = first + tl.arange(0, P)
        inside = at < count
        line = query.to(tl.int64) * capacity
        pair = tl.load(pairs + line + at, mask=inside, other=0)
        row = row_of(pair)
        error = tl.load(scale + row, mask=inside, other=0.0) * of_scale + of_all
        error += tl.load(tail_scale + row, mask=inside, other=0.0) * of_tail
        hit = inside & (value_of(pair) + error >= bar)
        hits = hit.to(tl.int32)
        many = tl.sum(hits, axis=0)
        if many > 0:
            start = tl.atomic_add(left + query, many, sem="relaxed")
            place = start + tl.cumsum(hits, axis=0) - hits
            tl.store(left_row + line + place, row, mask=hit)


@triton.jit
def finalists(score, tau, least, found, row_list, left, left_row, left_score, stride, capacity, room, P: tl.constexpr):
    """Lists the pairs whose exact score reaches tau and least: float64 left_score, int32 left_row, (b, room).

    least: float64 (b,). row_list: int32 (b, capacity, stride), the row first. Grid: (programs, b).
    """
    query = tl.program_id(1)
    count = tl.minimum(tl.load(found + query), capacity)
    bar = tl.maximum(tl.load(tau + query).to(tl.float64), tl.load(least + query))
    for first in range(tl.program_id(0) * P, count, tl.num_programs(0) * P):
        at = first + tl.arange(0, P)
        inside = at < count
        line = query.to(tl.int64) * capacity
        value = tl.load(score + line + at, mask=inside, other=float("-inf"))
        hit = (value >= bar) & (value > float("-inf"))
        hits = hit.to(tl.int32)
        many = tl.sum(hits, axis=0)
        if many > 0:
            start = tl.atomic_add(left + query, many, sem="relaxed")
            place = start + tl.cumsum(hits, axis=0) - hits
            fits = hit & (place < room)
            target = query.to(tl.int64) * room + place
            tl.store(left_row + target, tl.load(row_list + (line + at) * stride, mask=fits, other=0), mask=fits)
            tl.store(left_score + target, value, mask=fits)


@triton.jit
def leaders(groups, left, left_row, left_score, leads, room, P: tl.constexpr, J: tl.constexpr):
    """leads: uint8 (b, room): whether no pair of the same group is ahead. Grid: (room / P, b)."""
    query = tl.program_id(1)
    count = tl.minimum(tl.load(left + query), room)
    first = tl.program_id(0) * P
    if first < count:
        line = query.to(tl.int64) * room
        mine = first + tl.arange(0, P)
        row = tl.load(left_row + line + mine, mask=mine < count, other=0)
        score = tl.load(left_score + line + mine, mask=mine < count, other=0.0)
        group = tl.load(groups + row)
        behind = tl.zeros((P,), tl.int32)
        for start in range(0, count, J):
            other = start + tl.arange(0, J)
            there = other < count
            row_2 = tl.load(left_row + line + other, mask=there, other=0)
            score_2 = tl.load(left_score + line + other, mask=there, other=0.0)
            group_2 = tl.load(groups + row_2)
            ahead = (score_2[None, :] > score[:, None]) | (
                (score_2[None, :] == score[:, None]) & (row_2[None, :] < row[:, None])
            )
            same = there[None, :] & (group_2[None, :] == group[:, None])
            behind += tl.sum((ahead & same).to(tl.int32), axis=1)
        tl.store(leads + line + mine, (behind == 0).to(tl.uint8), mask=mine < count)


@triton.jit
def places(left, left_row, left_score, leads, out, out_row, out_score, room, k, P: tl.constexpr, J: tl.constexpr):
    """The k best of those that lead, best first; equal scores by the lower row.

    out: int32 (b,) how many. out_row: int32 (b, k). out_score: float64 (b, k). Grid: (room / P, b).
    """
    query = tl.program_id(1)
    count = tl.minimum(tl.load(left + query), room)
    first = tl.program_id(0) * P
    if first < count:
        line = query.to(tl.int64) * room
        mine = first + tl.arange(0, P)
        row = tl.load(left_row + line + mine, mask=mine < count, other=0)
        score = tl.load(left_score + line + mine, mask=mine < count, other=0.0)
        lead = tl.load(leads + line + mine, mask=mine < count, other=0) != 0
        place = tl.zeros((P,), tl.int32)
        for start in range(0, count, J):
            other = start + tl.arange(0, J)
            there = other < count
            leading = tl.load(leads + line + other, mask=there, other=0) != 0
            row_2 = tl.load(left_row + line + other, mask=there, other=0)
            score_2 = tl.load(left_score + line + other, mask=there, other=0.0)
            ahead = (score_2[None, :] > score[:, None]) | (
                (score_2[None, :] == score[:, None]) & (row_2[None, :] < row[:, None])
            )
            place += tl.sum((ahead & leading[None, :]).to(tl.int32), axis=1)
        wins = lead & (place < k)
        target = query.to(tl.int64) * k + place
        tl.store(out_row + target, row, mask=wins)
        tl.store(out_score + target, score, mask=wins)
        tl.atomic_add(out + query, tl.sum(wins.to(tl.int32), axis=0), sem="relaxed")


SLOTS = (4096, 16384)
PAIRS = 128  # of a program of `leaders` and `places`
LISTED = 256  # of a program that goes through a list

_ERRORS = {"scale": "*fp32", "tail_scale": "*fp32", "errors": "*fp32"}

KERNELS = (
    *(
        Kernel(
            f"kth_{slots}",
            kth,
            {"best": "*i32", "less": "*fp32", "least": "*fp32", "tau": "*fp32", "k": "i32"},
            {"SLOTS": slots, "DIGIT": 3, "DIGITS": 8},
            warps=8 if slots <= 4096 else 16,
        )
        for slots in SLOTS
    ),
    Kernel(
        "seeds",
        seeds,
        {
            "best": "*i32",
            "best_row": "*i32",
            "tau": "*fp32",
            "found": "*i32",
            "found_row": "*i32",
            "slots": "i32",
            "capacity": "i32",
        },
        {"BLOCK": 1024},
        frozenset({"slots", "capacity"}),
    ),
    Kernel(
        "lowers",
        lowers,
        {
            **_ERRORS,
            "groups": "*i32",
            "done": "*i32",
            "found": "*i32",
            "pairs": "*i64",
            "best": "*i32",
            "capacity": "i32",
            "slots": "i32",
        },
        {"P": LISTED},
        frozenset({"slots", "capacity"}),
    ),
    Kernel(
        "narrow",
        narrow,
        {
            **_ERRORS,
            "tau": "*fp32",
            "found": "*i32",
            "pairs": "*i64",
            "left": "*i32",
            "left_row": "*i32",
            "capacity": "i32",
        },
        {"P": LISTED},
        frozenset({"capacity"}),
    ),
    Kernel(
        "finalists",
        finalists,
        {
            "score": "*fp64",
            "tau": "*fp32",
            "least": "*fp64",
            "found": "*i32",
            "row_list": "*i32",
            "left": "*i32",
            "left_row": "*i32",
            "left_score": "*fp64",
            "stride": "i32",
            "capacity": "i32",
            "room": "i32",
        },
        {"P": LISTED},
        frozenset({"room", "capacity"}),
    ),
    Kernel(
        "leaders",
        leaders,
        {"groups": "*i32", "left": "*i32", "left_row": "*i32", "left_score": "*fp64", "leads": "*u8", "room": "i32"},
        {"P": PAIRS, "J": 16},
        frozenset({"room"}),
    ),
    Kernel(
        "places",
        places,
        {
            "left": "*i32",
            "left_row": "*i32",
            "left_score": "*fp64",
            "leads": "*u8",
            "out": "*i32",
            "out_row": "*i32",
            "out_score": "*fp64",
            "room": "i32",
            "k": "i32",
        },
        {"P": PAIRS, "J": 16},
        frozenset({"room"}),
    ),
)
