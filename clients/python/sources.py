"""Where a container's bytes come from: a path, bytes, an open file, or pieces that somebody makes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

__all__ = ["CHUNK", "ContainerSource", "Meter", "Progress", "Readable", "Source", "container", "slices"]

CHUNK = 256 * 1024  # bytes a message: few enough to start decoding early, enough that messages cost nothing

Progress: TypeAlias = Callable[[int, int | None], object]


class Readable(Protocol):
    """A binary file, or anything else that reads like one."""

    def read(self, size: int, /) -> bytes: ...


ContainerSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Iterable[bytes] | AsyncIterable[bytes]
)


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to be sent.

    open: the pieces from the beginning; only once unless `replayable`.
    size: length in bytes; None where it is not known.
    replayable: they can be read again, so a failed call may be repeated and the digest be known beforehand.
    """

    open: Callable[[], Iterable[bytes] | AsyncIterable[bytes]]
    size: int | None = None
    replayable: bool = False

    def read(self) -> Iterable[bytes]:
        """The pieces of a replayable source, which is never an asynchronous one."""
        pieces = self.open()
        assert self.replayable
        assert isinstance(pieces, Iterable)
        return pieces

    def sha256(self) -> bytes:
        """SHA-256 of all bytes, 32 bytes; b"" where reading them would use them up."""
        if not self.replayable:
            return b""
        digest = hashlib.sha256()
        for piece in self.read():
            digest.update(piece)
        return digest.digest()


def container(source: ContainerSource) -> Source:
    """Whatever a caller may give, as a Source. A `str` is a path. TypeError for anything else, OSError for no file."""
    match source:
        case str() | os.PathLike():
            path = Path(source)
            return Source(lambda: _file(path), path.stat().st_size, replayable=True)
        case bytes() | bytearray() | memoryview():
            view = memoryview(source).cast("B")
            return Source(lambda: slices(view), view.nbytes, replayable=True)
        case AsyncIterable():
            return Source(lambda: source)
        case _ if hasattr(source, "read"):
            return Source(lambda: iter(lambda: source.read(CHUNK), b""))
        case Iterable():
            return Source(lambda: source)
    raise TypeError(f"media is a path, bytes, a binary file or an iterable of bytes, not {type(source).__name__}")


def slices(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """`data` in pieces of at most CHUNK bytes."""
    if isinstance(data, bytes) and len(data) <= CHUNK:
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, view.nbytes, CHUNK):
        yield bytes(view[start : start + CHUNK])


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            yield piece


class Meter:
    """Tells how many bytes have been sent; where a call is sent again, only what goes beyond the try before."""

    def __init__(self, progress: Progress | None = None, total: int | None = None) -> None:
        self._progress = progress
        self._total = total
        self._most = 0
        self._sent = 0

    def restart(self) -> None:
        """A new try begins."""
        self._sent = 0

    def add(self, message: Any) -> None:
        """One more message has left."""
        self._sent += len(message.chunk.data)
        if self._progress is not None and self._sent > self._most:
            self._most = self._sent
            self._progress(self._sent, self._total)
