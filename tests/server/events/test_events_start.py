"""However many users there are, the log opens without reading them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from matchcut.server.events import open_log
from matchcut.server.records import Event, EventKind

Make = Callable[..., Event]
USERS = 300_000
READ = Path("/proc/self/io")


def read_bytes() -> int:
    """How much this process has read by calls, from the disk or its cache."""
    return int(READ.read_text().split("rchar:")[1].split()[0])


@pytest.mark.skipif(not READ.exists(), reason="only Linux says how much a process has read")
def test_opening_reads_next_to_nothing(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "events.sqlite"
    with closing(open_log(path, days=0)) as log:
        log.append("", [make("1", kind=EventKind.LIKE)])
        key = log.key("", "ann")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        numbers = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {USERS})"
        user = "CAST(printf('%016d', n) AS BLOB)"
        db.execute(
            f"{numbers} INSERT INTO events "
            f"SELECT 1, {user}, 1000000 + n, {user}, 'i' || n % 1000, 4, 1 << 20, NULL, NULL FROM n"
        )
        db.execute(f"{numbers} INSERT INTO pairs SELECT 1, {user}, 'i' || n % 1000, 11 FROM n")
        db.execute(f"UPDATE tenants SET events = events + {USERS}, users = users + {USERS}")
        db.commit()
    size = path.stat().st_size
    assert size > 30_000_000
    before = read_bytes()
    with closing(open_log(path)) as log:
        assert log.sizes().users == USERS + 1
        assert [event.item_id for event in log.events(key)] == ["a"]
        assert log.append("", [make("1"), make("2", "bob")]).duplicates == 1
        assert log.popularity("") == {}
        used = read_bytes() - before
    assert used < 1_000_000, f"{used} of {size} bytes were read"
