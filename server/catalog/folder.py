"""The folder that a catalogue lives in: made if missing, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from matchcut.server.errors import StoreFailed


class Folder:
    """A folder that no other catalogue holds, in this process or another; the kernel lets go of it if this one dies.

    Args:
        path: made with its parents where it is missing.

    Raises:
        StoreFailed: it is held already (reason STORE_LOCKED), or cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _make(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(
                f"the folder {str(path)!r} cannot be used ({error.strerror}); make it writable, or choose another"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            raise StoreFailed(
                f"the catalogue folder {str(path)!r} is in use by process {holder}; stop it, or choose another folder",
                reason="STORE_LOCKED",
            ) from error
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._lock)


def _make(path: Path) -> None:
    """Makes the folder so that it survives a power failure, as what is committed in it must."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
