"""The record of the catalogue: an SQLite file, in which a committed change survives a power failure."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np

from matchcut.server.catalog.changes import Amend, Change, Put, Remove
from matchcut.server.catalog.contract import Known
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Item

APPLICATION = 0x4D434154  # "MCAT", in the header of the file
VERSION = 1

# `seq` is the order of ingest. Numbers in blobs are little-endian; ranges are pairs of int64, vectors rows of float32.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE encoders (
    encoder INTEGER PRIMARY KEY,
    name TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, dimensions INTEGER NOT NULL,
    UNIQUE (digest, dimensions, name, version)
);
CREATE TABLE items (
    seq INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, item_id TEXT NOT NULL,
    title TEXT NOT NULL, uri TEXT NOT NULL, tags TEXT NOT NULL, attributes TEXT NOT NULL, duration_us INTEGER NOT NULL,
    encoder INTEGER NOT NULL REFERENCES encoders, content BLOB NOT NULL,
    segments INTEGER NOT NULL, checksum INTEGER NOT NULL, ranges BLOB NOT NULL, vectors BLOB NOT NULL,
    UNIQUE (tenant, item_id)
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
_PUT = """
INSERT OR REPLACE INTO items (tenant, item_id, title, uri, tags, attributes, duration_us, content, segments, checksum,
    ranges, vectors, encoder)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    (SELECT encoder FROM encoders WHERE name = ? AND version = ? AND digest = ? AND dimensions = ?))
"""
_AMEND = """
UPDATE items SET title = ?, uri = ?, tags = ?, attributes = ?, duration_us = ? WHERE tenant = ? AND item_id = ?
"""
_LOAD = """
SELECT tenant, item_id, title, uri, tags, attributes, duration_us, content, segments, checksum, ranges, vectors, encoder
FROM items ORDER BY seq
"""
_SIZES = """
SELECT tenant, digest, dimensions, sum(segments), count(*) FROM items JOIN encoders USING (encoder) GROUP BY 1, 2, 3
"""


class Store:
    """The file of one catalogue, open for this process alone. One thread at a time.

    Args:
        path: of the file; made where it is missing.
        limit_bytes: the file is never let grow beyond this; 0: as far as the disk goes.

    Raises:
        StoreFailed: it is not a catalogue (reason STORE_FOREIGN), of a newer matchcut (STORE_VERSION), damaged
            (STORE_CORRUPT), or cannot be opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int = 0) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=16)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        try:
            self._prepare(limit_bytes)
        except sqlite3.Error as error:
            self._db.close()
            raise self._failed(error) from error
        except StoreFailed:
            self._db.close()
            raise

    def sizes(self) -> list[tuple[str, tuple[str, int], int, int]]:
        """(tenant, (digest, dimensions), segments, items) of what `items` will give, so that room can be made."""
        try:
            return [(tenant, (digest, dims), *counts) for tenant, digest, dims, *counts in self._db.execute(_SIZES)]
        except sqlite3.Error as error:
            raise self._failed(error) from error

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
            for row in self._db.execute(_LOAD):
                yield _read(row, encoders)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def apply(self, changes: Sequence[Change]) -> None:
        """Makes all of the changes, durably, or none.

        Raises:
            StoreFailed: none was made; the disk failed, or is full (reason STORE_FULL).
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                self._write(change)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):  # then the next change fails too, and says why
                    self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _prepare(self, limit_bytes: int) -> None:
        application, version, tables = (
            self._db.execute(question).fetchone()[0]
            for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if application != APPLICATION and (application or version or tables):
            raise StoreFailed(
                f"{str(self._path)!r} is not a catalogue of matchcut; choose another folder", reason="STORE_FOREIGN"
            )
        if version > VERSION:
            raise StoreFailed(
                f"{str(self._path)!r} was written by a newer matchcut (schema {version}, this one knows {VERSION}); "
                "run the newer one, or choose another folder",
                reason="STORE_VERSION",
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if not version:
            self._db.executescript(_SCHEMA)
        if limit_bytes:
            page = self._db.execute("PRAGMA page_size").fetchone()[0]
            self._db.execute(f"PRAGMA max_page_count = {max(1, limit_bytes // page)}")

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
                self._db.execute(_PUT, row)
            case Amend(tenant=tenant, item=item):
                self._db.execute(_AMEND, (*_words(item), tenant, item.item_id))
            case Remove(tenant=tenant, item_id=item_id):
                self._db.execute("DELETE FROM items WHERE tenant = ? AND item_id = ?", (tenant, item_id))

    def _failed(self, error: sqlite3.Error) -> StoreFailed:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFailed(
                f"there is no room left for {str(self._path)!r}; remove items, or give it more space",
                reason="STORE_FULL",
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreFailed(
                f"{str(self._path)!r} is damaged or no catalogue ({error}); restore it from a copy, or ingest again",
                reason="STORE_CORRUPT",
            )
        return StoreFailed(f"{str(self._path)!r} could not be read or written ({error}); see to the disk and try again")


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
