"""SQLite files in which a committed change survives a power failure: how they are opened, and what is said on failure.

Who starts the server is told the path; callers are not, it goes to the log.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from matchcut.server.errors import StoreFailed

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is to hold.

    noun: as in "the catalogue". application: in the header of the file. version: of the schema; that of an empty file
    is 0. schema: makes an empty one. upgrade: makes one of this version from any older one. otherwise: what can be done
    where a damaged file has no copy.
    """

    noun: str
    application: int
    version: int
    schema: str
    upgrade: str
    otherwise: str
    log: logging.Logger

    def at_start(self, path: Path, error: sqlite3.Error) -> StoreFailed:
        """Why the file cannot be opened or read."""
        if no_room(error):
            return StoreFailed(
                f"there is no room left on the disk of {str(path)!r}; free space on it", reason="STORE_FULL"
            )
        if _damaged(error):
            return StoreFailed(
                f"{str(path)!r} is damaged or no {self.noun} ({error}); restore it from a copy, or {self.otherwise}",
                reason="STORE_CORRUPT",
            )
        return StoreFailed(f"{str(path)!r} could not be read or written ({error}); see to the disk and try again")

    def in_service(self, path: Path, error: sqlite3.Error, *, remedy: str) -> StoreFailed:
        """Why a change could not be made; `remedy` for the case that there is no room."""
        if no_room(error):
            return self.full(path, remedy=remedy)
        self.log.error("%r could not be written: %s", str(path), error)
        if _damaged(error):
            return StoreFailed(
                f"the {self.noun}'s file is damaged ({error}); nothing was changed: restore it from a copy",
                reason="STORE_CORRUPT",
            )
        return StoreFailed(f"the {self.noun} could not be written ({error}); nothing was changed: see to the disk")

    def unreadable(self, path: Path, error: sqlite3.Error) -> StoreFailed:
        """Why something could not be read in service."""
        self.log.error("%r could not be read: %s", str(path), error)
        return StoreFailed(
            f"the {self.noun} could not be read ({error}); see to the disk, or restore it from a copy",
            reason="STORE_CORRUPT" if _damaged(error) else "",
        )

    def full(self, path: Path, *, remedy: str) -> StoreFailed:
        """There is no room for a change."""
        self.log.error("there is no room left for %r", str(path))
        return StoreFailed(
            f"there is no room left for the {self.noun}; nothing was changed: {remedy}", reason="STORE_FULL"
        )

    def gone(self, path: Path) -> StoreFailed:
        """The file was deleted, moved or replaced while it was open: what is written now would be lost."""
        self.log.error("%r was deleted, moved or replaced while it was in use", str(path))
        return StoreFailed(
            f"the {self.noun}'s file is gone from the disk; nothing was changed: put it back and restart the server",
            reason="STORE_GONE",
        )

    def check(self, db: sqlite3.Connection, path: Path) -> int:
        """The version of the schema that the file has.

        Raises:
            StoreFailed: it is something else (STORE_FOREIGN), or of a newer version than this one (STORE_VERSION).
        """
        application, version, tables = (
            db.execute(question).fetchone()[0]
            for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if application != self.application and (application or version or tables):
            raise StoreFailed(
                f"{str(path)!r} is not a {self.noun} of matchcut; choose another folder", reason="STORE_FOREIGN"
            )
        if version > self.version:
            raise StoreFailed(
                f"{str(path)!r} was written by a newer matchcut (schema {version}, this one knows {self.version}); "
                "run the newer one, or choose another folder",
                reason="STORE_VERSION",
            )
        found: int = version
        return found

    def prepare(self, db: sqlite3.Connection, path: Path, *, limit_bytes: int, emptied: bool) -> None:
        """Makes the file ready to be written to.

        Args:
            limit_bytes: it is never let grow beyond this, its write-ahead log aside; 0: as far as the disk goes.
            emptied: it was there before, with 0 bytes, which deserves a warning.

        Raises:
            StoreFailed: as check().
        """
        version = self.check(db, path)
        if emptied and not version:
            self.log.warning(
                "%r is empty (0 bytes), a new %s begins in it; if it held anything, restore it from a copy",
                str(path),
                self.noun,
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if version < self.version:
            db.executescript(self.upgrade if version else self.schema)
        if limit_bytes:
            page = db.execute("PRAGMA page_size").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {max(1, limit_bytes // page)}")


def no_room(error: sqlite3.Error) -> bool:
    """Whether the disk, or the limit, is what the file has met."""
    return getattr(error, "sqlite_errorcode", 0) in _NO_ROOM


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, durably, or none of it."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # then the next change fails too, and says why
                db.execute("ROLLBACK")


def identity(path: Path) -> tuple[int, int] | None:
    """What tells the file from any other; None where there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
