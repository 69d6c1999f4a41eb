"""Events and items' vectors from a server's data folder, which a server may be using meanwhile; nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from matchcut.server.catalog import FILE, Stored, rows, schema
from matchcut.server.catalog.failures import KIND
from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.records import EncoderIdentity, Floats, Segment, TimeRange
from matchcut.server.users.content import content

__all__ = ["vectors"]


def vectors(folder: Path, tenant: str) -> tuple[dict[str, Floats], EncoderIdentity]:
    """The content vector of each of the tenant's items, as rankings have it, and whose vectors they are.

    Where items are of several encoders, those of the one that the last switch made the catalogue's, else of the one
    that most of them have.

    Raises:
        NotFound: the folder holds no catalogue, or the tenant no items.
        StoreFailed: it is damaged, or cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise NotFound(f"{folder} holds no {FILE}; give a server's data folder", reason="CATALOG_NOT_FOUND")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as db:
            if KIND.check(db, path) < schema.VERSION:
                raise InvalidInput(f"{path} is of an older matchcut; start a server on it once", field="events")
            own = db.execute(schema.OWN).fetchone()
            found = list(stored(db, tenant))
    except sqlite3.Error as error:
        raise KIND.at_start(path, error) from error
    if not found:
        raise NotFound(f"tenant {tenant!r} has no items in {path}", reason="ITEMS_NOT_FOUND")
    counts: dict[EncoderIdentity, int] = {}
    for each in found:
        counts[each.encoder] = counts.get(each.encoder, 0) + 1
    encoder = EncoderIdentity(*own) if own else max(counts, key=lambda each: counts[each])
    same = encoder.digest, encoder.dimensions
    return {
        each.item.item_id: content(each)
        for each in found
        if (each.encoder.digest, each.encoder.dimensions) == same and each.segments
    }, encoder


def stored(db: sqlite3.Connection, tenant: str) -> Iterator[Stored]:
    """The tenant's items."""
    told = db.execute("SELECT encoder, name, version, digest, dimensions FROM encoders")
    encoders = {number: EncoderIdentity(*values) for number, *values in told}
    for row in db.execute(schema.LOAD):
        if row[0] == tenant:
            put = rows.read(row, encoders)
            segments = tuple(
                Segment(TimeRange(*map(int, range_)), vector)
                for range_, vector in zip(put.ranges, put.vectors, strict=True)
            )
            yield Stored(put.known.item, segments, put.known.encoder)
