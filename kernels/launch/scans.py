"""The ways in which rows are scanned on a GPU, and the tiles that each takes: for what compiles and what launches."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["int8", "bf16", "fp32"]
Codes = Literal["dense", "prefix", "all"]

LIMIT = 127  # largest code of a query; a fine code is 2 * LIMIT * high + low
FEW, MANY = 8, 64  # queries that share a pass
EACH = 16  # rows of a tile of which `sample` shows the best
DEPTH = 128  # a row on the device is padded with zeros to a multiple of it


class Scan(NamedTuple):
    """One way to scan, and what its kernel is compiled for.

    kind: of the rows. columns: queries of a pass. codes: how much is read of each row; see kernels/gpu/score.py.
    parts: codes of a query for each dimension. tile: rows, and depth: dimensions, at a time. only: the compute
    capability that it is for, instead of the one that is for all.
    """

    kind: Kind
    columns: int
    codes: Codes
    parts: int
    tile: int
    depth: int
    warps: int
    stages: int
    only: int = 0

    def kernel(self, op: str) -> str:
        """The name of its "scan" or "sample"."""
        return f"{op}_{self.kind}_{self.columns}_{self.codes}{f'_sm{self.only}' if self.only else ''}"


# Chosen on an H100: reading is the limit for few queries, so many bytes have to be under way, 128 of a row at a time;
# for many queries it is the registers that two products take. Only where the tensor cores keep them apart (9.0) are
# fewer threads with more of them faster; elsewhere they spill.
SCANS = (
    Scan("int8", FEW, "dense", parts=2, tile=64, depth=128, warps=4, stages=5),
    Scan("int8", FEW, "prefix", parts=2, tile=64, depth=128, warps=4, stages=2),
    Scan("int8", MANY, "dense", parts=2, tile=128, depth=128, warps=8, stages=3),
    Scan("int8", MANY, "all", parts=2, tile=64, depth=128, warps=8, stages=3),
    Scan("int8", MANY, "dense", parts=2, tile=128, depth=128, warps=4, stages=3, only=90),
    Scan("int8", MANY, "all", parts=2, tile=128, depth=128, warps=8, stages=3, only=90),
    Scan("bf16", FEW, "dense", parts=2, tile=64, depth=128, warps=4, stages=3),
    Scan("bf16", MANY, "dense", parts=1, tile=128, depth=64, warps=4, stages=4),
    Scan("fp32", FEW, "dense", parts=1, tile=64, depth=64, warps=4, stages=3),
    Scan("fp32", MANY, "dense", parts=1, tile=64, depth=64, warps=4, stages=3),
)
_BY_USE = {(scan.kind, scan.columns, scan.codes, scan.only): scan for scan in SCANS}


def scan_for(kind: Kind, queries: int, levels: int, capability: int) -> Scan:
    """How so many queries, at most MANY, are compared with rows that have so many tail levels."""
    columns = FEW if queries <= FEW else MANY
    # For many queries it takes less to read all of each row once than to look pairs up.
    codes: Codes = "dense" if not levels else "prefix" if columns == FEW else "all"
    own = _BY_USE.get((kind, columns, codes, capability))
    return own or _BY_USE[kind, columns, codes, 0]
