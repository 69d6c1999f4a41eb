"""What is said when the disk fails: who starts the server is told the path; callers are not, it goes to the log."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from matchcut.server.errors import StoreFailed

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

_log = logging.getLogger("matchcut.catalog")


def no_room(error: sqlite3.Error) -> bool:
    """Whether the disk, or the limit, is what the file has met."""
    return getattr(error, "sqlite_errorcode", 0) in _NO_ROOM


def at_start(path: Path, error: sqlite3.Error) -> StoreFailed:
    """Why the file cannot be opened or read."""
    if no_room(error):
        return StoreFailed(f"there is no room left on the disk of {str(path)!r}; free space on it", reason="STORE_FULL")
    if _damaged(error):
        return StoreFailed(
            f"{str(path)!r} is damaged or no catalogue ({error}); restore it from a copy, or ingest again",
            reason="STORE_CORRUPT",
        )
    return StoreFailed(f"{str(path)!r} could not be read or written ({error}); see to the disk and try again")


def in_service(path: Path, error: sqlite3.Error, *, removals: bool) -> StoreFailed:
    """Why a change could not be made; `removals`: it was to remove items alone."""
    if no_room(error):
        return full(path, removals=removals)
    _log.error("%r could not be written: %s", str(path), error)
    if _damaged(error):
        return StoreFailed(
            f"the catalogue's file is damaged ({error}); nothing was changed: restore it from a copy",
            reason="STORE_CORRUPT",
        )
    return StoreFailed(f"the catalogue could not be written ({error}); nothing was changed: see to the disk")


def full(path: Path, *, removals: bool) -> StoreFailed:
    """There is no room for a change."""
    _log.error("there is no room left for %r", str(path))
    remedy = "free space on its disk" if removals else "remove items, or give it more space"
    return StoreFailed(f"there is no room left for the catalogue; nothing was changed: {remedy}", reason="STORE_FULL")


def gone(path: Path) -> StoreFailed:
    """The file was deleted, moved or replaced while it was open: what is written now would be lost."""
    _log.error("%r was deleted, moved or replaced while it was in use", str(path))
    return StoreFailed(
        "the catalogue's file is gone from the disk; nothing was changed: put it back and restart the server",
        reason="STORE_GONE",
    )


def _damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
