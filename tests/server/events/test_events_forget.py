"""Who is forgotten leaves no byte behind."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from matchcut.server.errors import StoreFailed
from matchcut.server.events import EventLog, open_log, read_exposures, read_log, read_receipts
from matchcut.server.events.schema import PAGE
from matchcut.server.events.scrub import Scrubber, _gap
from matchcut.server.events.store import Store
from matchcut.server.records import Event, EventKind, Exposure, Receipt, Shown

Make = Callable[..., Event]
ANN = "ann-\u00e9-1234567890"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.sqlite"


@pytest.fixture
def crowd(path: Path, make: Make) -> Iterator[EventLog]:
    """A log of 1,000 users whose events came mixed and were cut back to 20 each: pages were split and merged."""
    with closing(open_log(path, days=0, user_events=20)) as log:
        mix(log, make, range(40))
        yield log


def mix(log: EventLog, make: Make, batches: range) -> None:
    """500 events of those users for each of the batches."""
    for batch in batches:
        chance = random.Random(batch)
        log.append(
            "t",
            [
                make(f"e{batch}-{at}", user(chance), f"item-{'x' * chance.randrange(60)}", at=chance.randrange(10**9))
                for at in range(500)
            ],
        )


def user(chance: random.Random) -> str:
    return f"u{min(chance.randrange(1000), int(chance.paretovariate(0.5)))}"


def in_gaps(path: Path, digests: set[bytes]) -> set[bytes]:
    """Which of them are where SQLite has nothing."""
    data = path.read_bytes()
    gaps = [data[gap.start : gap.stop] for at in range(PAGE, len(data), PAGE) if (gap := _gap(data, at))]
    return {gap[at : at + 16] for gap in gaps if gap.strip(b"\0") for at in range(len(gap) - 15)} & digests


def find(folder: Path, needles: Iterable[bytes]) -> set[bytes]:
    """Which of them are in any file of the folder."""
    held = b"\xff".join(file.read_bytes() for file in folder.iterdir())
    return {needle for needle in needles if needle in held}


def test_nothing_is_left_of_a_user(crowd: EventLog, path: Path, make: Make) -> None:
    victims = [f"u{at}" for at in range(1, 11)]
    for at, user in enumerate(victims):
        crowd.expose(crowd.key("t", user), Exposure(f"r{at}", 5, "e", "v", "m", (Shown("x", 0, 1.0, 1.0),)))
    time.sleep(0.6)
    wanted: set[bytes] = set()
    for user in victims:
        key = crowd.key("t", user)
        kept = crowd.events(key)
        wanted |= {key.digest, *(event.digest for event in kept)}
        assert kept
    assert find(path.parent, wanted) == wanted
    gone = [crowd.forget("t", user) for user in victims]
    assert all(receipt.events > 0 and receipt.exposures == 1 for receipt in gone)
    assert find(path.parent, wanted) == set()
    # Nor does it come back with what is written from now on: not to the log of changes, nor to the file.
    crowd.append("t", [make(f"n{at}", f"u{11 + at % 989}", f"item-{at % 50}", at=at) for at in range(3000)])
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    assert find(path.parent, wanted) == set()
    crowd.close()
    assert find(path.parent, wanted) == set()
    assert find(path.parent, {digest.hex().encode() for digest in wanted}) == set()


def test_what_sqlite_leaves_behind_is_wiped(
    crowd: EventLog, path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves copies of rows in pages that were split or merged; who has some there is forgotten with and without."""
    left: set[bytes] = set()
    with monkeypatch.context() as patch:
        patch.setattr(Scrubber, "clean", lambda self, pages: 0)
        for more in range(30):  # where rows lie depends on the log's secret key: now and then none is left at first
            owners = {event.digest: f"u{at}" for at in range(1000) for event in crowd.events(crowd.key("t", f"u{at}"))}
            crowd.forget("t", "nobody")  # all is in the file now
            gaps = in_gaps(path, set(owners))
            for name in {owners[digest] for digest in gaps}:
                crowd.forget("t", name)
            if left := find(path.parent, gaps):
                break
            mix(crowd, make, range(100 + 5 * more, 105 + 5 * more))
        assert left
    crowd.forget("t", "nobody")
    assert find(path.parent, left) == set()


def test_after_a_restart_too(crowd: EventLog, path: Path) -> None:
    crowd.close()
    with closing(open_log(path, days=0)) as log:
        victims = [log.key("t", f"u{at}") for at in range(30)]
        wanted = {event.digest for key in victims for event in log.events(key)} | {key.digest for key in victims}
        for at in range(30):
            log.forget("t", f"u{at}")
        assert find(path.parent, wanted) == set()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(open_log(path, days=0)) as log:
        assert log.events_of(victims) == [[]] * 30


def test_raw_ids_are_never_at_rest(path: Path, make: Make) -> None:
    ids = {name: f"{name}-of-the-very-secret-ann" for name in ("user", "event", "session", "recommendation")}
    needles = {value.encode() for value in ids.values()}
    with closing(open_log(path, days=0)) as log:
        told = Event(ids["event"], ids["user"], "visible", EventKind.LIKE, 7, ids["session"], 1.0, None, 0, "r")
        log.append("t", [told])
        key = log.key("t", ids["user"])
        log.expose(key, Exposure(ids["recommendation"], 5, "e", "v", "m", ()))
        time.sleep(0.6)
        assert find(path.parent, {b"visible", key.digest}) == {b"visible", key.digest}
        assert find(path.parent, needles) == set()
    assert find(path.parent, needles) == set()


def test_all_that_is_known_of_the_user_goes(log: EventLog, make: Make) -> None:
    log.append("", [make("1", ANN, "only", EventKind.LIKE), make("2", ANN, "both"), make("3", "bob", "both")])
    receipt = log.forget("", ANN)
    assert (receipt.events, receipt.exposures) == (2, 0)
    assert log.events(log.key("", ANN)) == []
    assert len(log.events(log.key("", "bob"))) == 1
    assert (log.sizes().events, log.sizes().users) == (1, 1)
    assert [log._store.read("SELECT json_group_array(item_id) FROM tallies", {})] == ['["both"]']  # type: ignore[attr-defined]
    again = log.append("", [make("1", ANN, "only")])
    assert (len(again.logged), again.duplicates) == (1, 0)


def test_numbers_fall(make: Make) -> None:
    with closing(open_log(None, days=0, threshold=0)) as log:
        log.append("", [make(f"{at}", f"u{at}", "x", EventKind.LIKE) for at in range(3)])
        assert log.popularity("") == {"x": 3}
        log.forget("", "u0")
        assert log.popularity("") == {"x": 2}
        assert log.counts("", ["x"], 0)[0].users == 2
        log.forget("", "u1")
        log.forget("", "u2")
        assert log.popularity("") == {}
        assert log.counts("", [], 5) == []


def test_there_is_nothing_to_forget(log: EventLog) -> None:
    first, second = log.forget("nobody", "ann"), log.forget("nobody", "ann")
    assert (first.events, first.exposures) == (0, 0)
    assert first.digest != second.digest


def test_lists_that_wait_to_be_written_go_too(path: Path, now_us: int) -> None:
    with closing(open_log(path, days=0)) as log:
        log._writer.alone(lambda: log.expose(log.key("", "ann"), Exposure("r", now_us, "", "", "", ())))  # type: ignore[attr-defined]
        log._writer.alone(lambda: log.expose(log.key("", "bob"), Exposure("s", now_us, "", "", "", ())))  # type: ignore[attr-defined]
        assert log.forget("", "ann").exposures == 1
    ((_, user, _),) = read_exposures(path)
    with closing(open_log(path)) as log:
        assert user == log.key("", "bob").digest


def test_receipts_are_kept_and_name_nobody(path: Path, make: Make, now_us: int) -> None:
    with closing(open_log(path, days=0, clock_us=lambda: now_us)) as log:
        log.append("", [make("1"), make("2")])
        receipt = log.forget("", "ann")
        assert receipt == Receipt(2, 0, now_us, receipt.digest)
        assert list(read_receipts(path)) == [receipt]
    with closing(sqlite3.connect(path)) as db:
        ((digest, nonce),) = db.execute("SELECT digest, nonce FROM receipts").fetchall()
        assert sha256(f"2 0 {now_us} ".encode() + nonce).digest() == digest
        assert digest.hex() == receipt.digest
        db.execute("UPDATE receipts SET events = 1")
        db.commit()
    assert list(read_receipts(path)) == []  # somebody has changed it


def test_while_the_user_goes_on(path: Path, make: Make) -> None:
    """What was acknowledged before is gone, what is after stays."""
    before: list[str] = []
    after: list[str] = []
    asked, done = threading.Event(), threading.Event()
    with closing(open_log(path, days=0)) as log:

        def work(thread: int) -> None:
            for at in range(60):
                name = f"{thread}-{at}"
                begun_after = done.is_set()
                log.append("", [make(name, "ann", name)])
                if not asked.is_set():
                    before.append(name)
                elif begun_after:
                    after.append(name)
                if at == 30:
                    assert done.wait(30)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        while len(before) < 30:
            time.sleep(0.001)
        told = list(before)
        asked.set()
        receipt = log.forget("", "ann")
        done.set()
        for thread in threads:
            thread.join()
        kept = {event.item_id for event in log.events(log.key("", "ann"))}
        assert receipt.events >= len(told)
        assert not kept & set(told)
        assert len(after) > 80
        assert kept >= set(after)
        assert log.append("", [make("0-59", "ann")]).duplicates == 1


def test_a_reader_in_the_way(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.events.local._PATIENCE_S", 0.3)
    with closing(open_log(path, days=0)) as log:
        log.append("", [make("1"), make("2", "bob")])
        key = log.key("", "ann")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            with pytest.raises(StoreFailed, match="call again") as caught:
                log.forget("", "ann")
            assert caught.value.reason == "STORE_BUSY"
            assert find(path.parent, {key.digest}) == {key.digest}
            assert log.events(key) == []
            log.append("", [make("3", "bob")])
            reader.execute("COMMIT")
        receipt = log.forget("", "ann")
        assert receipt.events == 1  # what the call before had deleted
        assert find(path.parent, {key.digest}) == set()
        assert log.forget("", "ann").events == 0
        assert [len(log.events(log.key("", user))) for user in ("ann", "bob")] == [0, 2]


def test_what_a_reader_held_up_is_wiped_later(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.events.local._PATIENCE_S", 0.1)
    with closing(open_log(path, days=0)) as log:
        log.append("", [make("1")])
        key = log.key("", "ann")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            with pytest.raises(StoreFailed):
                log.forget("", "ann")
        for _ in range(500):
            if not find(path.parent, {key.digest}):
                break
            time.sleep(0.01)
        assert find(path.parent, {key.digest}) == set()


def test_a_disk_without_room_for_wiping(path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told what is done and what is not, and it is done as soon as there is room."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    tried: list[str] = []

    def copy(store: Store, how: str) -> bool:
        tried.append(how)
        raise full

    with closing(open_log(path, days=0)) as log:
        log.append("", [make("1"), make("2", "bob")])
        key = log.key("", "ann")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_copy", copy)
            with pytest.raises(
                StoreFailed, match=r"is deleted, but could not be wiped.*more space, and call again"
            ) as caught:
                log.forget("", "ann")
            assert caught.value.reason == "STORE_FULL"
            time.sleep(0.6)
            assert len(tried) > 1, "in vain, in the background"
            assert find(path.parent, {key.digest}) == {key.digest}
            assert len(log.append("", [make("3", "bob")]).logged) == 1, "the rest goes on"
        for _ in range(500):
            if not find(path.parent, {key.digest}):
                break
            time.sleep(0.01)
        assert find(path.parent, {key.digest}) == set()
        assert log.forget("", "ann").events == 1  # what the call before had deleted


def test_a_reader_that_lets_go_in_time(path: Path, make: Make) -> None:
    with closing(open_log(path, days=0)) as log, closing(sqlite3.connect(path, check_same_thread=False)) as reader:
        log.append("", [make("1")])
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        timer = threading.Timer(0.4, reader.rollback)
        timer.start()
        assert log.forget("", "ann").events == 1
        timer.join()
        assert find(path.parent, {log.key("", "ann").digest}) == set()


def test_training_that_reads_meanwhile_is_not_in_the_way(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matchcut.server.events.reading._PIECE", 10)
    with closing(open_log(path, days=0)) as log:
        log.append("", [make(f"{at}", f"u{at % 5}", at=at) for at in range(100)])
        keys = sorted((log.key("", f"u{at}"), f"u{at}") for at in range(5))
        reading = read_log(path)
        first = [next(reading) for _ in range(15)]
        assert log.forget("", keys[-1][1]).events == 20
        log.append("", [make("new", keys[-2][1])])
        rest = list(reading)
        assert len(first) + len(rest) == 81
        assert [user for _, user, _ in first + rest] == sorted(user for _, user, _ in first + rest)


def test_locks_on_the_file_stay(path: Path, make: Make) -> None:
    """Another program that closes the file last must see that it is not: it would take the log of changes away."""
    with closing(open_log(path, days=0)) as log:
        log.append("", [make("1")])
        log.forget("", "bob")
        log.append("", [make("2")])
        subprocess.run([sys.executable, "-c", OTHER, str(path)], check=True)
        assert path.with_name(f"{path.name}-wal").exists()
        log.append("", [make("3")])
    with closing(open_log(path, days=0)) as log:
        assert log.sizes().events == 3
        assert len(log.events(log.key("", "ann"))) == 3


OTHER = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM events').fetchall(); db.close()"
)
