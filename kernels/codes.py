"""Rows coded in a byte per dimension, so that most of them are ruled out for a quarter of the memory traffic or less.

Dispatch: kernels/native/ scans codes; without its library the rows themselves are scanned by topk.search.

How a row is coded. y = R (x - mean), for a matrix R with nearly orthonormal columns (basis.Basis; the identity where no
basis was learnt). The first `dense` values of y make the dense part, which has one scale s: code_i = round(y_i / s)
with |code_i| <= 127. The others make tail levels of 64, which share one scale t and have a gain g_l each:
code_i = round(y_i / (t g_l)). Kept beside the codes: s, t, and how much norm lies beyond each level.

What bounds a score. Let z = R q, and let "part" be what the codes read so far say of z.y. For any row and query,

    q.x = q.mean + q.(x - mean) = q.mean + z.y + r,
    |r| <= (|z| rho + |q| skew) |x - mean|,

where rho bounds |y - R (x - mean)| / |x - mean|, the rounding of the turn, and skew the norm of R'R - I. Of z.y,
splitting it into the dense part, levels and what was not read (Cauchy-Schwarz in each, never joined: joined norms keep
ten times the rows):

    |z.y - part| <= sum over the pieces read of (|z_p| |y_p - y~_p| + |z_p - z~_p| |y~_p|) + |z_rest| |y_rest|,

with ~ for what codes stand for. |y_p - y~_p| <= (scale of the piece) e_p, where e_p is the largest such ratio among the
rows coded so far, and |y~_p| likewise; both were measured in float64 after coding, not assumed. z itself is computed
within rho |q|, which adds rho |q| |y| to r. So

    upper = part + s spread_dense + t spread_tail + |y_rest| reach + slack      and, all levels read,
    lower = part - s spread_dense - t spread_tail - slack

enclose q.x. `slack` also covers the float32 arithmetic of part and upper, at most 8 levels + 32 roundings of terms
below M = |q.mean| + |z| max|y|, and values under 2**-80, which are coded as 0. Rows that k groups cannot be beaten by
are dropped only when upper < tau <= (k-th best group's lower), so no row of the answer is: correctness does not depend
on how good R is, only speed does.

Sources: the VA-file (R. Weber, H.-J. Schek, S. Blott, VLDB 1998) for bounds from codes; FEXIPRO (H. Li et al., SIGMOD
2017) for reading rotated dimensions in order of their energy; N. J. Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., section 3.1, for the rounding.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.basis import Basis
from matchcut.kernels.native.shared_library import CHUNK, LEVEL, Library, NativeCodes, NativeQueries, Variant
from matchcut.kernels.score import largest_norm

_TINY = 2.0**-80  # TINY of encode.c
_UP = 1 + 2.0**-20  # makes room for rounding to float32
_RANGE = 2.0**40  # norms beyond this, or below its inverse, are left to topk.search
_FINE = 2  # so many queries wait for memory anyway: finer codes cost them nothing
_SLAB = 64 << 20  # bytes of memory asked for at a time, at most
_HUGE = 16 << 20  # from this size on memory is asked for in huge pages

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CodedRows:
    """The codes of the first `count` rows, for readers; rows that are added later do not change it.

    span: at least |x - mean| of every row. stats: (levels + 1, 2) float64, e_p and |y~_p| at most.
    keep: what owns the memory of the chunks. mean, gains: the basis' in float64, with a gain of 1 for the dense part.
    radius: at least |x| of every row.
    """

    basis: Basis
    count: int
    table: NDArray[np.uint64]
    stats: Wide
    span: float
    keep: tuple[NDArray[np.uint8], ...]
    mean: Wide = field(init=False)
    gains: Wide = field(init=False)
    radius: float = field(init=False)
    _native: NativeCodes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        basis, mean = self.basis, self.basis.mean.astype(np.float64)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "gains", np.concatenate([[1.0], basis.ratios]))
        object.__setattr__(self, "radius", self.span + float(_norms(mean)) * (1 + 1e-9))
        object.__setattr__(self, "_native", NativeCodes(self.table.ctypes.data, self.count, basis.dense, basis.levels))

    def native(self) -> NativeCodes:
        """For the library, which only reads it; valid while this object lives."""
        return self._native


@dataclass(frozen=True, slots=True, eq=False)
class CodedQueries:
    """Queries in the terms of coded rows; see mc_queries in native/scan.h for the arrays, parts and radix.

    norms: (b,) float64.
    """

    arrays: dict[str, NDArray[np.generic]]
    count: int
    parts: int
    radix: int
    norms: Wide

    def native(self, *, joint: bool) -> NativeQueries:
        """For the library; valid while this object lives."""
        pointers = {name: array.ctypes.data for name, array in self.arrays.items()}
        return NativeQueries(count=self.count, parts=self.parts, radix=self.radix, joint=joint, **pointers)


class Codes:
    """Coded rows that grow at their end. One caller at a time may extend them; readers keep what `view` gave them.

    Args:
        basis: how rows are turned.
        library: what codes them.
        variant: of the library.
    """

    def __init__(self, basis: Basis, library: Library, variant: Variant | None = None) -> None:
        self.basis = basis
        self._functions = library.functions
        self._variant = variant or library.best
        self._chunk = int(self._functions.mc_chunk_bytes(basis.dense, basis.levels))
        self._table = np.empty(0, np.uint64)
        self._slabs: tuple[NDArray[np.uint8], ...] = ()
        self._free = 0  # chunks of the last slab that are not in the table
        self._stats = np.zeros((basis.levels + 1, 2))
        self._span = 0.0
        self._count = 0
        self._late = self._late_tail = 0.0  # rows since the basis was chosen, and the energy of their tails
        self._view: CodedRows | None = None

    @classmethod
    def of(cls, coded: CodedRows, rows: NDArray[np.int64], library: Library, variant: Variant | None = None) -> Codes:
        """The codes of some of these rows, copied.

        Args:
            coded: what there is.
            rows: (m,) int64, which of them, in the order wanted.

        Raises:
            MemoryError: there is no room.
        """
        basis, made = coded.basis, cls(coded.basis, library, variant)
        made.reserve(len(rows))
        kept = np.ascontiguousarray(rows)
        old, new = coded.table.ctypes.data, made._table.ctypes.data
        made._functions.mc_copy(old, new, basis.dense, basis.levels, kept.ctypes.data, 0, len(kept))
        made._count, made._stats, made._span = len(kept), coded.stats.copy(), coded.span
        return made

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks in use."""
        return len(self._table) * self._chunk

    @property
    def aged(self) -> bool:
        """Whether a basis chosen for what is there now would probably be better.

        That is where the rows have doubled since, or where those that came since lie half as much again in the tail.
        """
        planned = self.basis.planned
        if self._count >= 2 * planned:
            return True
        usual = LEVEL * float(np.square(self.basis.gains, dtype=np.float64).sum())
        return self._late >= planned / 8 and self._late_tail > 1.5 * usual * self._late

    def reserve(self, more: int) -> None:
        """Makes room for so many more rows, so that `extend` cannot fail.

        Raises:
            MemoryError: there is no room.
        """
        wanted = -(-(self._count + more) // CHUNK) - len(self._table)
        while wanted > 0:
            if not self._free:
                self._grow(wanted)
            taken = min(wanted, self._free)
            slab = self._slabs[-1]
            first = len(slab) // self._chunk - self._free
            fresh = slab.ctypes.data + np.arange(first, first + taken, dtype=np.uint64) * np.uint64(self._chunk)
            self._table = np.concatenate([self._table, fresh])
            self._free -= taken
            wanted -= taken

    def extend(self, rows: Floats, *, block: int = 2048) -> None:
        """Codes rows behind the others.

        Args:
            rows: (n, dimensions) float32, finite.
            block: rows turned at a time.

        Raises:
            ValueError: a shape or type, NaN or infinity; nothing was added.
            MemoryError: there is no room; nothing was added.
        """
        if rows.ndim != 2 or rows.shape[1] != self.basis.dimensions or rows.dtype != np.float32:
            raise ValueError(f"rows must be (n, {self.basis.dimensions}) float32, not {rows.shape} {rows.dtype}")
        if not all(np.isfinite(rows[at : at + block]).all() for at in range(0, len(rows), block)):
            raise ValueError("the rows hold NaN or infinity")
        self.reserve(len(rows))
        ratios = self.basis.ratios
        for at in range(0, len(rows), block):
            first = self._count + at
            turned = self.basis.turn(rows[at : at + block])
            longest = np.float64(_longest(turned) * self.basis.stretch)
            self._span = float(np.maximum(self._span, longest))  # unlike max(), this keeps a NaN
            late = turned[max(0, self.basis.planned - first) :, self.basis.dense :]
            self._late += len(late)
            self._late_tail += float(np.einsum("ij,ij->", late, late, dtype=np.float64))
            self._functions.mc_encode(
                self._variant.index,
                self._table.ctypes.data,
                self.basis.dense,
                self.basis.levels,
                turned.ctypes.data,
                first,
                len(turned),
                ratios.ctypes.data,
                self._stats.ctypes.data,
            )
        self._count += len(rows)
        self._view = None

    def view(self) -> CodedRows:
        """What there is now."""
        if self._view is None:
            used = self._table[: -(-self._count // CHUNK)]  # without what was reserved
            self._view = CodedRows(self.basis, self._count, used, self._stats.copy(), self._span, self._slabs)
        return self._view

    def _grow(self, chunks: int) -> None:
        most = max(1, _SLAB // self._chunk)
        chunks = min(most, max(chunks, len(self._table)))
        try:
            memory = mmap.mmap(-1, chunks * self._chunk, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no memory for the codes of {chunks * CHUNK} rows: {error}") from error
        if chunks * self._chunk >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel may have none
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._slabs = (*self._slabs, np.frombuffer(memory, np.uint8))
        self._free = chunks


def _longest(vectors: Floats) -> float:
    """At least the largest norm: summed in float32, with room for its rounding; in float64 where that overflows."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    most = float(squares.max(initial=0)) * (1 + vectors.shape[1] * 2.0**-22) + vectors.shape[1] * 2.0**-126
    return most**0.5 if most < np.inf else largest_norm(vectors)


def code_queries(queries: Floats, rows: CodedRows, limit: int, *, fine: bool | None = None) -> CodedQueries | None:
    """The queries as `rows` needs them; None where norms are so large or small that float32 bounds say little, where a
    value is not finite, or where there are so many dense dimensions that no codes have products of 32 bits.

    Args:
        queries: (b, dimensions) float32.
        rows: what they are compared with.
        limit: largest code.
        fine: whether the dense part has fine codes, two bytes each; None: where they cost a scan by the CPU nothing.
    """
    basis, stats = rows.basis, rows.stats
    wide = queries.astype(np.float64)
    norms = _norms(wide)
    if not (norms.max() < _RANGE and norms.min() > 1 / _RANGE and 1 / _RANGE < rows.span < _RANGE):
        return None
    levels, dense = basis.levels, basis.dense
    count, radix = len(queries), 2 * limit
    if fine is None:
        fine = levels > 0 or count <= _FINE
    most = radix * limit + limit - 1  # so that both halves keep to the limit
    finest = _finest(most if fine else limit, dense)
    if finest < 1:
        return None
    turned = basis.turn_queries(queries)
    coded, units, sizes, errors = _coded(turned[:, np.newaxis, :dense], finest)
    halves = _halves(coded, radix)[:, 0] if fine else coded.astype(np.int8)
    tail, sums = np.zeros((count, 0, 2, LEVEL), np.int8), np.zeros((count, 0), np.int32)
    if levels:
        tails, *rest = _coded(turned[:, dense:].reshape(count, levels, LEVEL), _finest(most, LEVEL))
        tail, sums = _halves(tails, radix), tails.sum(axis=2).astype(np.int32)
        units, sizes, errors = (np.concatenate(both, axis=1) for both in zip((units, sizes, errors), rest, strict=True))
    spread = sizes * (rows.gains * stats[:, 0])
    missed = errors * stats[:, 1]
    beyond = sizes
    if levels:  # sums of one term each are skipped, as many small steps take as long as the scan itself
        np.cumsum(missed, axis=1, out=missed)
        np.cumsum(spread[:, 1:], axis=1, out=spread[:, 1:])
        beyond = np.sqrt(np.cumsum(np.square(sizes)[:, ::-1], axis=1)[:, ::-1])
    base = wide @ rows.mean
    size = beyond[:, 0]
    always = (size * basis.rho + norms * (basis.skew + basis.rho)) * rows.span  # the turns of rows and of queries
    always += (8 * levels + 32) * 2.0**-24 * (np.abs(base) + size * (rows.span * 1.1))  # float32
    always += size * (_TINY * basis.width**0.5)
    figures = np.zeros((4, count, levels + 1), np.float32)
    figures[0] = units * rows.gains
    figures[1] = spread * _UP
    if levels:
        figures[2, :, :-1] = beyond[:, 1:] * _UP
    figures[3] = (missed + always[:, np.newaxis]) * _UP
    arrays: dict[str, NDArray[np.generic]] = {
        "dense": halves,
        "dense_sums": halves.sum(axis=2, dtype=np.int32),
        "tail": tail,
        "tail_sums": sums,
        **dict(zip(("step", "spread", "reach", "slack"), figures, strict=True)),
        "base": base.astype(np.float32),
    }
    return CodedQueries(arrays, count, halves.shape[1], radix, norms)


def _coded(pieces: Wide, finest: int) -> tuple[Wide, Wide, Wide, Wide]:
    """Codes of (b, pieces, n) values, each piece by a unit of its own.

    Returns:
        (b, pieces, n) whole numbers up to `finest`, which no quotient passes by as much as rounding drops; (b, pieces)
        each: units, norms of the values, norms of what the codes miss.
    """
    units = np.abs(pieces).max(axis=2) / finest
    units[units < _TINY] = 0
    codes = np.rint(pieces / np.where(units, units, np.inf)[..., np.newaxis])
    return codes, units, _norms(pieces), _norms(pieces - codes * units[..., np.newaxis])


def _halves(codes: Wide, radix: int) -> NDArray[np.int8]:
    """(..., 2, n) from (..., n): what radix * high + low makes of the codes, high first."""
    made = np.empty((*codes.shape[:-1], 2, codes.shape[-1]), np.int8)
    high = np.rint(codes / radix)
    made[..., 0, :] = high
    made[..., 1, :] = codes - radix * high
    return made


def _norms(vectors: Wide) -> Wide:
    """L2 norms along the last axis."""
    norms: Wide = np.sqrt(np.vecdot(vectors, vectors))
    return norms


def _finest(most: int, dimensions: int) -> int:
    """The largest code of a query whose product with so many bytes, and the sums on the way to it, fit 32 bits."""
    return min(most, (2**31 - 1) // (255 * dimensions) - 127)
