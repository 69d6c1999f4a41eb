"""What is read of a JPEG or PNG file before anything decodes it: its size, which way is up, and what can be left out.

Metadata is where hostile files do their harm, and nothing but the orientation is wanted of it. So a decoder is given
only what makes the picture: no EXIF, no profiles, no text, no previews, no animation.

Sources: ITU-T T.81 annex B (JPEG's markers), W3C PNG third edition section 5.3 (chunks), CIPA DC-008 (EXIF).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Bare", "bare"]

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
LONG = 4  # the type of a value of four bytes

APP0, APP1, APP14 = 0xE0, 0xE1, 0xEE  # 0 and 14 say which colours the file is in, 1 holds EXIF
START_OF_SCAN = 0xDA
ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # each announces a picture and its size
TABLES = {0xC4, 0xCC, 0xDB, 0xDD}  # codes, conditioning, quantisation, restarts
SEGMENTS = FRAMES | TABLES | {APP0, APP14}

CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


@dataclass(frozen=True, slots=True)
class Bare:
    """A file without its metadata.

    data: what makes the picture; may be damaged where the file is.
    width, height: the largest that the file announces; 0 where it announces none.
    orientation: 1 to 8, as EXIF counts.
    """

    data: bytes
    width: int = 0
    height: int = 0
    orientation: int = 1


def bare(data: bytes) -> Bare:
    """Takes the metadata off a file; any bytes that are neither JPEG nor PNG are left as they are."""
    if data.startswith(JPEG):
        return _gathered(data[:2], _jpeg(data))
    if data.startswith(PNG):
        return _gathered(PNG, _png(data))
    return Bare(data)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a file: bytes to keep, or what is learned from it."""

    kept: bytes | memoryview = b""
    size: tuple[int, int] = (0, 0)
    exif: bytes = b""


def _gathered(head: bytes, pieces: Iterator[_Piece]) -> Bare:
    kept: list[bytes | memoryview] = [head]
    width = height = 0
    turn = 1
    for piece in pieces:
        kept.append(piece.kept)
        width, height = max(width, piece.size[0]), max(height, piece.size[1])
        if piece.exif and turn == 1:
            turn = orientation(piece.exif)
    return Bare(b"".join(kept), width, height, turn)


def _jpeg(data: bytes) -> Iterator[_Piece]:
    """The segments up to the first scan, which is kept with all that follows."""
    view = memoryview(data)
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:  # between segments decoders pass over what is no marker
        marker = data[at + 1]
        if marker == START_OF_SCAN:
            yield _Piece(view[at:])
            return
        if marker in (0xFF, 0x00) or marker in ALONE:
            at += 1
            continue
        end = at + 2 + int.from_bytes(view[at + 2 : at + 4], "big")
        body = view[at + 4 : end]
        if marker in SEGMENTS:
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            yield _Piece(view[at:end], size if marker in FRAMES else (0, 0))
        elif marker == APP1 and bytes(body[:6]) == EXIF:
            yield _Piece(exif=bytes(body[6:]))
        at = max(end, at + 2)


def _png(data: bytes) -> Iterator[_Piece]:
    view = memoryview(data)
    at = len(PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind, body = bytes(view[at + 4 : at + 8]), view[at + 8 : end - 4]
        if kind == b"IHDR":
            yield _Piece(view[at:end], (int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")))
        elif kind in CHUNKS:
            yield _Piece(view[at:end])
        elif kind == b"eXIf":
            yield _Piece(exif=bytes(body))
        at = end


def orientation(exif: bytes) -> int:
    """How the stored picture is turned, 1 to 8; 1 where the tag is absent or makes no sense."""
    order: Literal["little", "big"] = "little" if exif.startswith(b"II") else "big"

    def number(at: int, width: int) -> int:
        return int.from_bytes(exif[at : at + width], order)

    first = number(4, 4)
    for at in range(first + 2, min(first + 2 + 12 * number(first, 2), len(exif)), 12):
        if number(at, 2) == ORIENTATION:
            value = number(at + 8, 4 if number(at + 2, 2) == LONG else 2)
            return value if 1 <= value <= 8 else 1
    return 1
