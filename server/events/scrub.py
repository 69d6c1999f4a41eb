"""Wipes what SQLite leaves in the unused parts of its pages.

`PRAGMA secure_delete` puts zeros where a row was, and in pages that are no longer used. But where a page was split in
two, or rewritten in another order, copies of rows stay in the gap between the page's pointers and its content, which
nothing overwrites for a long time. So the gaps are filled with zeros here, right in the file.

It does no harm to whoever reads meanwhile, nor where it is cut short: no reader looks into a gap. It has to be right
about where the gap is, though: nobody may write to the file, or copy the write-ahead log (WAL) into it, meanwhile.
The layout of both files: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matchcut.server.events import schema

_AT_ONCE = 256  # pages that are read together
_LOG_HEADER = 32  # bytes in the log before the frames
_FRAME = 24 + schema.PAGE  # bytes of a frame; a page is at its end, the number of the page at its start
_HEADER = struct.Struct(">BHHH")  # of a B-tree page: kind, first free block, cells, start of the content
_INTERIOR, _LEAF = {2: 12, 5: 12}, {10: 8, 13: 8}  # sizes of the headers of pages that are in a B-tree


class Scrubber:
    """The pages of one file that may hold what has been deleted.

    Args:
        path: of the file, which is there already and has been closed cleanly or not.
        all_suspect: it is not known what its gaps hold.
    """

    def __init__(self, path: Path, *, all_suspect: bool) -> None:
        self._log = path.with_name(f"{path.name}-wal")
        # Kept open: to close any descriptor of a file ends all locks (POSIX) that this process has on it, SQLite's too.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        pages = os.fstat(self._file).st_size // schema.PAGE if all_suspect else 0
        self._suspect: NDArray[np.bool_] = np.ones(pages + 1, np.bool_)  # by the page's number, from 1

    def close(self) -> None:
        """To be called after SQLite has let go of the file."""
        os.close(self._file)

    def note(self) -> NDArray[np.int64]:
        """Remembers the pages that are in the log as suspect, before they are copied into the file; their numbers."""
        pages = _logged(self._log)
        if len(pages):
            if pages[-1] >= len(self._suspect):
                self._suspect = np.append(self._suspect, np.zeros(pages[-1] + 1, np.bool_))
            self._suspect[pages] = True
        return pages

    def suspects(self) -> NDArray[np.int64]:
        """The numbers of all suspect pages, in order."""
        return np.flatnonzero(self._suspect)

    def clean(self, pages: NDArray[np.int64]) -> int:
        """Fills the gaps of these pages, in ascending order, with zeros on the disk; in how many was something else."""
        cleaned = 0
        for first, count in _runs(pages):
            at = (first - 1) * schema.PAGE
            read = os.pread(self._file, count * schema.PAGE, at)
            for offset in range(0, len(read) - schema.PAGE + 1, schema.PAGE):
                gap = _gap(read, offset)
                size = gap.stop - gap.start
                if size and read.count(0, gap.start, gap.stop) != size:
                    os.pwrite(self._file, bytes(size), at + gap.start)
                    cleaned += 1
        os.fsync(self._file)
        self._suspect[pages[pages < len(self._suspect)]] = False
        return cleaned


def _runs(pages: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, count) of pages that follow each other; the first page, which holds no rows of ours, is left out."""
    pages = pages[pages > 1]
    ends = np.flatnonzero(np.diff(pages) != 1) + 1
    for run in np.split(pages, ends) if len(pages) else ():
        for at in range(0, len(run), _AT_ONCE):
            part = run[at : at + _AT_ONCE]
            yield int(part[0]), len(part)


def _gap(read: bytes, offset: int) -> range:
    """Where in `read` the gap of the page at `offset` is; empty where it is no page of a B-tree."""
    kind, _, cells, content = _HEADER.unpack_from(read, offset)
    header = _INTERIOR.get(kind) or _LEAF.get(kind)
    start, stop = (header or 0) + 2 * cells, content or 65536
    if header is None or not start <= stop <= schema.PAGE:
        return range(0)
    return range(offset + start, offset + stop)


def filled(log: Path) -> int:
    """How many frames a write-ahead log holds since it was last started over; 0 where there is none.

    Frames that are left of the time before follow those, with another salt than the log's header has.
    """
    with suppress(FileNotFoundError), log.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        salts = os.pread(descriptor, 8, 16)
        first, last = 0, (os.fstat(descriptor).st_size - _LOG_HEADER) // _FRAME
        while first < last:
            middle = (first + last) // 2
            if os.pread(descriptor, 8, _LOG_HEADER + middle * _FRAME + 8) == salts:
                first = middle + 1
            else:
                last = middle
        return max(0, first)
    return 0


def _logged(log: Path) -> NDArray[np.int64]:
    """The numbers of the pages in those frames, in order, each once."""
    count = filled(log)
    if not count:
        return np.zeros(0, np.int64)
    with log.open("rb") as file:
        # Pages of the disk's cache are mapped all at once: one fault for each would take longer than the rest.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        with mmap.mmap(file.fileno(), _LOG_HEADER + count * _FRAME, flags=flags, prot=mmap.PROT_READ) as mapped:
            view = np.ndarray((count,), ">u4", mapped, _LOG_HEADER, (_FRAME,))
            pages = view.astype(np.int64)
            del view
    return np.unique(pages[(pages > 0) & (pages <= schema.MOST_PAGES)])
