"""The record of the catalogue: an SQLite file, in which a committed change survives a power failure.

A full disk. SQLite first appends a change to a log (WAL), later copies that into the file and starts the log over; even
a removal has to be logged. So nothing is put in unless there is room for it in both, which leaves a log that can always
be copied and used again. Where others have filled the disk, the space that Room put by lets a removal through. The
file never shrinks: what is put in next takes the place of what was removed.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np

from matchcut.server.catalog import failures, schema
from matchcut.server.catalog.changes import Amend, Change, Put, Remove
from matchcut.server.catalog.contract import Known
from matchcut.server.catalog.room import Room
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Item

_EACH = 32_768  # bytes, at most, that a change takes on disk beside its words and vectors

_log = logging.getLogger("matchcut.catalog")


class Store:
    """The file of one catalogue, open for this process alone. One thread at a time.

    Args:
        path: of the file; made where it is missing.
        limit_bytes: the file is never let grow beyond this, log and reserve aside; 0: as far as the disk goes.

    Raises:
        StoreFailed: it is not a catalogue (reason STORE_FOREIGN), of a newer matchcut (STORE_VERSION), damaged
            (STORE_CORRUPT), or cannot be opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int = 0) -> None:
        self._path = path.absolute()
        self._log_path = self._path.with_name(f"{path.name}-wal")
        self._room = Room(self._path.with_name("reserve"))
        try:
            try:
                self._db = self._open(limit_bytes)
            except sqlite3.Error as error:
                if not (failures.no_room(error) and self._room.release()):
                    raise
                self._db = self._open(limit_bytes)
            self._inode = self._stat()
        except sqlite3.Error as error:
            raise failures.at_start(self._path, error) from error
        self._room.keep()

    def sizes(self) -> list[tuple[str, tuple[str, int], int, int]]:
        """(tenant, (digest, dimensions), segments, items) of what `items` will give, so that room can be made."""
        try:
            return [
                (tenant, (digest, dims), *counts) for tenant, digest, dims, *counts in self._db.execute(schema.SIZES)
            ]
        except sqlite3.Error as error:
            raise failures.at_start(self._path, error) from error

    def items(self) -> Iterator[Put]:
        """All items in the order of ingest.

        Raises:
            StoreFailed: a record is not what was written; the message names the item.
        """
        try:
            encoders = {
                number: EncoderIdentity(*values)
                for number, *values in self._db.execute(
                    "SELECT encoder, name, version, digest, dimensions FROM encoders"
                )
            }
            for row in self._db.execute(schema.LOAD):
                yield _read(row, encoders)
        except sqlite3.Error as error:
            raise failures.at_start(self._path, error) from error

    def apply(self, changes: Sequence[Change]) -> None:
        """Makes all of the changes, durably, or none; removals alone also on a full disk.

        Raises:
            StoreFailed: none was made; the disk failed, is full (reason STORE_FULL), or the file is gone from it
                (STORE_GONE).
        """
        if self._stat() != self._inode:
            raise failures.gone(self._path)
        removals = all(isinstance(change, Remove) for change in changes)
        try:
            if not removals and not self._fits(sum(map(_size, changes))):
                raise failures.full(self._path, removals=False)
            try:
                self._commit(changes)
            except sqlite3.Error as error:
                if not (removals and failures.no_room(error)):
                    raise
                self._commit_to_full_disk(changes)
        except sqlite3.Error as error:
            raise failures.in_service(self._path, error, removals=removals) from error
        self._room.keep()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _open(self, limit_bytes: int) -> sqlite3.Connection:
        emptied = self._path.is_file() and not self._path.stat().st_size
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=16)
        try:
            self._prepare(db, limit_bytes, emptied)
        except (sqlite3.Error, StoreFailed):
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, limit_bytes: int, emptied: bool) -> None:
        application, version, tables = (
            db.execute(question).fetchone()[0]
            for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if application != schema.APPLICATION and (application or version or tables):
            raise StoreFailed(
                f"{str(self._path)!r} is not a catalogue of matchcut; choose another folder", reason="STORE_FOREIGN"
            )
        if version > schema.VERSION:
            raise StoreFailed(
                f"{str(self._path)!r} was written by a newer matchcut (schema {version}, this one knows "
                f"{schema.VERSION}); run the newer one, or choose another folder",
                reason="STORE_VERSION",
            )
        if emptied and not version:
            _log.warning(
                "%r is empty (0 bytes), a new catalogue begins in it; if it held items, restore it from a copy",
                str(self._path),
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if not version:
            db.executescript(schema.SCHEMA)
        if limit_bytes:
            page = db.execute("PRAGMA page_size").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {max(1, limit_bytes // page)}")

    def _stat(self) -> tuple[int, int] | None:
        """What tells the file from any other; None where there is none."""
        with suppress(OSError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

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
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._write(change)
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):  # then the next change fails too, and says why
                    self._db.execute("ROLLBACK")

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

    def _write(self, change: Change) -> None:
        match change:
            case Put(tenant=tenant, known=known):
                encoder = known.encoder
                identity = encoder.name, encoder.version, encoder.digest, encoder.dimensions
                self._db.execute(
                    "INSERT OR IGNORE INTO encoders (name, version, digest, dimensions) VALUES (?, ?, ?, ?)", identity
                )
                ranges, vectors = change.ranges.astype("<i8").tobytes(), change.vectors.astype("<f4").tobytes()
                size = len(change.vectors), _checksum(ranges, vectors)
                row = tenant, known.item.item_id, *_words(known.item), known.content, *size, ranges, vectors, *identity
                self._db.execute(schema.PUT, row)
            case Amend(tenant=tenant, item=item):
                self._db.execute(schema.AMEND, (*_words(item), tenant, item.item_id))
            case Remove(tenant=tenant, item_id=item_id):
                self._db.execute("DELETE FROM items WHERE tenant = ? AND item_id = ?", (tenant, item_id))


def _size(change: Change) -> int:
    """Bytes, at most, that a change takes on disk: in the log, and once more in the file."""
    match change:
        case Put(known=known, ranges=ranges, vectors=vectors):
            size = ranges.nbytes + vectors.nbytes + _length(known.item)
        case Amend(item=item):
            size = _length(item)
        case Remove():
            size = 0
    return _EACH + size + size // 64


def _length(item: Item) -> int:
    return 4 * sum(len(str(word)) for word in _words(item))  # UTF-8


def _words(item: Item) -> tuple[str, str, str, str, int]:
    tags, attributes = json.dumps(item.tags), json.dumps(dict(item.attributes))
    return item.title, item.uri, tags, attributes, item.duration_us


def _checksum(ranges: bytes, vectors: bytes) -> int:
    return crc32(vectors, crc32(ranges))


def _read(row: tuple, encoders: dict[int, EncoderIdentity]) -> Put:  # type: ignore[type-arg]
    tenant, item_id, title, uri, tags, attributes, duration_us, content, segments, checksum, *blobs, number = row
    ranges, vectors = blobs
    encoder = encoders.get(number)
    sound = encoder is not None and (len(ranges), len(vectors)) == (segments * 16, segments * encoder.dimensions * 4)
    if encoder is None or not sound or _checksum(ranges, vectors) != checksum:
        raise StoreFailed(
            f"the record of item {item_id!r} of tenant {tenant!r} is damaged; restore the catalogue from a copy, or "
            "delete that record and ingest the item again",
            reason="STORE_CORRUPT",
        )
    item = Item(item_id, title, uri, tuple(json.loads(tags)), json.loads(attributes), duration_us)
    return Put(
        tenant,
        Known(item, encoder, content),
        np.frombuffer(ranges, "<i8").reshape(segments, 2),
        np.frombuffer(vectors, "<f4").reshape(segments, encoder.dimensions),
    )
