"""The SQLite file of the log: opened, changed by one thread at a time, read by many, wiped."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import RLock
from typing import Any, TypeVar

from matchcut.server import disk
from matchcut.server.disk import Kind
from matchcut.server.errors import StoreFailed
from matchcut.server.events import schema
from matchcut.server.events.changing import Change, Favoured, Tenant
from matchcut.server.events.pseudonyms import Pseudonyms
from matchcut.server.events.scrub import Scrubber, filled

T = TypeVar("T")
_CACHE_KIB = 65536  # of pages, for the one that writes
_LONGEST_LOG = 64 << 20  # bytes after which the write-ahead log is copied into the file
_PATIENCE_MS = 100  # for which a copy waits until readers are done
_IDLE_READERS = 8

KIND = Kind(
    noun="log of events",
    application=schema.APPLICATION,
    version=schema.VERSION,
    schema=schema.SCHEMA,
    upgrade="",
    otherwise="move it away and begin anew",
    log=logging.getLogger("matchcut.events"),
)


class Store:
    """The file of one log. Its folder belongs to this process; `read` may be called by any thread, the rest by one at a
    time.

    Args:
        path: made where it is missing; None: in memory only.
        limit_bytes: the file is never let grow beyond this, the write-ahead log aside; 0: as far as the disk goes.
        changed: told, after each commit, by tenant and item for how many users it speaks where that has changed.
        gone: see disk.Presence.

    Raises:
        StoreFailed: it is not a log of events (reason STORE_FOREIGN), of a newer matchcut (STORE_VERSION), damaged
            (STORE_CORRUPT), or cannot be opened.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        limit_bytes: int = 0,
        changed: Callable[[dict[Tenant, Favoured]], None],
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = None if path is None else path.absolute()
        self._changed = changed
        self._one = RLock()  # over the one connection that there is in memory
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._scrubber: Scrubber | None = None
        self._held = False
        self.made = self._path is None or not self._path.exists()
        try:
            self._db = self._open(limit_bytes)
            self._presence = None if self._path is None else disk.Presence(KIND, self._path, gone)
            try:
                self.tenants = self._load()
                if self._path is not None:
                    self._scrubber = Scrubber(self._path, all_suspect=not self.made)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise KIND.at_start(self._path or Path(":memory:"), error) from error

    @property
    def bytes(self) -> int:
        """How large it is on the disk, or in memory."""
        if self._path is not None:
            return sum(map(_size, self._files()))
        return int(self.read("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", {}))

    def read(self, statement: str, parameters: dict[str, Any]) -> Any:
        """The one value that a statement of schema gives.

        Raises:
            StoreFailed: the file could not be read.
        """
        try:
            with self._reader() as db:
                return db.execute(statement, parameters).fetchone()[0]
        except sqlite3.Error as error:
            raise KIND.unreadable(self._path or Path(":memory:"), error) from error

    def change(self, work: Callable[[Change], T]) -> T:
        """What work() returns once all that it did is durable.

        Raises:
            StoreFailed: nothing was changed; the disk failed, or is full (reason STORE_FULL).
            Unavailable: the file is gone (STORE_GONE), and nothing is kept any more.
        """
        self._check()
        change = Change(self._db)
        try:
            with self._one, disk.transaction(self._db):
                result = work(change)
                change.write()
            self._check()
        except sqlite3.Error as error:
            change.undone()
            raise KIND.in_service(
                self._path or Path(":memory:"), error, remedy="give it more space, or shorten the retention"
            ) from error
        except BaseException:
            change.undone()
            raise
        self._changed(change.committed())
        return result

    def lasts(self) -> bool:
        """Whether the file is still there."""
        return self._presence is None or self._presence.lasts()

    def tend(self) -> None:
        """Copies the log into the file where it has grown long. What cannot be copied now is as safe in it."""
        if self._path is not None and not self._held and filled(self._log) * schema.PAGE >= _LONGEST_LOG:
            self._copy("PASSIVE")

    def hold(self) -> Scrubber | None:
        """Keeps the file as it is, so that it can be scrubbed by any thread, until wipe(); None where there is none."""
        self._held = True
        return self._scrubber

    def wipe(self) -> bool:
        """Empties the log into the file and wipes what remained of deleted rows in it, and in this process's memory.

        For this the pages have to be clean that were suspect when hold() was called. False: readers do not let the log
        be emptied; to be tried again.
        """
        if self._scrubber is None:
            return True
        if not self._copy("TRUNCATE"):
            return False
        self._scrubber.clean(self._scrubber.suspects())
        self._db.execute("PRAGMA shrink_memory")  # pages in memory, with what was just wiped from the disk
        self._held = False
        return True

    def release(self) -> None:
        """Ends hold() without wiping."""
        self._held = False

    def close(self) -> None:
        """Closes the file."""
        while True:
            try:
                self._readers.get_nowait().close()
            except Empty:
                break
        self._db.close()
        if self._scrubber is not None:
            self._scrubber.close()
            self._scrubber = None

    @property
    def _log(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}-wal")

    def _files(self) -> list[Path]:
        assert self._path is not None
        return [self._path, self._log, self._path.with_name(f"{self._path.name}-shm")]

    def _copy(self, how: str) -> bool:
        """Copies the log into the file; whether all of it was."""
        if self._scrubber is not None:
            self._scrubber.note()
        busy, logged, copied = self._db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        return bool(not busy and logged == copied)

    def _check(self) -> None:
        """Raises Unavailable where the file is gone."""
        if self._presence is not None:
            self._presence.check()

    def _open(self, limit_bytes: int) -> sqlite3.Connection:
        emptied = self._path is not None and self._path.is_file() and not self._path.stat().st_size
        db = sqlite3.connect(
            self._path or ":memory:",
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
            timeout=_PATIENCE_MS / 1000,
        )
        try:
            db.execute(f"PRAGMA page_size = {schema.PAGE}")
            db.execute("PRAGMA auto_vacuum = NONE")
            db.execute("PRAGMA secure_delete = ON").fetchone()
            db.execute("PRAGMA temp_store = MEMORY")  # nothing of a user in files of the system
            db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            most = schema.MOST_PAGES * schema.PAGE
            KIND.prepare(
                db, self._path or Path(":memory:"), limit_bytes=min(limit_bytes or most, most), emptied=emptied
            )
            db.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
            db.execute(
                "PRAGMA journal_size_limit = 0"
            ).fetchone()  # cut when it starts over: its size tells how full it is
        except (sqlite3.Error, StoreFailed):
            db.close()
            raise
        return db

    def _load(self) -> dict[str, Tenant]:
        found = self._db.execute(schema.TENANTS).fetchall()
        return {name: Tenant(name, Pseudonyms(salt), number, *totals) for number, name, salt, *totals in found}

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading alone, this thread's for a while."""
        if self._path is None:
            with self._one:
                yield self._db
            return
        try:
            db = self._readers.get_nowait()
        except Empty:
            self._check()
            db = reader(self._path)
        try:
            yield db
        except BaseException:
            db.close()
            raise
        if self._readers.qsize() < _IDLE_READERS and self._scrubber is not None:
            self._readers.put(db)
        else:
            db.close()


def reader(path: Path) -> sqlite3.Connection:
    """A connection that can read the file, also while another process writes to it, and never change it.

    Raises:
        StoreFailed: there is no such file, or it is something else.
    """
    path = path.absolute()
    if not path.is_file():
        raise StoreFailed(f"there is no log of events at {str(path)!r}; choose another folder", reason="STORE_GONE")
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    try:
        KIND.check(db, path)
    except sqlite3.Error as error:
        db.close()
        raise KIND.at_start(path, error) from error
    except StoreFailed:
        db.close()
        raise
    return db


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
