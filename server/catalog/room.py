"""Room on the disk: how much there is, and a little put by for when it is full."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

_SIZE = 8 << 20  # more than the log holds before it is copied into the catalogue's file, which then grows by as much

_log = logging.getLogger("matchcut.catalog")


class Room:
    """A file that holds disk space which is let go of, so that something can be removed from a full disk.

    It stays when the process ends: a full disk is then no obstacle to the next start.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned = False

    @property
    def kept(self) -> bool:
        """Whether space is put by."""
        with suppress(OSError):
            return self._path.stat().st_size == _SIZE
        return False

    @property
    def free(self) -> int:
        """Bytes that the disk has left, this file's not among them; as good as endless where it does not say."""
        with suppress(OSError):
            disk = os.statvfs(self._path.parent)
            if disk.f_blocks:
                return disk.f_bavail * disk.f_frsize
        return sys.maxsize

    def keep(self) -> None:
        """Puts space by, unless it is already or there is little; a warning says so, once."""
        if self.kept:
            return
        if self.free >= 2 * _SIZE:
            with suppress(OSError):
                _fill(self._path)
                self._warned = False
                return
        self.release()  # what was begun
        if not self._warned:
            _log.warning("the disk of %r is nearly full: no space could be put by for removals", str(self._path.parent))
            self._warned = True

    def release(self) -> bool:
        """Gives the space back to the disk; whether there was any."""
        with suppress(OSError):
            size = self._path.stat().st_size
            self._path.unlink()
            return size > 0
        return False


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _SIZE)
        else:
            file.write(bytes(_SIZE))
