"""Vectors in a file instead of in memory: mapped while they are read, and in nobody's memory otherwise."""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.catalog.growing import Growing
from matchcut.server.records import Floats

Rows = Callable[[int], "Growing | Filed"]  # makes room for vectors of so many dimensions

_LEAST = 1 << 20  # bytes from which on a file is worth it
_log = logging.getLogger("matchcut.catalog")


def held(dimensions: int) -> Growing:
    """Vectors in memory."""
    return Growing(np.float32, (dimensions,))


def filed(folder: Path) -> Rows:
    """Makes Filed in that folder."""
    return partial(Filed, folder)


class Filed:
    """Rows of float32 that grow at their end, as Growing, in a file that has no name and goes with the process.

    The file is no record: it is written anew at each start, and never waited for. It is written to by pwrite(), so that
    a full disk is an error of the call that needs room; and mapped for reading, so that its pages are the kernel's to
    drop. A mapping lives as long as an array that was made of it: between two requests there is none.

    Few rows are in memory, and so are all where no file can be made, which a warning says.

    Args:
        folder: where the file is made.
        dimensions: of the vectors.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._held: Growing | None = held(dimensions)  # the rows, while they are in memory
        self._file = -1
        self._close: weakref.finalize[[int], Filed] | None = None
        self._may_file = True
        self._count = self._room = 0  # rows in the file, and those that it has room for
        self._mapping: Callable[[], Any] = lambda: None

    def __len__(self) -> int:
        return self._count if self._held is None else len(self._held)

    @property
    def fleeting(self) -> bool:
        """Whether what `array` gives should not be kept."""
        return self._held is None

    @property
    def array(self) -> Floats:
        """All rows, read-only; see Growing."""
        if self._held is not None:
            return self._held.array
        if not self._count:
            return held(self._dimensions).array
        mapping, size = self._mapping(), self._size(self._count)
        if mapping is None or len(mapping) < size:
            mapping = mmap.mmap(self._file, size, prot=mmap.PROT_READ)
            self._mapping = weakref.ref(mapping)
        count = self._count * self._dimensions
        return np.frombuffer(mapping, np.float32, count).reshape(self._count, self._dimensions)

    def another(self, room: int) -> Filed:
        """An empty one with room for so many such rows, in a file of its own if this one is in one.

        Raises:
            MemoryError: there is no room, on the disk if this one has a file: it does not go to memory instead.
        """
        made = Filed(self._folder, self._dimensions)
        made._reserve(room, in_memory=not self.fleeting)
        return made

    def reserve(self, more: int) -> None:
        """Makes room for so many more rows, so that adding them cannot fail.

        Raises:
            MemoryError: there is no room, on the disk once there is a file.
        """
        self._reserve(more, in_memory=True)

    def extend(self, rows: Floats) -> None:
        """Adds rows."""
        self.reserve(len(rows))
        if self._held is None:
            try:
                self._write(rows)
                return
            except OSError as error:
                self._hold(error)
        assert self._held is not None, "they are there, or were moved there"
        self._held.extend(rows)

    def _reserve(self, more: int, *, in_memory: bool) -> None:
        """See reserve(). in_memory: whether they may be there where no file can be made."""
        wanted = len(self) + more
        if self._held is None:
            if wanted > self._room:
                self._grow(wanted)
        elif not self._may_file or self._size(wanted) < _LEAST or not self._move(wanted, in_memory=in_memory):
            self._held.reserve(more)

    def _grow(self, room: int) -> None:
        """Makes room for so many rows, and for an eighth more than before if there is so much."""
        try:
            try:
                self._allocate(max(room, self._room * 9 // 8))
            except OSError:
                self._allocate(room)
        except OSError as error:
            raise MemoryError(str(error)) from error

    def _move(self, room: int, *, in_memory: bool) -> bool:
        """Moves the rows from memory to a file with room for so many; whether that could be done."""
        assert self._held is not None, "else they are in a file"
        before = self._held
        try:
            self._file = _nameless(self._folder)
            self._close = weakref.finalize(self, os.close, self._file)
            self._allocate(room)
            self._write(before.array)
        except OSError as error:
            if not in_memory:
                self._leave_file()
                raise MemoryError(str(error)) from error
            self._hold(error, before)
            return False
        self._held = None
        return True

    def _hold(self, error: OSError, rows: Growing | None = None) -> None:
        """Keeps the rows in memory from now on."""
        self._held = Growing.of(self.array.copy()) if rows is None else rows
        self._may_file = False
        self._leave_file()
        _log.warning(
            "vectors are kept in memory: a file for them in %r failed (%s)", str(self._folder), error.strerror or error
        )

    def _leave_file(self) -> None:
        self._count = self._room = 0
        if self._close is not None:
            self._close()

    def _allocate(self, room: int) -> None:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file, 0, self._size(room))
            except OSError:
                os.ftruncate(self._file, self._size(self._room))  # some file systems keep all that there was
                raise
        else:
            os.ftruncate(self._file, self._size(room))
        self._room = room

    def _write(self, rows: Floats) -> None:
        left = memoryview(np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.uint8).data)
        at = self._size(self._count)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written
        self._count += len(rows)

    def _size(self, rows: int) -> int:
        return rows * self._dimensions * 4


def _nameless(folder: Path) -> int:
    """A new file that goes when it is closed."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:  # not every file system can
            pass
    descriptor, path = tempfile.mkstemp(prefix=".vectors-", dir=folder)
    os.unlink(path)
    return descriptor
