"""The least time that an op can take on a GPU: the bytes that it has to move and the arithmetic that it has to do.

Computed, not measured: what the kernels, as they are launched, cannot do without, by what a card's maker says of it. No
card keeps up its figures, so a measurement lies above these, and by how much is what they are for; it may lie below by
what the cache still holds of the launch before.

    python -m matchcut.kernels.bench.limits tests/bench/results/gpu_limits.csv
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from matchcut.kernels.launch import pool as pool_plan
from matchcut.kernels.launch import preprocess as preprocess_plan
from matchcut.kernels.launch.scans import MANY, Kind, scan_for
from matchcut.kernels.native.shared_library import LEVEL
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd, Pooling
from matchcut.kernels.preprocess import SITED, axes

Unit = Literal["int8", "bf16", "tf32", "fp32"]

ROWS, DIMENSIONS, K = 1_000_000, 512, 100
BATCHES = (1, 8, 64, 512)
PREFIX = 256  # dimensions of the dense part where there are tail levels
SHARES = (0.001, 0.01)  # of the rows, that the dense part leaves to each query
FRAMES, SIDE = 16, 224
VECTORS, WIDTH, SEGMENTS = 3000, 1280, 100
UNIT: dict[Kind, Unit] = {"int8": "int8", "bf16": "bf16", "fp32": "tf32"}
ITEM: dict[Kind, int] = {"int8": 1, "bf16": 2, "fp32": 4}
COLUMNS = ("what", "queries", "passes", "megabytes", "unit", "mega_multiply_adds", "card", "memory_us", "arithmetic_us",
           "least_us", "limited_by")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """What NVIDIA says of a GPU, without sparsity.

    bandwidth: bytes a second. rates: operations a second, two for a multiply-add; fp32: without tensor cores.
    """

    name: str
    capability: int
    bandwidth: float
    rates: dict[Unit, float]


CARDS = (
    # NVIDIA H100 Tensor Core GPU datasheet, column SXM: 3.35 TB/s; with sparsity 3,958 int8, 1,979 bf16, 989 tf32.
    Card("H100 SXM", 90, 3.35e12, {"int8": 1979e12, "bf16": 989.5e12, "tf32": 494.5e12, "fp32": 67e12}),
    # NVIDIA L4 Tensor Core GPU datasheet: 300 GB/s; with sparsity 485 int8, 242 bf16, 120 tf32.
    Card("L4", 89, 300e9, {"int8": 242.5e12, "bf16": 121e12, "tf32": 60e12, "fp32": 30.3e12}),
    # NVIDIA Jetson AGX Orin Series Technical Brief, 64 GB module: 204.8 GB/s (256 bits at 6400 MT/s), shared with the
    # CPU; the GPU has 170 int8 with sparsity and 5.3 fp32. bf16 and tf32 are not in it: a half and a quarter of int8,
    # as on every GPU of its generation.
    Card("Jetson AGX Orin 64GB", 87, 204.8e9, {"int8": 85e12, "bf16": 42.5e12, "tf32": 21.25e12, "fp32": 5.3e12}),
)


@dataclass(frozen=True, slots=True)
class Work:
    """What some launches have to do at least. moved: bytes. multiply_adds: of `unit`."""

    what: str
    moved: int
    multiply_adds: int
    unit: Unit
    queries: int = 0
    passes: int = 1

    def on(self, card: Card) -> tuple[float, float]:
        """Microseconds of moving the bytes and of the arithmetic, which can go on at the same time."""
        return self.moved / card.bandwidth * 1e6, 2 * self.multiply_adds / card.rates[self.unit] * 1e6


def read(kind: Kind) -> Work:
    """All rows once, as a benchmark's plain read does."""
    return Work(f"plain read, {kind}", ROWS * DIMENSIONS * ITEM[kind], 0, UNIT[kind])


def ranking(kind: Kind, queries: int, capability: int, *, levels: int = 0, share: float = 0.0) -> Work:
    """Exact ranking of rows that all count.

    Each pass reads all codes, with a scale and a mask, and multiplies them by as many columns as its kernel has,
    queries or not. Then the K rows of an answer, and no more, are read and scored in float64. Where a prefix is
    scanned, each query's share of the rows has its pairs written and read and its tail read. Left out, as little:
    queries, thresholds, the arithmetic of tails and float64, and the sample, which the cache still holds.

    Args:
        levels: of 64 dimensions each, beyond a dense part of PREFIX.
        share: of the rows, that the dense part leaves to each query.
    """
    dense = DIMENSIONS - LEVEL * levels
    moved = products = passes = 0
    name = ""
    for start in range(0, queries, MANY):
        some = min(MANY, queries - start)
        scan = scan_for(kind, some, levels, capability)
        passes += 1
        per_row = dense * ITEM[kind] + 1 + (4 if kind == "int8" else 0)
        per_column = scan.parts * dense
        if scan.codes == "prefix":
            left = round(ROWS * share)
            per_row += 4  # the norm beyond
            moved += some * left * (LEVEL * levels + 4 + 2 * 8)
            name = f", {dense} of {DIMENSIONS} and tails of {share:.1%}"
        elif scan.codes == "all":
            per_row += LEVEL * levels + 4
            per_column += LEVEL * levels
            name = f", {dense} and all tails"
        moved += ROWS * per_row + some * K * DIMENSIONS * 4
        products += ROWS * scan.columns * per_column
    what = f"exact top-{K} of {ROWS} x {DIMENSIONS}, {kind}{name}"
    return Work(what, moved, products, UNIT[kind], queries, passes)


def preprocessing(what: str, height: int, width: int, dtype: str, *, planes: bool) -> Work:
    """Pictures to SIDE x SIDE; planes: NV12, else RGB."""
    down, across = (axes(size, SIDE, None).weights.shape[1] for size in (height, width))
    each = across * down + down
    frames: Yuv420 | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    if planes:
        luma = np.empty((FRAMES, height, width), np.uint8)
        frames = Yuv420(luma, np.empty((FRAMES, height // 2, width // 2, 2), np.uint8))
        down, across = (
            axes(size, SIDE, SITED[at]).weights.shape[1] for size, at in ((height, "centre"), (width, "left"))
        )
        each += 2 * (across * down + down)
    else:
        frames = np.empty((FRAMES, height, width, 3), np.uint8)
        each *= 3
    plan = preprocess_plan.plan(frames, (0, 0, 0), (1, 1, 1), "NCHW", size=(SIDE, SIDE), dtype=dtype)
    mixed = 9 + 3  # of one colour space and of the normalisation
    return Work(f"preprocess {FRAMES} x {what}, {dtype}", plan.moved, FRAMES * SIDE * SIDE * (each + mixed), "fp32")


def pooling(name: str, kind: Pooling, each: int) -> Work:
    """Vectors to segments. each: multiply-adds of a number; exponentials and logarithms are left out."""
    offsets = np.linspace(0, VECTORS, SEGMENTS + 1).astype(np.int64)
    plan = pool_plan.plan(VECTORS, WIDTH, offsets, kind=kind)
    what = f"pool {VECTORS} x {WIDTH} in {SEGMENTS} segments, {name}"
    return Work(what, plan.moved, VECTORS * WIDTH * each, "fp32")


def works(capability: int) -> Iterator[Work]:
    """All that is looked at; the names are those of the benchmarks."""
    kinds: tuple[Kind, ...] = ("int8", "bf16", "fp32")
    yield from map(read, kinds)
    for kind in kinds:
        yield from (ranking(kind, queries, capability) for queries in BATCHES)
    levels = (DIMENSIONS - PREFIX) // LEVEL
    for queries in BATCHES:
        several = scan_for("int8", min(queries, MANY), levels, capability).codes == "prefix"
        for share in SHARES if several else (0.0,):
            yield ranking("int8", queries, capability, levels=levels, share=share)
    for dtype in ("float16", "bfloat16"):
        yield preprocessing("1080p NV12 to 224", 1080, 1920, dtype, planes=True)
    yield preprocessing("224 RGB", 224, 224, "float32", planes=False)
    yield preprocessing("720p RGB to 224", 720, 1280, "float16", planes=False)
    yield pooling("mean", Mean(), 1)
    yield pooling("max", Max(), 1)
    yield pooling("GeM(3)", GeM(), 1)
    yield pooling("attention", Attention(np.ones(WIDTH, np.float32), 10.0), 2)
    yield pooling("mean and deviation", MeanStd(), 2)


def written() -> str:
    """As CSV, the cards one after the other."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for card in CARDS:
        for work in works(card.capability):
            memory, arithmetic = work.on(card)
            out.writerow(
                (
                    *(work.what, work.queries or "", work.passes, f"{work.moved / 1e6:.2f}", work.unit),
                    *(f"{work.multiply_adds / 1e6:.1f}", card.name, f"{memory:.1f}", f"{arithmetic:.1f}"),
                    *(f"{max(memory, arithmetic):.1f}", "memory" if memory >= arithmetic else "arithmetic"),
                )
            )
    return text.getvalue()


def main() -> None:
    """Writes the file that is named, or prints."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(written(), encoding="utf-8")
    else:
        print(written(), end="")


if __name__ == "__main__":
    main()
