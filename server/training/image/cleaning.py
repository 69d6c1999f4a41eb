"""Pictures that are there twice, or nearly, and those whose copies are labelled otherwise.

Nearly equal are pictures whose small grey versions correlate by at least 0.985, which does not see brightness and
contrast: copies that were compressed, scaled or lit otherwise do, two people's handwritten "1" seldom. Up to PAIRED
pictures all pairs are compared; of more, those whose perceptual hashes differ in at most 4 bits. The hash is the signs
of the 63 lowest frequencies of a cosine transform about their median (C. Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions", 2010). It misses copies of pictures with few frequencies, such as stripes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.preprocess import preprocess
from matchcut.server.records import Floats, Pixels
from matchcut.server.training.image.pictures import Pictures

__all__ = ["Cleaned", "clean"]

SIDE = 32  # of the grey pictures that are compared
BITS = 4  # that may differ
ALIKE = 0.985
PAIRED = 20_000
FLAT = 2.0  # grey levels; what varies less shows nothing that could be compared
BANDS = BITS + 1  # two hashes that differ in BITS bits agree in one of so many parts
WINDOW = 2_000  # pictures that each is compared with at most, for each part of its hash
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What may be learnt from, and what was found.

    keep: (n,) bool; of equal pictures the first is kept, of those with several classes none. groups: (n,) int64, the
    same for pictures that must not be on two sides of a split.
    equal: (kept, left out) by index. near, conflicts: pairs by index; conflicts are equal or near and of two classes.
    digest: names all pictures, in hexadecimal.
    """

    keep: NDArray[np.bool_]
    groups: NDArray[np.int64]
    equal: tuple[tuple[int, int], ...]
    near: tuple[tuple[int, int], ...]
    conflicts: tuple[tuple[int, int], ...]
    digest: str


def clean(pictures: Pictures, near: float = ALIKE) -> Cleaned:
    """Looks for pictures that are equal or nearly equal, at the size that they were read in.

    Args:
        near: correlation from which on two are nearly equal, above 0; 1 looks for equal ones only.
    """
    labels = pictures.labels
    first: dict[bytes, int] = {}
    equal = []
    whole = hashlib.sha256(labels.tobytes())
    for at, pixels in enumerate(pictures.pixels):
        digest = hashlib.sha256(pixels.tobytes()).digest()
        whole.update(digest)
        before = first.setdefault(digest, at)
        if before != at:
            equal.append((before, at))
    copies = {at for _, at in equal}
    rows = np.array([at for at in range(len(pictures)) if at not in copies], np.int64)
    pairs = nearly_equal(thumbnails(pictures.pixels, rows), near) if near < 1 else []
    close = [(int(rows[a]), int(rows[b])) for a, b in pairs]
    conflicts = [pair for pair in (*equal, *close) if labels[pair[0]] != labels[pair[1]]]
    keep = np.ones(len(pictures), bool)
    keep[list(copies)] = False
    ambiguous = {before for before, at in equal if labels[before] != labels[at]}
    keep[list(ambiguous)] = False
    return Cleaned(
        keep=keep,
        groups=components(len(pictures), [*equal, *close]),
        equal=tuple(equal),
        near=tuple(close),
        conflicts=tuple(conflicts),
        digest=whole.hexdigest(),
    )


def thumbnails(pixels: Pixels, rows: NDArray[np.int64]) -> Floats:
    """The grey pictures of some rows, (n, SIDE, SIDE) float32."""
    found = np.empty((len(rows), SIDE, SIDE), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = np.ascontiguousarray(pixels[rows[start : start + BLOCK]])
        colours = preprocess(block, (0.0,) * 3, (1.0,) * 3, "NCHW", size=(SIDE, SIDE))
        found[start : start + BLOCK] = colours.mean(axis=1)
    return found


def hashes(grey: Floats) -> NDArray[np.uint64]:
    """The perceptual hash of each grey picture."""
    side = grey.shape[-1]
    frequency, place = np.arange(8)[:, None], np.arange(side)[None, :]
    cosines = np.cos(math.pi / side * frequency * (place + 0.5)).astype(np.float32)
    lowest = (cosines @ grey @ cosines.T).reshape(len(grey), 64)[:, 1:]  # without the mean
    signs = lowest > np.median(lowest, axis=1, keepdims=True)
    weights = np.left_shift(np.uint64(1), np.arange(63, dtype=np.uint64))
    found: NDArray[np.uint64] = np.where(signs, weights, np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return found


def nearly_equal(grey: Floats, near: float = ALIKE) -> list[tuple[int, int]]:
    """Pairs of rows that are nearly equal, the lower one first, in order. Pictures of one colour are in none."""
    if not len(grey):
        return []
    flat = grey.reshape(len(grey), -1)
    deviation = flat.std(axis=1)
    unit = (flat - flat.mean(axis=1, keepdims=True)) / np.maximum(deviation, 1e-6)[:, None] / math.sqrt(flat.shape[1])
    there = np.flatnonzero(deviation >= FLAT)
    unit = unit[there]
    if len(there) <= PAIRED:
        found = alike(unit, near)
    else:
        pairs = {(min(pair), max(pair)) for pair in candidates(hashes(grey[there]))}
        found = [(a, b) for a, b in pairs if float(unit[a] @ unit[b]) >= near]
    return sorted((int(there[a]), int(there[b])) for a, b in found)


def alike(unit: Floats, near: float) -> list[tuple[int, int]]:
    """Pairs of rows of unit length whose product is at least `near`, the lower one first."""
    found = []
    for start in range(0, len(unit), BLOCK):
        products = unit[start : start + BLOCK] @ unit[start:].T
        rows, columns = np.nonzero(np.triu(products, 1) >= near)
        found += [(start + int(row), start + int(column)) for row, column in zip(rows, columns, strict=True)]
    return found


def candidates(codes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs of hashes that differ in at most BITS bits; the same pair may come several times.

    All of them where no more than WINDOW hashes agree in one part; else each is compared with the next WINDOW only.
    """
    width = -(-64 // BANDS)
    for band in range(BANDS):
        part = (codes >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        order = np.lexsort((codes, part))
        sorted_part, sorted_codes = part[order], codes[order]
        ends = np.searchsorted(sorted_part, sorted_part, side="right")
        for at, end in enumerate(ends):
            stop = min(int(end), at + 1 + WINDOW)
            if stop > at + 1:
                distance = np.bitwise_count(sorted_codes[at + 1 : stop] ^ sorted_codes[at])
                for step in np.flatnonzero(distance <= BITS):
                    yield int(order[at]), int(order[at + 1 + step])


def components(count: int, pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    """For each of `count` things the lowest one that it hangs together with."""
    parent = list(range(count))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(at) for at in range(count)], np.int64)
