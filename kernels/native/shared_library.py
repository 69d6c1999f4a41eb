"""The shared library: found beside this file, built when matchcut is installed, used through ctypes.

ctypes lets go of the GIL for the time of each call. A variant has to give the same sums as NumPy on a small example
before it is used, so that no processor's quirk can go unnoticed.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_int32, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHUNK = 1024  # MC_CHUNK of scan.h
LEVEL = 64  # MC_LEVEL
LEVELS = 512  # MC_LEVELS


class NativeCodes(Structure):
    """mc_codes of scan.h."""

    _fields_ = (("chunks", c_void_p), ("rows", c_uint64), ("dense", c_uint32), ("levels", c_uint32))


class NativeQueries(Structure):
    """mc_queries of scan.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("dense", "dense_sums", "tail", "tail_sums")),
        *((name, c_void_p) for name in ("step", "spread", "reach", "slack", "base")),
        ("count", c_uint32),
        ("parts", c_uint32),
        ("radix", c_int32),
        ("joint", c_uint32),
    )


class NativeCounts(Structure):
    """mc_counts of scan.h."""

    _fields_ = (("scanned", c_uint64), ("survivors", c_uint64), ("pieces", c_uint64))


@dataclass(frozen=True, slots=True)
class Variant:
    """One implementation in the library.

    index: its number there. limit: largest code of a query. lacks: why it cannot run here; empty: it can.
    """

    index: int
    name: str
    limit: int
    lacks: str


@dataclass(frozen=True, slots=True)
class Library:
    """The functions of scan.h, and the variants, best first."""

    functions: ctypes.CDLL
    variants: tuple[Variant, ...]

    @property
    def best(self) -> Variant:
        return next(variant for variant in self.variants if not variant.lacks)

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            ValueError: there is none, or this processor cannot run it.
        """
        for variant in self.variants:
            if variant.name == name:
                if variant.lacks:
                    raise ValueError(f"{name}: {variant.lacks}")
                return variant
        raise ValueError(f"there is no variant {name!r}; choose one of {', '.join(one.name for one in self.variants)}")


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no library, and why; NumPy ranks instead."""

    why: str


_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "mc_variant_count": (c_int, ()),
    "mc_variant_name": (c_char_p, (c_int,)),
    "mc_variant_lacks": (c_char_p, (c_int,)),
    "mc_variant_limit": (c_int32, (c_int,)),
    "mc_chunk_bytes": (ctypes.c_size_t, (c_uint32, c_uint32)),
    "mc_encode": (
        None,
        (c_int, c_void_p, c_uint32, c_uint32, c_void_p, c_uint64, c_uint64, c_void_p, c_void_p),
    ),
    "mc_copy": (None, (c_void_p, c_void_p, c_uint32, c_uint32, c_void_p, c_uint64, c_uint64)),
    "mc_open": (
        c_void_p,
        (
            c_int,
            POINTER(NativeCodes),
            POINTER(NativeQueries),
            c_void_p,
            c_void_p,
            c_uint64,
            c_float,
            c_void_p,
            c_uint64,
        ),
    ),
    "mc_originals": (None, (c_void_p, c_void_p, c_uint64, c_void_p, c_void_p, c_uint32)),
    "mc_dense": (c_int, (c_void_p, c_uint64, c_uint64)),
    "mc_tail": (c_int, (c_void_p,)),
    "mc_narrow": (c_int, (c_void_p, c_void_p, c_uint64, c_void_p, c_void_p)),
    "mc_left": (c_uint64, (c_void_p, c_uint32)),
    "mc_take": (None, (c_void_p, c_uint32, c_void_p)),
    "mc_count": (None, (c_void_p, POINTER(NativeCounts))),
    "mc_close": (None, (c_void_p,)),
    "mc_dots": (None, (c_int, POINTER(NativeCodes), POINTER(NativeQueries), c_void_p)),
    "mc_pieces": (None, (c_int, POINTER(NativeCodes), POINTER(NativeQueries), c_void_p, c_uint64, c_void_p)),
}


def path() -> Path:
    """Where the library lies if it was built."""
    return Path(__file__).with_name("_scan.so")


@functools.cache
def load(file: Path | None = None) -> Library | Absent:
    """The library, opened once for each file."""
    file = file or path()
    if not file.is_file():
        return Absent("it was not built: a C compiler is needed when matchcut is installed")
    try:
        functions = ctypes.CDLL(str(file))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(functions, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return Absent(f"{file} cannot be used: {error}")
    variants = tuple(_variant(functions, at) for at in range(functions.mc_variant_count()))
    if all(variant.lacks for variant in variants):
        return Absent(f"{file} cannot be used: {'; '.join(f'{one.name}: {one.lacks}' for one in variants)}")
    return Library(functions, variants)


def _variant(functions: ctypes.CDLL, index: int) -> Variant:
    name = functions.mc_variant_name(index).decode()
    lacks = (functions.mc_variant_lacks(index) or b"").decode()
    if not lacks and not _agrees(functions, index):
        lacks = "its sums differ from NumPy's on this processor"
    return Variant(index, name, functions.mc_variant_limit(index), lacks)


def _agrees(functions: ctypes.CDLL, index: int) -> bool:
    """Whether the sums of a variant are those that NumPy computes, for each number of queries that it treats apart."""
    dense, rows, most = 2 * LEVEL, 7 * 16, 21
    random = np.random.default_rng(0)
    limit = functions.mc_variant_limit(index)
    chunk = random.integers(1, 256, functions.mc_chunk_bytes(dense, 1), np.uint8)
    chunk[: 16 * dense] = 255  # saturates what may saturate
    table = np.array([chunk.ctypes.data], np.uint64)
    queries = random.integers(-limit, limit + 1, (most, dense)).astype(np.int8)
    queries[0] = limit
    queries[1] = -limit
    sums = queries.sum(axis=1, dtype=np.int32)
    blocks = chunk[: rows * dense].reshape(rows // 16, dense // 4, 16, 4)
    plain = blocks.transpose(0, 2, 1, 3).reshape(rows, dense).astype(np.int32) - 128
    expected = queries.astype(np.int32) @ plain.T
    codes = NativeCodes(chunks=table.ctypes.data, rows=rows, dense=dense, levels=1)
    for count in (1, 2, 3, 4, 7, most):
        asked = NativeQueries(dense=queries.ctypes.data, dense_sums=sums.ctypes.data, count=count)
        dots = np.zeros((count, CHUNK), np.int32)
        functions.mc_dots(index, byref(codes), byref(asked), dots.ctypes.data)
        if not np.array_equal(dots[:, :rows], expected[:count]):
            return False
    fine = queries[:, :LEVEL].astype(np.int32) * (2 * limit) + queries[:, LEVEL:]
    some = np.arange(0, rows, 3, dtype=np.uint32)
    tail = chunk[CHUNK * dense :][: CHUNK * LEVEL].reshape(CHUNK, LEVEL)[some].astype(np.int32) - 128
    for query, codes_of in zip(queries, fine, strict=True):
        total = np.array([codes_of.sum()], np.int32)
        asked = NativeQueries(tail=query.ctypes.data, tail_sums=total.ctypes.data, count=1, radix=2 * limit)
        pieces = np.zeros(len(some), np.int32)
        functions.mc_pieces(index, byref(codes), byref(asked), some.ctypes.data, len(some), pieces.ctypes.data)
        if not np.array_equal(pieces, tail @ codes_of):
            return False
    return True
