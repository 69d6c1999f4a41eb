"""The launch of pool on a GPU: see kernels/gpu/pool.py."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.launch.plan import Argument, Launch, Plan, Slot
from matchcut.kernels.pool import check, used
from matchcut.kernels.pooling import SMALLEST, Attention, GeM, Mean, Pooling, fault, width

BLOCKS = (512, 2048)  # dimensions that one program holds
CHUNK = 64  # vectors to one program; the same on every GPU, so that all give the same answer
_MEAN = Mean()


def plan(
    count: int,
    dimensions: int,
    offsets: NDArray[np.int64],
    *,
    weights: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    normalise: bool = True,
    kind: Pooling = _MEAN,
) -> Plan:
    """The launch that does what pool.pool does for `count` vectors; of pool.attend where the kind is Attention.

    The input is "vectors", (count, dimensions) float32. The outputs are "out", as pool gives it, "status", (segments,)
    int32, which `verify` has to see before the rest is used, and for Attention "shares", (count,) float32.

    Numbers are float32 there, and the reference's float64: what is smaller than 2**-126 may count as zero, and a
    score, or a difference of two numbers for MeanStd, beyond float32 is told as infinity.

    Raises:
        ValueError: as pool, of what can be known before the vectors are seen; or there are no segments, or too many
            dimensions for a program.
    """
    check(count, dimensions, offsets, weights, mask, kind)
    segments = len(offsets) - 1
    if not 1 <= dimensions <= BLOCKS[-1] or not segments:
        raise ValueError(
            f"{segments} segments of {dimensions} dimensions cannot be pooled in one launch: at least 1 "
            f"segment and 1 to {BLOCKS[-1]} dimensions can"
        )
    block = next(block for block in BLOCKS if dimensions <= block)
    owner, starts, firsts = _chunks(offsets)
    vectors = Slot("vectors", (count, dimensions), "float32")
    out = Slot("out", (segments, width(kind, dimensions)), "float32")
    status = Slot("status", (segments,), "int32")
    explained = Slot("shares", (count,), "float32")
    outputs: tuple[Slot, ...] = (out, status)
    extra: tuple[Argument, ...] = ()
    if isinstance(kind, Attention):
        # The kernel's exponentials are powers of two.
        query = kind.query.astype(np.float64) / kind.temperature * math.log2(math.e)
        if not (np.abs(query) <= np.finfo(np.float32).max).all():
            raise ValueError(f"a temperature of {kind.temperature} takes the query beyond float32")
        extra, outputs = (query.astype(np.float32), explained), (*outputs, explained)
    elif isinstance(kind, GeM):
        extra = (kind.p, kind.floor)
    launch = Launch(
        f"pool_{kind.name}_{block}",
        (len(owner),),
        (
            *(vectors, _shares(count, offsets, weights, mask), *extra, owner, starts, firsts),
            Slot("states", (len(owner), 2, dimensions), "float32"),
            Slot("scalars", (len(owner), 4), "float32"),
            Slot("arrived", (segments,), "int32", zeroed=True),
            *(out, status, dimensions, int(normalise)),
        ),
    )
    return Plan((launch,), (vectors,), outputs, 4 * count + sum(slot.nbytes for slot in (vectors, *outputs)))


def verify(status: NDArray[np.int32], kind: Pooling = _MEAN) -> None:
    """ValueError, as pool.pool raises it, for the first segment that has no result."""
    wrong = np.flatnonzero(status)
    if len(wrong):
        raise fault(int(wrong[0]), int(status[wrong[0]]), kind)


def _chunks(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Each segment in chunks of at most CHUNK vectors, one of them even where there is none.

    Returns:
        (chunks,) int32: the segment. (chunks + 1,) int64: the first vector. (segments + 1,) int32: the first chunk.
    """
    lengths = np.diff(offsets)
    pieces = np.maximum(1, -(-lengths // CHUNK))
    firsts = np.concatenate([[0], np.cumsum(pieces)])
    owner = np.repeat(np.arange(len(lengths)), pieces)
    starts = offsets[owner] + (np.arange(len(owner)) - firsts[owner]) * CHUNK
    return owner.astype(np.int32), np.append(starts, offsets[-1]), firsts.astype(np.int32)


def _shares(
    count: int, offsets: NDArray[np.int64], weights: NDArray[np.float32] | None, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """(count,) float32: the weights scaled to the sum 1 in each segment; above 0 for what counts, else 0."""
    weight = used(count, weights, mask)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    largest = np.zeros(len(offsets) - 1, np.float64)
    np.maximum.at(largest, owner, weight)
    weight /= np.where(largest > 0, largest, 1)[owner]
    total = np.bincount(owner, weight, len(largest))
    shares = weight / np.where(total > 0, total, 1)[owner]
    return np.where(weight > 0, np.maximum(shares, SMALLEST), 0).astype(np.float32)
