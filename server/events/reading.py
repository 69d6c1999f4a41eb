"""Reads a log that a server may be writing to: for training, evaluation and checks, in another process.

Nothing is ever written to the file. Each piece is read at one moment of its own, and nothing is kept in between:
neither appends nor deletions wait for it, and a user who is forgotten meanwhile is gone from what follows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from matchcut.server.events import receipts, rows, schema
from matchcut.server.events.store import KIND, reader
from matchcut.server.events.strengths import UNIT
from matchcut.server.records import Exposure, Logged, Receipt

_PIECE = 10_000  # events that are read at once
_EXPOSURES = 1000


def read_log(path: Path) -> Iterator[tuple[str, bytes, Logged]]:
    """(tenant, user's digest, event) in the order of (tenant, user, time, event's digest).

    Args:
        path: of the file.

    Raises:
        StoreFailed: there is none (reason STORE_GONE), it is damaged (STORE_CORRUPT), or not a log of this version.
    """
    for tenant, user, event, _, _ in _events(path, "1"):
        yield tenant, user, event


def read_answers(path: Path) -> Iterator[tuple[str, bytes, str, Logged]]:
    """(tenant, user's digest, recommendation, event) of the events that name the list which showed the item.

    recommendation: hexadecimal digest, that which Exposure.recommendation_id is in read_exposures(). Order and errors
    as of read_log().
    """
    for tenant, user, event, _, recommendation in _events(path, "recommendation NOTNULL"):
        yield tenant, user, recommendation.hex(), event


def read_sessions(path: Path) -> Iterator[tuple[str, bytes, str, Logged]]:
    """(tenant, user's digest, session, event) of all events; session: hexadecimal digest, "" where there was none.

    Order and errors as of read_log().
    """
    for tenant, user, event, session, _ in _events(path, "1"):
        yield tenant, user, (session or b"").hex(), event


def read_exposures(path: Path) -> Iterator[tuple[str, bytes, Exposure]]:
    """(tenant, user's digest, list that was shown) in the order of (tenant, user, time).

    recommendation_id is the hexadecimal digest that the id has become. Errors as of read_log().
    """
    columns = "user, time_us, exposure, recommendation, experiment, variant, model, shown"
    pieces = _pieces(path, columns, "exposures", ("user", "time_us", "exposure"), "1", _EXPOSURES)
    for tenant, (user, time_us, _, recommendation, experiment, variant, model, shown) in pieces:
        listed = rows.read_shown(shown)
        yield tenant, user, Exposure(recommendation.hex(), time_us, experiment, variant, model, listed)


def read_receipts(path: Path) -> Iterator[Receipt]:
    """Receipts of all deletions, by time. One whose digest is not that of its numbers is left out.

    Errors as of read_log().
    """
    with closing(reader(path)) as db:
        for events, exposures, time_us, nonce, digest in _ask(
            db, path, "SELECT events, exposures, time_us, nonce, digest FROM receipts ORDER BY time_us, digest", ()
        ):
            made = receipts.receipt(events, exposures, time_us, nonce)
            if made.digest == digest.hex():
                yield made


def _events(path: Path, where: str) -> Iterator[tuple[str, bytes, Logged, bytes | None, bytes]]:
    columns = "user, time_us, event, item_id, kind, strength, session, recommendation"
    for tenant, (user, time_us, event, item_id, kind, strength, session, recommendation) in _pieces(
        path, columns, "events", ("user", "time_us", "event"), where, _PIECE
    ):
        logged = Logged(time_us, event, item_id, schema.KINDS[kind - 1], strength / UNIT)
        yield tenant, user, logged, session, recommendation


def _pieces(
    path: Path, columns: str, table: str, order: Sequence[str], where: str, size: int
) -> Iterator[tuple[str, Any]]:
    """(tenant, row) in the order of the columns `order`, which begin each row; tenants in the order of their names."""
    key = ", ".join(order)
    statement = (
        f"SELECT {columns} FROM {table} WHERE tenant = ? AND ({key}) > (?, ?, ?) AND {where} "
        f"ORDER BY {key} LIMIT {size}"
    )
    with closing(reader(path)) as db:
        for number, name in _ask(db, path, "SELECT tenant, name FROM tenants ORDER BY name", ()):
            after: tuple[Any, ...] = (b"", -1, b"")
            while found := _ask(db, path, statement, (number, *after)):
                yield from ((name, row) for row in found)
                after = found[-1][: len(order)]


def _ask(db: sqlite3.Connection, path: Path, statement: str, parameters: Sequence[Any]) -> list[Any]:
    try:
        return db.execute(statement, parameters).fetchall()
    except sqlite3.Error as error:
        raise KIND.at_start(path, error) from error
