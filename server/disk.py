"""SQLite files in which a committed change survives a power failure: how they are opened, and what is said on failure.

Who starts the server is told the path; callers are not, it goes to the log.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from matchcut.server.errors import StoreFailed, Unavailable

_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_UNKNOWN = (-1, -1)


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


class Presence:
    """Sees that a file and its write-ahead log are those that were opened, and have their names still. For any thread.

    SQLite goes on with files that were deleted, moved or replaced, so that it would call changes durable which nobody
    can read any more. Once they are gone they stay so until the server is started again, whatever is put there: what it
    has in memory and what is on the disk may differ by then. A look takes two calls of stat().

    Args:
        kind: of the file.
        path: of the file, which is open.
        told: called when it is found to be gone, once, by the thread that finds it.
    """

    def __init__(self, kind: Kind, path: Path, told: Callable[[], None]) -> None:
        self._kind = kind
        self._told = told
        self._name = str(path)
        names = (self._name, f"{self._name}-wal")  # there is none of these where the file system can have no such log
        self._files = [(name, there) for name in names if (there := _identity(name)) not in (None, _UNKNOWN)]
        self._gone = False
        self._lock = Lock()  # over that it is found to be gone once

    def lasts(self) -> bool:
        """Whether they are there."""
        if not self._gone and any(_identity(name) not in (there, _UNKNOWN) for name, there in self._files):
            with self._lock:
                first, self._gone = not self._gone, True
            if first:
                self._kind.log.error(
                    "%r was deleted, moved or replaced while it was in use: nothing is kept any more; put it back, or "
                    "choose another folder, and restart the server",
                    self._name,
                )
                self._told()
        return not self._gone

    def check(self) -> None:
        """To be called before a change is made, and before it is said to be durable.

        Raises:
            Unavailable: they are gone (reason STORE_GONE).
        """
        if not self.lasts():
            raise Unavailable(
                f"the file of the {self._kind.noun} is gone from the disk, so that nothing can be kept; put it back, "
                "or choose another folder, and restart the server",
                reason="STORE_GONE",
            )


def _identity(name: str) -> tuple[int, int] | None:
    """What tells the file from any other; None: there is none; _UNKNOWN: that cannot be said."""
    try:
        found = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # as where the folder may not be looked into: SQLite goes on in it, and says so where it cannot
        return _UNKNOWN
    return found.st_dev, found.st_ino


def _damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
