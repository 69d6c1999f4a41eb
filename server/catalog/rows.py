"""Items and vectors as rows of the catalogue's file."""

from __future__ import annotations

import json
import logging
import sqlite3
from functools import lru_cache
from zlib import crc32

import numpy as np

from matchcut.server.catalog import schema
from matchcut.server.catalog.changes import Amend, Change, Put, Remove, Stage
from matchcut.server.catalog.contract import Known
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Item

Identity = tuple[str, str, str, int]
_EACH = 32_768  # bytes, at most, that a change takes on disk beside its words and vectors

_log = logging.getLogger("matchcut.catalog")


def write(db: sqlite3.Connection, change: Change) -> None:
    """Makes a change in the transaction that is open."""
    match change:
        case Put(tenant=tenant, known=known):
            words = tenant, known.item.item_id, *_words(known.item)
            db.execute(schema.UNSTAGE, words[:2])
            db.execute(schema.ENCODER, identity(known.encoder))
            db.execute(schema.PUT, (*words, *_values(change)))
        case Stage(tenant=tenant, known=known):
            db.execute(schema.ENCODER, identity(known.encoder))
            db.execute(schema.STAGE, (tenant, known.item.item_id, *_values(change)))
        case Amend(tenant=tenant, item=item):
            db.execute(schema.AMEND, (*_words(item), tenant, item.item_id))
        case Remove(tenant=tenant, item_id=item_id):
            db.execute(schema.UNSTAGE, (tenant, item_id))
            db.execute("DELETE FROM items WHERE tenant = ? AND item_id = ?", (tenant, item_id))


def size(change: Change) -> int:
    """Bytes, at most, that a change takes on disk: in the log, and once more in the file."""
    match change:
        case Put(known=known, ranges=ranges, vectors=vectors) | Stage(known=known, ranges=ranges, vectors=vectors):
            taken = ranges.nbytes + vectors.nbytes + len(known.recipe) + _length(known.item)
        case Amend(item=item):
            taken = _length(item)
        case Remove():
            taken = 0
    return _EACH + taken + taken // 64


def identity(encoder: EncoderIdentity) -> Identity:
    """What the file knows an encoder by."""
    return encoder.name, encoder.version, encoder.digest, encoder.dimensions


def read(row: tuple, encoders: dict[int, EncoderIdentity]) -> Put:  # type: ignore[type-arg]
    """An item from a row of schema.LOAD.

    Raises:
        StoreFailed: it is not what was written.
    """
    tenant, item_id, title, uri, tags, attributes, duration_us, *values = row
    if not _sound(values, encoders):
        raise StoreFailed(
            f"the record of item {item_id!r} of tenant {tenant!r} is damaged; restore the catalogue from a copy, or "
            "delete that record and ingest the item again",
            reason="STORE_CORRUPT",
        )
    item = Item(item_id, title, uri, _tags(tags), json.loads(attributes) if attributes != "{}" else {}, duration_us)
    content, recipe, segments, _, ranges, vectors, number = values
    encoder = encoders[number]
    return Put(
        tenant,
        Known(item, encoder, content, recipe),
        np.frombuffer(ranges, "<i8").reshape(segments, 2),
        np.frombuffer(vectors, "<f4").reshape(segments, encoder.dimensions),
    )


def read_staged(row: tuple, encoders: dict[int, EncoderIdentity]) -> Stage | None:  # type: ignore[type-arg]
    """What is kept aside, from a row of schema.STAGED; None where it is damaged, as it can be made anew."""
    tenant, item_id, *values = row
    if not _sound(values, encoders):
        _log.warning("what was kept aside for item %r of tenant %r is damaged; it has to be made anew", item_id, tenant)
        return None
    put = read((tenant, item_id, "", "", "[]", "{}", 0, *values), encoders)
    return Stage(tenant, put.known, put.known.content, put.ranges, put.vectors)


def _values(change: Put | Stage) -> tuple[object, ...]:
    known, ranges, vectors = change.known, change.ranges.astype("<i8").tobytes(), change.vectors.astype("<f4").tobytes()
    counts = len(change.vectors), _checksum(ranges, vectors)
    return known.content, known.recipe, *counts, ranges, vectors, *identity(known.encoder)


def _sound(values: list, encoders: dict[int, EncoderIdentity]) -> bool:  # type: ignore[type-arg]
    _, _, segments, checksum, ranges, vectors, number = values
    encoder = encoders.get(number)
    fits = encoder is not None and (len(ranges), len(vectors)) == (segments * 16, segments * encoder.dimensions * 4)
    return fits and _checksum(ranges, vectors) == checksum


def _length(item: Item) -> int:
    return 4 * sum(len(str(word)) for word in _words(item))  # UTF-8


@lru_cache(256)  # many items have the same, in memory too
def _tags(words: str) -> tuple[str, ...]:
    return tuple(json.loads(words))


def _words(item: Item) -> tuple[str, str, str, str, int]:
    tags, attributes = json.dumps(item.tags), json.dumps(dict(item.attributes))
    return item.title, item.uri, tags, attributes, item.duration_us


def _checksum(ranges: bytes, vectors: bytes) -> int:
    return crc32(vectors, crc32(ranges))
