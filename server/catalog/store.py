"""The record of the catalogue: an SQLite file, in which a committed change survives a power failure.

A full disk. SQLite first appends a change to a log (WAL), later copies that into the file and starts the log over; even
a removal has to be logged. So nothing is put in unless there is room for it in both, which leaves a log that can always
be copied and used again. Where others have filled the disk, the space that Room put by lets a removal through. The
file never shrinks: what is put in next takes the place of what was removed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from matchcut.server import disk
from matchcut.server.catalog import failures, rows, schema
from matchcut.server.catalog.changes import Change, Put, Remove, Stage
from matchcut.server.catalog.failures import KIND
from matchcut.server.catalog.room import Room
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity

_SWITCHED = 8192  # bytes, at most, that an item takes in a switch beside its vectors


class Store:
    """The file of one catalogue, open for this process alone. One thread at a time.

    Args:
        path: of the file; made where it is missing.
        limit_bytes: the file is never let grow beyond this, log and reserve aside; 0: as far as the disk goes.
        gone: see disk.Presence.

    Raises:
        StoreFailed: it is not a catalogue (reason STORE_FOREIGN), of a newer matchcut (STORE_VERSION), damaged
            (STORE_CORRUPT), or cannot be opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int = 0, gone: Callable[[], None] = lambda: None) -> None:
        self._path = path.absolute()
        self._log_path = self._path.with_name(f"{path.name}-wal")
        self._room = Room(self._path.with_name("reserve"))
        try:
            try:
                self._db = self._open(limit_bytes)
            except sqlite3.Error as error:
                if not (disk.no_room(error) and self._room.release()):
                    raise
                self._db = self._open(limit_bytes)
            self._presence = disk.Presence(KIND, self._path, gone)
        except sqlite3.Error as error:
            raise KIND.at_start(self._path, error) from error
        self._room.keep()

    def sizes(self) -> list[tuple[str, tuple[str, int], int, int]]:
        """(tenant, (digest, dimensions), segments, items) of what `items` will give, so that room can be made."""
        try:
            return [
                (tenant, (digest, dims), *counts) for tenant, digest, dims, *counts in self._db.execute(schema.SIZES)
            ]
        except sqlite3.Error as error:
            raise KIND.at_start(self._path, error) from error

    def items(self) -> Iterator[Put]:
        """All items in the order of ingest.

        Raises:
            StoreFailed: a record is not what was written; the message names the item.
        """
        try:
            encoders = self._encoders()
            for row in self._db.execute(schema.LOAD):
                yield rows.read(row, encoders)
        except sqlite3.Error as error:
            raise KIND.at_start(self._path, error) from error

    def staged(self) -> list[Stage]:
        """All that is kept aside. What is damaged of it is thrown away."""
        try:
            encoders, found = self._encoders(), []
            damaged: list[tuple[str, str]] = []
            for row in self._db.execute(schema.STAGED):
                stage = rows.read_staged(row, encoders)
                if stage is None:
                    damaged.append(row[:2])
                else:
                    found.append(stage)
            self._db.executemany(schema.UNSTAGE, damaged)
        except sqlite3.Error as error:
            raise KIND.at_start(self._path, error) from error
        return found

    def own(self) -> EncoderIdentity | None:
        """The encoder that the last switch made the catalogue's."""
        try:
            row = self._db.execute(schema.OWN).fetchone()
        except sqlite3.Error as error:
            raise KIND.at_start(self._path, error) from error
        return None if row is None else EncoderIdentity(*row)

    def apply(self, changes: Sequence[Change]) -> None:
        """Makes all of the changes, durably, or none; removals alone also on a full disk.

        Raises:
            StoreFailed: none was made; the disk failed, or is full (reason STORE_FULL).
            Unavailable: the file is gone (STORE_GONE), and nothing is kept any more.
        """
        self.check()
        removals = all(isinstance(change, Remove) for change in changes)
        try:
            if not removals and not self._fits(sum(map(rows.size, changes))):
                raise failures.full(self._path)
            try:
                self._commit(changes)
            except sqlite3.Error as error:
                if not (removals and disk.no_room(error)):
                    raise
                self._commit_to_full_disk(changes)
        except sqlite3.Error as error:
            raise failures.in_service(self._path, error, removals=removals) from error
        self.check()
        self._room.keep()

    def switch(self, encoder: EncoderIdentity) -> None:
        """Makes what is kept aside of the encoder the items' own, and the encoder the catalogue's; all or nothing.

        Raises:
            StoreFailed, Unavailable: as in apply.
        """
        self.check()
        same = encoder.digest, encoder.dimensions
        try:
            count, size = self._db.execute(schema.SWITCH_SIZE, same).fetchone()
            if not self._fits(int(size) + (count + 1) * _SWITCHED):
                raise failures.full(self._path)
            with disk.transaction(self._db):
                self._db.execute(schema.ENCODER, rows.identity(encoder))
                self._db.execute(schema.SWITCH, same)
                self._db.execute(schema.UNSTAGE_ALL)
                self._db.execute(schema.SET_OWN, rows.identity(encoder))
            with suppress(sqlite3.Error):  # the log has grown by all that was switched; the disk gets it back
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise failures.in_service(self._path, error, removals=False) from error
        self.check()
        self._room.keep()

    def lasts(self) -> bool:
        """Whether the file is still there."""
        return self._presence.lasts()

    def check(self) -> None:
        """To be called also before a change is acknowledged for which nothing has to be written.

        Raises:
            Unavailable: the file is gone (reason STORE_GONE).
        """
        self._presence.check()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _open(self, limit_bytes: int) -> sqlite3.Connection:
        emptied = self._path.is_file() and not self._path.stat().st_size
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=16)
        try:
            KIND.prepare(db, self._path, limit_bytes=limit_bytes, emptied=emptied)
        except (sqlite3.Error, StoreFailed):
            db.close()
            raise
        return db

    def _encoders(self) -> dict[int, EncoderIdentity]:
        found = self._db.execute("SELECT encoder, name, version, digest, dimensions FROM encoders")
        return {number: EncoderIdentity(*values) for number, *values in found}

    def _fits(self, size: int) -> bool:
        """Whether the disk has room for so many bytes in the log and in the file, and for what is in the log now."""
        logged = self._logged()
        if self._room.free >= 2 * size + logged:
            return True
        reusable = logged if self._checkpoint() else 0
        page, pages = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "freelist_count"))
        unused: int = page * pages
        more = max(0, size - reusable) + max(0, size - unused)  # in the log, in the file
        return self._room.free >= more + logged - reusable

    def _logged(self) -> int:
        with suppress(OSError):
            return self._log_path.stat().st_size
        return 0

    def _checkpoint(self) -> bool:
        """Copies the log into the file; whether the log can be used from its start again."""
        with suppress(sqlite3.Error):  # what cannot be copied now stays in the log, as safe there
            busy, logged, copied = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return bool(not busy and logged == copied)
        return False

    def _commit(self, changes: Sequence[Change]) -> None:
        with disk.transaction(self._db):
            for change in changes:
                rows.write(self._db, change)

    def _commit_to_full_disk(self, removals: Sequence[Change]) -> None:
        self._room.release()
        self._checkpoint()
        erases = self._db.execute("PRAGMA secure_delete").fetchone()[0]
        self._db.execute("PRAGMA secure_delete = FAST").fetchone()  # zeros in the place of an item would be logged too
        try:
            self._commit(removals)
        finally:
            self._db.execute(f"PRAGMA secure_delete = {erases}").fetchone()
        self._checkpoint()
