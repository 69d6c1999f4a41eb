"""What the ranking kernels are launched with: plain numbers and arrays, so that a test can run the same launches.

`questions` puts queries into the terms of the kernels; `pairwise` writes down the order in which NumPy sums.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, code_queries
from matchcut.kernels.launch.scans import LIMIT, Kind, Scan, scan_for
from matchcut.kernels.native.shared_library import LEVEL
from matchcut.kernels.preprocess import bfloat16_bits
from matchcut.kernels.score import rounding, wide_rounding

MOST = 4096  # the largest k
_SLOTS = (4096, 16384)
_UP = np.float32(1 + 2.0**-22)

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]
Ints32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """b queries for one pass of a scan with its `columns`.

    queries: the scan's operand, (parts, columns, width). terms: float32 (5, columns). errors: float32 (b, 3).
    tail, steps: of the tail levels, for "prefix" int32 (b, levels * 64), whole codes, and float32 (b, levels), for
    "all" int8 (columns, levels * 64), the higher halves, and float32 (levels, columns). exact: float32 (b, pitch), the
    queries.
    margin: float32 (b,), how far the exact score may be from the true product, thrice.
    """

    scan: Scan
    queries: NDArray[np.generic]
    terms: Floats
    errors: Floats
    tail: NDArray[np.generic]
    steps: Floats
    exact: Floats
    margin: Floats


def coded_questions(
    queries: Floats, coded: CodedRows, radius: float, pitch: int, width: int, capability: int
) -> Questions | None:
    """Queries for int8 codes; None where their norms are beyond what codes.py bounds.

    Args:
        queries: (b, dimensions) float32, finite, b <= MANY.
        radius: at least the norm of each row.
        pitch: values of a row on the device, with padding.
        width: codes of a row on the device, likewise.
        capability: compute capability of the device.
    """
    levels = coded.basis.levels
    scan = scan_for("int8", len(queries), levels, capability)
    columns = scan.columns
    asked = code_queries(queries, coded, LIMIT, fine=True)
    if asked is None:
        return None
    arrays = asked.arrays
    count, dense = len(queries), coded.basis.dense
    operand = np.zeros((asked.parts, columns, width), np.int8)
    operand[:, :count, :dense] = arrays["dense"].transpose(1, 0, 2)
    halves: NDArray[Any] = arrays["tail"]
    steps: NDArray[Any] = arrays["step"][:, 1:]
    spread: NDArray[Any] = arrays["spread"]
    slack: NDArray[Any] = arrays["slack"]
    last = slack[:, levels]
    if scan.codes == "all":
        tail: NDArray[np.generic] = np.zeros((columns, levels * LEVEL), np.int8)
        tail[:count] = halves[:, :, 0].reshape(count, -1)
        last = last + _lower_halves(halves, steps, coded)
        steps = _wide(asked.radix * steps.T, columns)
    else:
        tail = (asked.radix * halves[:, :, 0].astype(np.int32) + halves[:, :, 1]).reshape(count, -1)
    share = spread[:, levels] if scan.codes == "all" else arrays["reach"][:, 0]
    first = last if scan.codes == "all" else slack[:, 0]
    terms = np.stack([arrays["base"], arrays["step"][:, 0], spread[:, 0], share, first])
    errors = np.stack([spread[:, 0], spread[:, levels] * (levels > 0), last], axis=1)
    return Questions(
        scan=scan,
        queries=operand,
        terms=_wide(terms, columns),
        errors=np.ascontiguousarray(errors, np.float32),
        tail=tail,
        steps=np.ascontiguousarray(steps, np.float32),
        exact=_padded(queries, pitch),
        margin=_margins(queries, radius),
    )


def plain_questions(queries: Floats, kind: Kind, radius: float, pitch: int, capability: int) -> Questions | None:
    """Queries for rows in bfloat16 or float32; None where float32 could overflow.

    What is lost: with u = 2**-8 a bfloat16 is within v = u / (1 + u) of a row's value, relatively, and two of them
    within v**2 of a query's, one within v; so products are within v + v**2 + v**3 < u, or 2 v + v**2 < 2 u. tf32 is
    within 2**-10 of either (it may be cut off rather than rounded). So |error| is at most that share of
    sum |q_i x_i| <= |q| |x|; sums in float32 add score.rounding, twice over as tensor cores may cut off as well. Values
    below 2**-126 may count as 0, which by Cauchy-Schwarz adds sqrt(d) 2**-126 times the other's norm. Norms stay below
    2**127, so that no value rounds to infinity.
    """
    count = len(queries)
    scan = scan_for(kind, count, 0, capability)
    columns, parts = scan.columns, scan.parts
    norms = _norms(queries) * (1 + 1e-9)
    share = {("bf16", 2): 2.0**-8, ("bf16", 1): 2.0**-7, ("fp32", 1): 2.0**-8}[kind, parts]
    sums = np.array([rounding(parts * pitch, norm * radius) for norm in norms.tolist()])
    slack = (norms * radius * share + 2 * sums) * (1 + 2.0**-6)  # sums are of rounded values, which may be larger
    slack += (norms + radius) * (pitch**0.5 * 2.0**-124)
    if not max(radius, norms.max()) < 2.0**127 or not (slack < 2.0**127).all():
        return None
    padded = _padded(queries, pitch)
    operand: NDArray[np.generic]
    if kind == "fp32":
        operand = np.zeros((1, columns, pitch), np.float32)
        operand[0, :count] = padded
    else:
        high = bfloat16_bits(padded)
        operand = np.zeros((parts, columns, pitch), np.uint16)
        operand[0, :count] = high
        if parts == 2:
            operand[1, :count] = bfloat16_bits(padded - (high.astype(np.uint32) << 16).view(np.float32))
    terms = np.zeros((5, columns), np.float32)
    terms[4, :count] = slack.astype(np.float32) * _UP
    errors = np.zeros((count, 3), np.float32)
    errors[:, 2] = terms[4, :count]
    return Questions(
        scan=scan,
        queries=operand,
        terms=terms,
        errors=errors,
        tail=np.zeros((count, 0), np.int32),
        steps=np.zeros((count, 0), np.float32),
        exact=padded,
        margin=_margins(queries, radius),
    )


def _lower_halves(halves: NDArray[Any], steps: Floats, coded: CodedRows) -> Floats:
    """How much the lower halves of the tail levels' codes may add to a score: (b,), by Cauchy-Schwarz in each level."""
    units = steps / coded.gains[1:]
    norms = np.sqrt(np.square(halves[:, :, 1], dtype=np.float64).sum(axis=2))
    bound: NDArray[np.float64] = (norms * units * coded.stats[1:, 1]).sum(axis=1)
    return (bound * (1 + 2.0**-18)).astype(np.float32)


@functools.cache
def pairwise(dimensions: int) -> tuple[Ints32, int, int]:
    """How NumPy sums so many values (pairwise_sum of its loops_utils): leaves of at most 128, joined in pairs.

    Returns:
        (leaves, 3) int32: where a leaf begins, its whole steps of eight, how many sums are joined after it; where what
        is left of the last leaf begins; how many values that are.
    """
    plan: list[list[int]] = []

    def split(start: int, count: int) -> None:
        if count <= 128:
            plan.append([start, count // 8, 0])
            return
        half = count // 2
        half -= half % 8
        split(start, half)
        split(start + half, count - half)
        plan[-1][2] += 1

    split(0, dimensions)
    rest = dimensions % 8
    return np.array(plan, np.int32), dimensions - rest, rest


@functools.cache
def tiles_of(count: int, tile: int) -> tuple[int, int]:
    """Tiles of so many rows, and a step that visits each once, in an order that looks at all of them soon."""
    tiles = max(1, -(-count // tile))
    hop = max(1, int(tiles * 0.6180339887))
    while gcd(hop, tiles) != 1:
        hop += 1
    return tiles, hop


def slots_of(k: int, count: int) -> int:
    """Slots for the best of each group: enough for k, and for a sample of many rows."""
    return _SLOTS[0] if k <= 256 and count <= 2_000_000 else _SLOTS[1]


def least_of(minimum: float | None) -> float:
    """A float32 at or below the least score wanted."""
    if minimum is None:
        return -np.inf
    with np.errstate(over="ignore"):
        return float(np.nextafter(np.float32(minimum), np.float32(-np.inf)))


def _margins(queries: Floats, radius: float) -> Floats:
    """As sieve.py has it."""
    wide = [3 * wide_rounding(queries.shape[1], norm * radius) for norm in _norms(queries).tolist()]
    return np.asarray(wide, np.float32) * _UP


def _norms(queries: Floats) -> Wide:
    wide = queries.astype(np.float64)
    norms: Wide = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return norms


def _padded(queries: Floats, pitch: int) -> Floats:
    padded = np.zeros((len(queries), pitch), np.float32)
    padded[:, : queries.shape[1]] = queries
    return padded


def _wide(values: NDArray[Any], columns: int) -> Floats:
    """(m, b) as (m, columns), with zeros for columns without a query."""
    wide = np.zeros((len(values), columns), np.float32)
    wide[:, : values.shape[1]] = values
    return wide


def alone(asked: Questions, query: int) -> Questions:
    """One of the queries, in as many columns, whose kernel it was made for."""
    at = slice(query, query + 1)

    def first(array: NDArray[Any], axis: int) -> NDArray[Any]:
        made = np.zeros_like(array)
        made[(slice(None),) * axis + (0,)] = array[(slice(None),) * axis + (query,)]
        return made

    joint = asked.scan.codes == "all"
    return Questions(
        scan=asked.scan,
        queries=first(asked.queries, 1),
        terms=first(asked.terms, 1),
        errors=asked.errors[at],
        tail=first(asked.tail, 0) if joint else asked.tail[at],
        steps=first(asked.steps, 1) if joint else asked.steps[at],
        exact=asked.exact[at],
        margin=asked.margin[at],
    )
