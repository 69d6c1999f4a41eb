"""The table of what each kernel takes of each GPU, and how many blocks of it run at a time for that."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from matchcut.kernels.compile.folder import Entries
from matchcut.kernels.compile.targets import FALLBACK, TARGETS, gpu_of, occupancy

COLUMNS = ("kernel", "gpu", "warps", "registers", "spills", "stack", "shared", "tensor_columns", "bytes",
           "blocks_per_sm", "warps_per_sm", "occupancy_percent")  # fmt: skip


def rows(entries: Entries) -> Iterator[tuple[object, ...]]:
    """One for each kernel and target with machine code, in the order of COLUMNS."""
    for name in sorted(entries):
        entry = entries[name]
        for target in (target for target in TARGETS if target in entry["targets"] and target != FALLBACK):
            made = entry["targets"][target]
            taken = [made[what] for what in ("registers", "spills", "stack", "shared", "columns", "bytes")]
            yield name, gpu_of(target).arch, entry["warps"], *taken, *occupancy(target, entry["warps"], made)


def written(entries: Entries) -> str:
    """As CSV."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    out.writerows(rows(entries))
    return text.getvalue()
