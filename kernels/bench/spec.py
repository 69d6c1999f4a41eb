"""What is measured and what comes of it, as JSON between two processes; imports nothing, see __main__.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

STRUCTURES = ("random", "spectrum")
MOST_QUERIES = 64  # that share a pass


@dataclass(frozen=True, slots=True)
class Spec:
    """What to measure. seconds: that each contender may take, about."""

    rows: int
    dimensions: int
    k: int = 10
    batch: int = 1
    threads: int = 1
    structure: str = STRUCTURES[0]
    seconds: float = 3.0


class Figure(TypedDict):
    """What a contender took. Times are of a batch; counts are means of a query; None where it has no such thing.

    setting: the basis; FAISS Panorama's levels x batch size; how the read is done.
    faster_than_...: how many times as fast as that one. of_read: its time as a share of that of the plain read.
    right, asked: queries whose rows were those of float64 in order, and how many were asked.
    """

    who: str
    setting: str
    rounds: int
    ms_median: float
    ms_p99: float
    cpu_ms_median: float
    faster_than_flat: float | None
    faster_than_panorama: float | None
    faster_than_numpy: float | None
    of_read: float | None
    scanned: float | None
    survivors: float | None
    rescored: float | None
    code_bytes: float | None
    right: int | None
    asked: int | None


class VariantState(TypedDict):
    """A variant of the native library. lacks: why it cannot run here; empty: it can."""

    name: str
    lacks: str
    chosen: bool


class Absence(TypedDict):
    """A contender that was not timed, and why."""

    who: str
    why: str


class Report(TypedDict):
    """All that was measured. native: why there is no native library; empty: there is. basis: what `choose` would take.

    too_large: why nothing was measured; empty where something was.
    """

    too_large: str
    native: str
    basis: str
    variants: list[VariantState]
    figures: list[Figure]
    absent: list[Absence]
