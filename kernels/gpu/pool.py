"""pool in Triton: the vectors of all segments are read once and pooled, in any of the ways of pooling.py.

A program pools one chunk of a segment to a state: two rows of numbers and two numbers, which mean something else for
each kind (`_of`), and two states make one (`_joined`). The last program of a segment to arrive joins the states of all
its chunks, in their order, so that the answer is the same each time, and finishes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.launch.pool import BLOCKS
from matchcut.kernels.pooling import BROKEN, EMPTY, ZERO

LARGEST = tl.constexpr(3.4028234663852886e38)  # finite float32
_EMPTY, _BROKEN, _ZERO = tl.constexpr(EMPTY), tl.constexpr(BROKEN), tl.constexpr(ZERO)


@triton.jit
def _power(ratio, exponent):
    """ratio ** exponent for 0 <= ratio <= 1 and an exponent above 0."""
    return tl.exp2(exponent * tl.log2(ratio))


@triton.jit
def _some(value):
    """The value, or 1 where it is 0, to divide by."""
    return tl.where(value == 0, 1.0, value)


@triton.jit
def _joined(a, b, m, w, a2, b2, m2, w2, exponent, KIND: tl.constexpr):
    """One state of two; for attention and mean_std the scalars say what each is worth."""
    if KIND == "mean":
        a += a2
    elif KIND == "max":
        a = tl.maximum(a, a2)
    elif KIND == "gem":
        top = tl.maximum(a, a2)
        b = b * _power(a / top, exponent) + b2 * _power(a2 / top, exponent)
        a = top
    elif KIND == "attention":
        top = tl.maximum(m, m2)
        base = tl.where(top == float("-inf"), 0.0, top)
        mine = tl.exp2(m - base)
        other = tl.exp2(m2 - base)
        a = a * mine + a2 * other
        w = w * mine + w2 * other
        m = top
    else:
        total = _some(w + w2)
        mine = w / total
        other = w2 / total
        apart = a2 - a
        top = _some(tl.maximum(tl.maximum(b, b2), tl.abs(apart)))
        own = b / top
        their = b2 / top
        far = apart / top
        b = top * tl.sqrt(mine * own * own + other * their * their + mine * other * far * far)
        a += apart * other
        w += w2
    return a, b, m, w


@triton.jit
def _of(x, share, counts, query, exponent, floor, BLOCK: tl.constexpr, KIND: tl.constexpr):
    """The state of a tile, and the score of each of its rows.

    x: float32 (rows, BLOCK), 0 where it does not count; share: (rows,); counts: whether it does, as x.
    State: mean: a is the sum of share * x. max: a is the maximum. gem: a is the maximum of x and floor, b the sum of
    share * (x / a) ** exponent. attention: m is the largest score, in powers of two, w the sum of share * 2 ** (score
    - m), a that of share * 2 ** (score - m) * x. mean_std: a is the mean, b the deviation, w the sum of the shares.
    """
    b = tl.zeros([BLOCK], tl.float32)
    m = tl.full((), 0.0, tl.float32)
    w = tl.full((), 0.0, tl.float32)
    score = share
    part = share[:, None]
    if KIND == "mean":
        a = tl.sum(part * x, axis=0)
    elif KIND == "max":
        a = tl.max(tl.where(counts, x, float("-inf")), axis=0)
    elif KIND == "gem":
        raised = tl.maximum(x, floor)
        a = tl.max(tl.where(counts, raised, floor), axis=0)
        b = tl.sum(part * _power(raised / a[None, :], exponent), axis=0)
    elif KIND == "attention":
        score = tl.where(share > 0, tl.sum(x * query[None, :], axis=1), float("-inf"))
        m = tl.max(score, axis=0)
        worth = share * tl.exp2(score - tl.where(m == float("-inf"), 0.0, m))
        w = tl.sum(worth, axis=0)
        a = tl.sum(worth[:, None] * x, axis=0)
    else:
        w = tl.sum(share, axis=0)
        part = part / _some(w)
        a = tl.sum(part * x, axis=0)
        apart = tl.where(counts, x - a[None, :], 0.0)
        top = _some(tl.max(tl.abs(apart), axis=0))
        far = apart / top[None, :]
        b = top * tl.sqrt(tl.sum(part * far * far, axis=0))
    return a, b, m, w, score


@triton.jit
def _nothing(floor, BLOCK: tl.constexpr, KIND: tl.constexpr):
    """The state of no vector, with which any other is joined unchanged."""
    a = tl.zeros([BLOCK], tl.float32)
    m = tl.full((), 0.0, tl.float32)
    if KIND == "max":
        a += float("-inf")
    elif KIND == "gem":
        a += floor
    elif KIND == "attention":
        m += float("-inf")
    return a, tl.zeros([BLOCK], tl.float32), m, tl.full((), 0.0, tl.float32)


@triton.jit
def _finish(a, b, w, seen, broken, here, at, exponent, out, segment, dimensions, normalise, KIND: tl.constexpr):
    """Stores what a segment's state gives, and returns its status."""
    if KIND == "gem":
        a = a * tl.exp2(tl.log2(b) / exponent)
    elif KIND == "attention":
        a = a / _some(w)
    a = tl.where(here, a, 0.0)
    largest = tl.max(tl.abs(a), axis=0)
    unknown = tl.max(tl.where(tl.abs(a) <= LARGEST, 0, 1), axis=0)
    if KIND == "mean_std":
        largest = tl.maximum(largest, tl.max(tl.abs(b), axis=0))
        unknown = tl.maximum(unknown, tl.max(tl.where(tl.abs(b) <= LARGEST, 0, 1), axis=0))
    # Divided by the largest first, so that no square overflows or vanishes.
    scale = _some(largest)
    short = tl.div_rn(a, tl.zeros_like(a) + scale)
    square = tl.sum(short * short, axis=0)
    short_b = b
    if KIND == "mean_std":
        short_b = tl.div_rn(b, tl.zeros_like(b) + scale)
        square += tl.sum(short_b * short_b, axis=0)
    norm = _some(tl.sqrt(square))
    code = tl.where((normalise != 0) & (largest == 0), _ZERO, 0)
    code = tl.where((broken != 0) | (unknown != 0), _BROKEN, code)
    code = tl.where(seen == 0, _EMPTY, code)
    a = tl.where(normalise != 0, short / norm, a)
    if KIND == "mean_std":
        target = out + segment.to(tl.int64) * 2 * dimensions + at
        b = tl.where(normalise != 0, short_b / norm, b)
        tl.store(target + dimensions, tl.where(code == 0, b, 0.0), mask=here)
    else:
        target = out + segment.to(tl.int64) * dimensions + at
    tl.store(target, tl.where(code == 0, a, 0.0), mask=here)
    return code


@triton.jit
def pool(
    vectors,
    shares,
    query,
    explained,
    exponent,
    floor,
    owners,
    starts,
    firsts,
    states,
    scalars,
    arrived,
    out,
    status,
    dimensions,
    normalise,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One chunk of a segment. Grid: (chunks,).

    vectors: float32 (n, dimensions), dimensions <= BLOCK; shares: float32 (n,), 0 for what is not looked at. query:
    float32 (dimensions,) and explained: float32 (n,), written, for attention, else None. exponent, floor: for gem.
    owners, starts, firsts: see launch/pool.py. states: float32 (chunks, 2, dimensions), scalars: float32 (chunks, 4),
    room for the states. arrived: int32 (segments,), zero before and after. out: float32 (segments, dimensions, twice
    as many for mean_std). status: int32 (segments,), see pooling.py; where it is not 0 the result is 0.
    """
    chunk = tl.program_id(0)
    segment = tl.load(owners + chunk)
    first = tl.load(firsts + segment)
    last = tl.load(firsts + segment + 1)
    start = tl.load(starts + chunk)
    length = (tl.load(starts + chunk + 1) - start).to(tl.int32)
    at = tl.arange(0, BLOCK)
    here = at < dimensions
    asked = at
    if KIND == "attention":
        asked = tl.load(query + at, mask=here, other=0.0)

    a, b, m, w = _nothing(floor, BLOCK, KIND)
    wrong = tl.zeros([BLOCK], tl.int32)
    seen = tl.full((), 0, tl.int32)
    chunk_vectors = vectors + start * dimensions
    for done in range(0, length, ROWS):
        row = done + tl.arange(0, ROWS)
        share = tl.load(shares + start + row, mask=row < length, other=0.0)
        counts = (share > 0)[:, None] & here[None, :]
        x = tl.load(chunk_vectors + row[:, None] * dimensions + at[None, :], mask=counts, other=0.0)
        wrong = tl.maximum(wrong, tl.max(tl.where(tl.abs(x) <= LARGEST, 0, 1), axis=0))
        seen += tl.sum((share > 0).to(tl.int32), axis=0)
        a2, b2, m2, w2, score = _of(x, share, counts, asked, exponent, floor, BLOCK, KIND)
        if KIND == "attention":
            tl.store(explained + start + row, score, mask=row < length)
        a, b, m, w = _joined(a, b, m, w, a2, b2, m2, w2, exponent, KIND)
    broken = tl.max(wrong, axis=0)

    ready = last - first == 1
    if last - first > 1:
        own = states + chunk.to(tl.int64) * 2 * dimensions + at
        tl.store(own, a, mask=here)
        tl.store(own + dimensions, b, mask=here)
        numbers = scalars + chunk * 4
        tl.store(numbers, m)
        tl.store(numbers + 1, w)
        tl.store(numbers + 2, seen.to(tl.float32))
        tl.store(numbers + 3, broken.to(tl.float32))
        tl.debug_barrier()  # all that this program wrote is there before it says so
        ready = tl.atomic_add(arrived + segment, 1, sem="acq_rel") == last - first - 1
        if ready:
            tl.store(arrived + segment, 0)
            a, b, m, w = _nothing(floor, BLOCK, KIND)
            seen = tl.full((), 0, tl.int32)
            broken = tl.full((), 0, tl.int32)
            for nth in range(last - first):
                other = first + nth
                # ".cg": from the second-level cache, where other programs' writes are.
                own = states + other.to(tl.int64) * 2 * dimensions + at
                a2 = tl.load(own, mask=here, other=0.0, cache_modifier=".cg")
                b2 = tl.load(own + dimensions, mask=here, other=0.0, cache_modifier=".cg")
                numbers = scalars + other * 4
                m2 = tl.load(numbers, cache_modifier=".cg")
                w2 = tl.load(numbers + 1, cache_modifier=".cg")
                seen += tl.load(numbers + 2, cache_modifier=".cg").to(tl.int32)
                broken = tl.maximum(broken, tl.load(numbers + 3, cache_modifier=".cg").to(tl.int32))
                a, b, m, w = _joined(a, b, m, w, a2, b2, m2, w2, exponent, KIND)
    if ready:
        tl.debug_barrier()  # a chunk that is alone reads the scores that it wrote
        code = _finish(a, b, w, seen, broken, here, at, exponent, out, segment, dimensions, normalise, KIND)
        tl.store(status + segment, code)
        if KIND == "attention":
            begin = tl.load(starts + first)
            count = (tl.load(starts + last) - begin).to(tl.int32)
            for done in range(0, count, BLOCK):
                row = done + at
                inside = row < count
                share = tl.load(shares + begin + row, mask=inside, other=0.0)
                score = tl.load(explained + begin + row, mask=inside, other=0.0, cache_modifier=".cg")
                made = share * tl.exp2(score - m) / _some(w)
                tl.store(explained + begin + row, tl.where((code == 0) & (share > 0), made, 0.0), mask=inside)


# Rows of a tile and warps, for each of BLOCKS: many loads under way at once, and no register spilled on any target.
SHAPES = {
    "mean": ((8, 4), (4, 8)),
    "max": ((4, 4), (2, 8)),
    "gem": ((8, 4), (4, 16)),
    "attention": ((8, 4), (4, 8)),
    "mean_std": ((8, 8), (4, 8)),
}


def _kernel(kind: str, block: int) -> Kernel:
    extra = {"attention": {"query": "*fp32", "explained": "*fp32"}, "gem": {"exponent": "fp32", "floor": "fp32"}}
    arguments = {"vectors": "*fp32", "shares": "*fp32", **extra.get(kind, {})}
    arguments |= {"owners": "*i32", "starts": "*i64", "firsts": "*i32", "states": "*fp32", "scalars": "*fp32"}
    arguments |= {"arrived": "*i32", "out": "*fp32", "status": "*i32", "dimensions": "i32", "normalise": "i32"}
    unused = {name: None for of, names in extra.items() if of != kind for name in names}
    rows, warps = SHAPES[kind][BLOCKS.index(block)]
    constants = {**unused, "KIND": kind, "ROWS": rows, "BLOCK": block}
    return Kernel(f"pool_{kind}_{block}", pool, arguments, constants, warps=warps)


KERNELS: tuple[Kernel, ...] = tuple(_kernel(kind, block) for kind in SHAPES for block in BLOCKS)
