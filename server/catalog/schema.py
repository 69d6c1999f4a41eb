"""How the catalogue lies in its SQLite file, and the statements that read and write it."""

from __future__ import annotations

APPLICATION = 0x4D434154  # "MCAT", in the header of the file
VERSION = 1

# `seq` is the order of ingest. Numbers in blobs are little-endian; ranges are pairs of int64, vectors rows of float32.
SCHEMA = f"""
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
PUT = """
INSERT OR REPLACE INTO items (tenant, item_id, title, uri, tags, attributes, duration_us, content, segments, checksum,
    ranges, vectors, encoder)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    (SELECT encoder FROM encoders WHERE name = ? AND version = ? AND digest = ? AND dimensions = ?))
"""
AMEND = """
UPDATE items SET title = ?, uri = ?, tags = ?, attributes = ?, duration_us = ? WHERE tenant = ? AND item_id = ?
"""
LOAD = """
SELECT tenant, item_id, title, uri, tags, attributes, duration_us, content, segments, checksum, ranges, vectors, encoder
FROM items ORDER BY seq
"""
SIZES = """
SELECT tenant, digest, dimensions, sum(segments), count(*) FROM items JOIN encoders USING (encoder) GROUP BY 1, 2, 3
"""
