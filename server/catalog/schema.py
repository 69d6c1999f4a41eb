"""How the catalogue lies in its SQLite file, and the statements that read and write it."""

from __future__ import annotations

APPLICATION = 0x4D434154  # "MCAT", in the header of the file
VERSION = 2

# What came with version 2. `staged` is what another encoder made of items, until it takes over. `own` is the encoder
# that the last switch made the catalogue's; it has one row or none. `recipe`, of items: how the media was read, ""
# where that is not known.
_SINCE_2 = """
CREATE TABLE staged (
    tenant TEXT NOT NULL, item_id TEXT NOT NULL,
    encoder INTEGER NOT NULL REFERENCES encoders, content BLOB NOT NULL, recipe TEXT NOT NULL,
    segments INTEGER NOT NULL, checksum INTEGER NOT NULL, ranges BLOB NOT NULL, vectors BLOB NOT NULL,
    UNIQUE (tenant, item_id)
);
CREATE TABLE own (only INTEGER PRIMARY KEY CHECK (only = 1), encoder INTEGER NOT NULL REFERENCES encoders);
"""
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
    recipe TEXT NOT NULL DEFAULT '',
    UNIQUE (tenant, item_id)
);
{_SINCE_2}
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
UPGRADE = f"""
BEGIN IMMEDIATE;
ALTER TABLE items ADD COLUMN recipe TEXT NOT NULL DEFAULT '';
{_SINCE_2}
PRAGMA user_version = {VERSION};
COMMIT;
"""
ENCODER = "INSERT OR IGNORE INTO encoders (name, version, digest, dimensions) VALUES (?, ?, ?, ?)"
_NUMBER = "(SELECT encoder FROM encoders WHERE name = ? AND version = ? AND digest = ? AND dimensions = ?)"
PUT = f"""
INSERT OR REPLACE INTO items (tenant, item_id, title, uri, tags, attributes, duration_us, content, recipe, segments,
    checksum, ranges, vectors, encoder)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_NUMBER})
"""
STAGE = f"""
INSERT OR REPLACE INTO staged (tenant, item_id, content, recipe, segments, checksum, ranges, vectors, encoder)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, {_NUMBER})
"""
UNSTAGE = "DELETE FROM staged WHERE tenant = ? AND item_id = ?"
AMEND = """
UPDATE items SET title = ?, uri = ?, tags = ?, attributes = ?, duration_us = ? WHERE tenant = ? AND item_id = ?
"""
LOAD = """
SELECT tenant, item_id, title, uri, tags, attributes, duration_us, content, recipe, segments, checksum, ranges, vectors,
    encoder
FROM items ORDER BY seq
"""
STAGED = """
SELECT tenant, item_id, content, recipe, segments, checksum, ranges, vectors, encoder FROM staged
"""
SIZES = """
SELECT tenant, digest, dimensions, sum(segments), count(*) FROM items JOIN encoders USING (encoder) GROUP BY 1, 2, 3
"""
OWN = "SELECT name, version, digest, dimensions FROM own JOIN encoders USING (encoder)"
# Digest and dimensions decide which vectors are of one encoder, whatever it is called.
_SAME = "IN (SELECT encoder FROM encoders WHERE digest = ? AND dimensions = ?)"
SWITCH_SIZE = f"SELECT count(*), total(length(ranges) + length(vectors)) FROM staged WHERE encoder {_SAME}"
SWITCH = f"""
UPDATE items SET encoder = staged.encoder, content = staged.content, recipe = staged.recipe,
    segments = staged.segments, checksum = staged.checksum, ranges = staged.ranges, vectors = staged.vectors
FROM staged
WHERE staged.tenant = items.tenant AND staged.item_id = items.item_id AND staged.encoder {_SAME}
"""
UNSTAGE_ALL = "DELETE FROM staged"
SET_OWN = f"INSERT OR REPLACE INTO own (only, encoder) VALUES (1, {_NUMBER})"
