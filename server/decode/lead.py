"""What the first bytes of a container tell before a demuxer is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Lead", "lead"]

FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"sidx", b"moof"}
FARTHEST = 1 << 20  # how far into a file its index is looked for
MOVIE = 1 << 16  # how much of the index is looked at

Peek = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Lead:
    """How a container must be read.

    index_last: an MP4 whose index follows the pictures; nothing can be decoded before all of it is there.
    fragmented: an MP4 of fragments, with pictures soon after the start.
    promised: how long the container says that it is, in bytes; 0 where it does not say.
    """

    index_last: bool = False
    fragmented: bool = False
    promised: int = 0


def lead(peek: Peek) -> Lead:
    """Looks at the first bytes; `peek(n)` gives the first n, or fewer at the end.

    Sources: ISO/IEC 14496-12 section 4.2 (boxes), RFC 8794 (EBML), Microsoft's RIFF.
    """
    head = peek(64)
    if head[4:8] in FIRST_BOXES:
        return boxes(peek)
    if head[:4] == b"\x1aE\xdf\xa3":
        return Lead(promised=segment_end(head))
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Lead(promised=8 + int.from_bytes(head[4:8], "little"))
    return Lead()


def boxes(peek: Peek) -> Lead:
    """Walks over the top boxes of an MP4 until its index or its pictures come."""
    at = 0
    while at < FARTHEST:
        header = peek(at + 16)[at:]
        size, kind, body = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, body = int.from_bytes(header[8:16], "big"), 16
        if kind == b"mdat":
            return Lead(index_last=True, promised=at + size if size else 0)
        if kind == b"moov":
            return Lead(fragmented=b"mvex" in peek(at + min(size, MOVIE))[at:])
        if size < body or len(header) < body:
            break
        at += size
    return Lead()


def segment_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends; 0 where that was unknown to its writer."""
    size, width = variable(head, 4)
    at = 4 + width + size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    size, width = variable(head, at + 4)
    unknown = size == (1 << 7 * width) - 1
    return 0 if unknown or not width else at + 4 + width + size


def variable(data: bytes, at: int) -> tuple[int, int]:
    """(value, width) of an EBML number of variable width; (0, 0) where there is none."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length() if first else 0
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return value, width
