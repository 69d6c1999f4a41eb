"""The rows that scan.py ranks: made once, kept in files of a folder, mapped by each section."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from matchcut.kernels.bench.rounds import Floats, Ints, exact
from matchcut.kernels.bench.synthetic import structured, unstructured

QUERIES, MOST = 64, 100  # queries, and the largest k
SPECTRUM = Path(__file__).parent / "data" / "spectrum.csv"


class Source(Protocol):
    """What makes rows."""

    def fill(self, rows: Floats, seed: int) -> None:
        """Writes (n, dimensions) rows; the same for the same seed."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows of one kind. structure: "random", "spectrum" or "frames"."""

    structure: str
    rows: int
    dimensions: int

    @property
    def source(self) -> Source:
        """What makes them. A spectrum of fewer dimensions is the first part of the measured one."""
        if self.structure == "random":
            return unstructured(self.dimensions)
        if self.structure == "frames":
            from scan_frames import Frames  # needs the demo's clips and an engine, the other kinds do not

            return Frames()
        energies = np.loadtxt(SPECTRUM)
        return structured(energies[: self.dimensions])


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Mapped rows, queries that are not among them, and for each the best rows as float64 ranks them."""

    kind: Kind
    rows: Floats
    queries: Floats
    truth: Ints
    groups: Ints


def mapped(kind: Kind, folder: Path) -> Data:
    """The rows, made where the folder does not hold them."""
    base = folder / f"{kind.structure}-{kind.rows}x{kind.dimensions}"
    rows_file, truth_file = base.with_suffix(".rows"), base.with_suffix(".npy")
    queries = np.empty((QUERIES, kind.dimensions), np.float32)
    kind.source.fill(queries, 1)
    if not rows_file.exists():
        print(f"making {kind.rows} x {kind.dimensions} values, {kind.structure}", flush=True)
        part = base.with_suffix(".part")
        made = np.memmap(part, np.float32, "w+", shape=(kind.rows, kind.dimensions))
        kind.source.fill(made, 0)
        made.flush()
        del made
        os.replace(part, rows_file)
    rows = np.asarray(np.memmap(rows_file, np.float32, "r", shape=(kind.rows, kind.dimensions)))
    if not truth_file.exists():
        print("ranking them in float64", flush=True)
        np.save(truth_file, exact(queries, rows, MOST))
    return Data(kind, rows, queries, np.load(truth_file), np.arange(kind.rows))


def anonymous_bytes() -> int:
    """Memory of this process that is not a file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no RssAnon: Linux is needed")
