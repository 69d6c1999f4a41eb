"""Many calls share a commit; a failure leaves nothing half done; a file that is not right is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from matchcut.server.errors import StoreFailed, Unavailable
from matchcut.server.events import EventLog, open_log, read_log
from matchcut.server.events.changing import Change
from matchcut.server.events.scrub import filled
from matchcut.server.events.store import Store
from matchcut.server.records import Event, EventKind

Make = Callable[..., Event]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.sqlite"


@pytest.fixture
def held(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EventLog, list[int], threading.Event]]:
    """A log whose writer waits until the flag is set; how many rows each transaction has appended."""
    gate, sizes = threading.Event(), list[int]()
    append = Change.append

    def counted(self: Change, tenant: Any, wanted: Any) -> list[bool]:
        sizes.append(len(wanted))
        if any(row.item_id == "bad" for row in wanted):
            raise sqlite3.OperationalError("as told")
        return append(self, tenant, wanted)

    monkeypatch.setattr(Change, "append", counted)
    writer = log._writer  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        entered = threading.Event()

        def wait() -> None:
            entered.set()
            assert gate.wait(30)

        pool.submit(writer.alone, wait)
        assert entered.wait(30)
        yield log, sizes, gate
        gate.set()


def together(log: EventLog, gate: threading.Event, calls: list[tuple[str, list[Event]]]) -> list[Any]:
    """What becomes of calls that wait for the writer together, in that order."""
    queue = log._writer._queue  # type: ignore[attr-defined]
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        for at, (tenant, events) in enumerate(calls):
            futures.append(pool.submit(log.append, tenant, events))
            while queue.qsize() <= at:
                assert not futures[-1].done()
        gate.set()
        return [future.exception() or future.result() for future in futures]


def test_what_waits_goes_into_one_commit(held: tuple[EventLog, list[int], threading.Event], make: Make) -> None:
    log, sizes, gate = held
    calls = [("", [make(f"{at}-{n}", f"u{n}") for n in range(at)]) for at in range(1, 6)]
    calls += [("t", [make("1-0")]), ("", [make("1-0"), make("new"), make("new")]), ("", [make("new")])]
    done = together(log, gate, calls)
    assert sizes == [15 + 3 + 1, 1]
    assert [(len(one.logged), one.duplicates) for one in done] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (5, 0),
        (1, 0),
        (1, 2),
        (0, 1),
    ]


def test_one_bad_call_does_not_spoil_the_others(held: tuple[EventLog, list[int], threading.Event], make: Make) -> None:
    log, sizes, gate = held
    calls = [("", [make("1")]), ("t", [make("2", item="bad"), make("3")]), ("", [make("4")])]
    first, second, third = together(log, gate, calls)
    assert sizes == [2, 2, 1, 2, 1]
    assert isinstance(second, StoreFailed)
    assert [len(one.logged) for one in (first, third)] == [1, 1]
    assert log.sizes().events == 2
    assert log.events(log.key("t", "ann")) == []
    assert len(log.append("t", [make("3")]).logged) == 1  # the tenant was not half made


def test_a_commit_has_a_limit(held: tuple[EventLog, list[int], threading.Event], make: Make) -> None:
    log, sizes, gate = held
    together(log, gate, [("", [make(f"{at}-{n}", f"u{n % 9}") for n in range(3000)]) for at in range(5)])
    assert sizes == [9000, 6000]


def test_the_limit_is_met(path: Path, make: Make) -> None:
    with closing(open_log(path, days=0, limit_bytes=400_000)) as log:
        fill(log, make, "a")
        before = log.sizes()
        assert path.stat().st_size <= 400_000
        with pytest.raises(StoreFailed):
            log.append("new", [make(f"n{at}") for at in range(4000)])
        assert log.sizes().events == before.events
        assert log.forget("", "u1").events > 0
        assert len(log.append("", [make("again", "u1")]).logged) == 1
    with closing(open_log(path, days=0)) as log:
        assert log.sizes().events == len(list(read_log(path)))
        check(path)


def fill(log: EventLog, make: Make, prefix: str) -> None:
    """Appends until there is no room."""
    with pytest.raises(StoreFailed, match="retention") as caught:  # noqa: PT012
        for at in range(10_000):
            log.append("", [make(f"{prefix}{at}-{n}", f"u{n % 50}", f"i{n}") for n in range(300)])
    assert caught.value.reason == "STORE_FULL"


def check(path: Path) -> None:
    """The file is whole, and its numbers are those of its rows."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = "SELECT count(*), count(DISTINCT tenant || hex(user)) FROM events"
        assert db.execute("SELECT sum(events), sum(users) FROM tenants").fetchall() == db.execute(counted).fetchall()
        pairs = "SELECT count(*) FROM (SELECT DISTINCT tenant, user, item_id FROM events)"
        assert db.execute("SELECT sum(users) FROM tallies").fetchall() == db.execute(pairs).fetchall()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here, so that none can be filled: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, make: Make) -> None:
    path, hog = small_disk / "events.sqlite", small_disk / "hog"
    with closing(open_log(path, days=0)) as log:
        log.append("", [make(f"{at}", f"u{at % 50}") for at in range(1000)])
        with hog.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        assert os.statvfs(small_disk).f_bavail == 0
        fill(log, make, "b")
        kept = log.sizes().events
        assert kept >= 1000
        assert sum(len(log.events(log.key("", f"u{at}"))) for at in range(50)) == kept
        hog.unlink()
        assert len(log.append("", [make("new", "u1")]).logged) == 1
        assert log.forget("", "u2").events > 0
    check(path)


@pytest.mark.parametrize("how", ["moved", "replaced", "log deleted"])
def test_the_file_is_gone(path: Path, make: Make, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """It stays so until a restart, which finds all that was acknowledged if the file is put back.

    A log of changes that was deleted alone is copied into the file by SQLite as it closes that.
    """
    gone = threading.Event()
    elsewhere = path.with_name("elsewhere")
    with closing(open_log(path, days=0, gone=gone.set)) as log:
        log.append("", [make("1")])
        if how == "log deleted":
            path.with_name("events.sqlite-wal").unlink()
        else:
            path.rename(elsewhere)
        if how == "replaced":
            path.write_bytes(elsewhere.read_bytes())
        for call in (
            lambda: log.append("", [make("2")]),
            lambda: log.append("", [make("1")]),  # which is there
            lambda: log.forget("", "ann"),
        ):
            with pytest.raises(Unavailable, match="put it back") as caught:
                call()
            assert caught.value.reason == "STORE_GONE"
            assert str(path) not in caught.value.message
        if how != "log deleted":
            elsewhere.replace(path)
        with pytest.raises(Unavailable, match="restart"):
            log.append("", [make("3")])
        assert gone.is_set()
    assert sum("nothing is kept any more" in record.getMessage() for record in caplog.records) == 1
    with closing(open_log(path, days=0)) as log:
        assert log.append("", [make("1")]).duplicates == 1


def test_a_file_that_goes_while_nothing_is_written_is_noticed(path: Path) -> None:
    gone = threading.Event()
    with closing(open_log(path, gone=gone.set)):
        path.unlink()
        assert gone.wait(30)


def test_a_file_that_goes_while_a_commit_is_made(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has committed, to a file that is nowhere: that is not acknowledged."""
    write = Change.write

    def then_gone(self: Change) -> None:
        write(self)
        path.unlink()

    with closing(open_log(path, days=0)) as log:
        monkeypatch.setattr(Change, "write", then_gone)
        with pytest.raises(Unavailable, match="gone from the disk"):
            log.append("", [make("1")])
        assert not path.exists()
        monkeypatch.undo()
        assert log.sizes().events == 0


@pytest.mark.parametrize("damage", ["noise", "cut", "header"])
def test_a_damaged_file(path: Path, make: Make, damage: str) -> None:
    with closing(open_log(path, days=0)) as log:
        log.append("", [make(f"{at}", f"u{at}") for at in range(500)])
    data = path.read_bytes()
    path.write_bytes(
        {"noise": os.urandom(len(data)), "cut": data[: len(data) // 2], "header": b"x" * 100 + data[100:]}[damage]
    )
    for work in (lambda: open_log(path), lambda: list(read_log(path))):
        with pytest.raises(StoreFailed, match="restore it from a copy") as caught:
            work()
        assert caught.value.reason == "STORE_CORRUPT"


def test_damage_that_shows_later(path: Path, make: Make) -> None:
    with closing(open_log(path, days=0)) as log:
        log.append("", [make(f"{at}", f"u{at}") for at in range(3000)])
    data = bytearray(path.read_bytes())
    data[4 * 4096 :] = b"\x55" * (len(data) - 4 * 4096)
    path.write_bytes(data)
    with closing(open_log(path, days=0)) as log:
        for call in (
            lambda: log.append("", [make("n")]),
            lambda: log.events_of([log.key("", f"u{at}") for at in range(60)]),
        ):
            with pytest.raises(StoreFailed, match=r"damaged|could not be read") as caught:
                call()
            assert caught.value.reason == "STORE_CORRUPT"
            assert str(path) not in caught.value.message


def test_something_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (note TEXT)")
        db.commit()
    for work in (lambda: open_log(path), lambda: list(read_log(path))):
        with pytest.raises(StoreFailed, match="not a log of events") as caught:
            work()
        assert caught.value.reason == "STORE_FOREIGN"


def test_a_newer_version(path: Path) -> None:
    open_log(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    for work in (lambda: open_log(path), lambda: list(read_log(path))):
        with pytest.raises(StoreFailed, match="newer matchcut") as caught:
            work()
        assert caught.value.reason == "STORE_VERSION"


def test_an_emptied_file_deserves_a_warning(path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    path.touch()
    with closing(open_log(path)) as log:
        log.append("", [make("1")])
    assert "is empty (0 bytes)" in caplog.text


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="could not be read or written"):
        open_log(tmp_path / "nowhere" / "events.sqlite")
    with pytest.raises(StoreFailed, match="no log of events") as caught:
        list(read_log(tmp_path / "nothing"))
    assert caught.value.reason == "STORE_GONE"


def test_reading_beside_writing(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of (tenant, user, time), whatever the size of the pieces; nothing is written by it."""
    monkeypatch.setattr("matchcut.server.events.reading._PIECE", 7)
    with closing(open_log(path, days=0)) as log:
        for tenant in ("b", "a", ""):
            log.append(tenant, [make(f"{at}", f"u{at % 4}", kind=EventKind.LIKE, at=at // 2) for at in range(50)])
        found = list(read_log(path))
        assert len(found) == 150
        assert [(tenant, user, event.order) for tenant, user, event in found] == sorted(
            (tenant, user, event.order) for tenant, user, event in found
        )
        for tenant in ("a", "b", ""):
            key = log.key(tenant, "u1")
            assert [event for name, user, event in found if (name, user) == key] == log.events(key)
    before = path.read_bytes()
    assert len(list(read_log(path))) == 150  # nobody else has it open
    assert path.read_bytes() == before


def test_the_log_of_changes_does_not_grow_for_ever(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.events.store._LONGEST_LOG", 100_000)
    with closing(open_log(path, days=0)) as log:
        for batch in range(30):
            log.append("", [make(f"{batch}-{at}", f"u{at}") for at in range(100)])
        log_of_changes = path.with_name(f"{path.name}-wal")
        assert path.stat().st_size > 100_000
        assert log_of_changes.stat().st_size < 400_000
        assert filled(log_of_changes) <= log_of_changes.stat().st_size // 4096
        log.forget("", "u1")
        assert filled(log_of_changes) == 0
        log.append("", [make("new")])
        assert 0 < filled(log_of_changes) < 20
    assert filled(log_of_changes) == 0  # it is gone


def test_reading_makes_no_more_connections_than_threads(path: Path, make: Make) -> None:
    with closing(open_log(path, days=0)) as log, ThreadPoolExecutor(12) as pool:
        log.append("", [make("1")])
        key = log.key("", "ann")
        assert all(len(found) == 1 for found in pool.map(lambda _: log.events(key), range(300)))
        store: Store = log._store  # type: ignore[attr-defined]
        assert 1 <= store._readers.qsize() <= 12
