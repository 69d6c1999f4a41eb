"""The catalogue on disk: what it keeps, what it refuses to open, and what a failing disk does to it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matchcut.server.catalog import open_catalog
from matchcut.server.catalog.changes import Amend, Change, Remove
from matchcut.server.catalog.store import Store
from matchcut.server.errors import StoreFailed, Unavailable
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter, TimeRange


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there" / "yet"


@pytest.fixture
def filled(folder: Path, put: Callable[..., Any]) -> Path:
    """A folder with the items a, b and c."""
    with closing(open_catalog(folder)) as catalog:
        for item_id in "abc":
            put(catalog, item_id)
    return folder


def edit(folder: Path, *statements: str) -> None:
    """What somebody else does to the file."""
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def refused(folder: Path) -> StoreFailed:
    with pytest.raises(StoreFailed) as caught:
        open_catalog(folder)
    return caught.value


def test_a_restart_answers_the_same(folder: Path, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    with closing(open_catalog(folder)) as catalog:
        for item_id in "cadbe":
            put(catalog, item_id, segments=3)
        put(catalog, "c", seed=1)
        catalog.update("", Item("a", "näw", "", ("x", "y"), {"k": "\x00ü"}))
        catalog.remove("", "d")
        put(catalog, "a", tenant="other")
        before = catalog.view("", encoder)
        eligible = before.eligible(frozenset(), TagFilter())
        known, stored = catalog.known("", "a"), catalog.get("", "c")
    assert eligible is not None
    with closing(open_catalog(folder)) as catalog:
        after = catalog.view("", encoder)
        np.testing.assert_array_equal(after.rows, before.rows[eligible])
        assert [after.item(g) for g in after.groups.tolist()] == [
            before.item(g) for g in before.groups[eligible].tolist()
        ]
        assert after.eligible(frozenset(), TagFilter()) is None
        assert catalog.known("", "a") == known
        again = catalog.get("", "c")
        assert stored is not None
        assert again is not None
        assert (again.item, again.encoder) == (stored.item, stored.encoder)
        assert [s.range for s in again.segments] == [s.range for s in stored.segments]
        assert (catalog.count(""), catalog.count("other")) == (4, 1)
        assert put(catalog, "c", seed=1) is Outcome.UNCHANGED


def test_two_encoders_after_a_restart(folder: Path, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    other = EncoderIdentity("other", "2", "d2", 3)
    with closing(open_catalog(folder)) as catalog:
        put(catalog, "a")
        catalog.put("", Item("b"), [Segment(TimeRange(-5, 5), np.ones(3, np.float32))], other, b"b")
    with closing(open_catalog(folder)) as catalog:
        assert catalog.view("", encoder).rows.shape == (2, 6)
        view = catalog.view("", other)
        assert view.rows.tolist() == [[1.0, 1.0, 1.0]]
        assert view.range(0) == TimeRange(-5, 5)
        known = catalog.known("", "b")
        assert known is not None
        assert known.encoder == other


def test_the_file_is_written_for_keeps(filled: Path) -> None:
    with closing(sqlite3.connect(filled / "catalog.sqlite")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA application_id").fetchone() == (0x4D434154,)
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    with closing(Store(filled / "catalog.sqlite")) as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_one_process_at_a_time(filled: Path) -> None:
    with closing(open_catalog(filled)):
        error = refused(filled)
        assert error.reason == "STORE_LOCKED"
        assert f"in use by process {os.getpid()};" in error.message
    open_catalog(filled).close()


def test_a_failed_opening_lets_go_of_the_folder(filled: Path) -> None:
    edit(filled, "PRAGMA user_version = 99")
    for _ in range(2):
        assert refused(filled).reason == "STORE_VERSION"


def test_a_file_of_a_newer_version(filled: Path) -> None:
    edit(filled, "PRAGMA user_version = 3")
    error = refused(filled)
    assert error.reason == "STORE_VERSION"
    assert "newer matchcut (schema 3, this one knows 2)" in error.message


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE theirs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"]
)
def test_somebody_elses_file(folder: Path, statement: str) -> None:
    folder.mkdir(parents=True)
    edit(folder, statement)
    before = (folder / "catalog.sqlite").read_bytes()
    assert refused(folder).reason == "STORE_FOREIGN"
    assert (folder / "catalog.sqlite").read_bytes() == before


def test_a_file_that_is_no_database(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "catalog.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert refused(folder).reason == "STORE_CORRUPT"


@pytest.mark.parametrize(
    "change",
    [
        "vectors = zeroblob(48)",
        "vectors = substr(vectors, 1, 47)",
        "ranges = zeroblob(32)",
        "segments = 3",
        "checksum = checksum + 1",
        "encoder = 77",
    ],
)
def test_a_damaged_record_is_named(filled: Path, change: str) -> None:
    edit(filled, f"UPDATE items SET {change} WHERE item_id = 'b'")
    error = refused(filled)
    assert error.reason == "STORE_CORRUPT"
    assert "item 'b' of tenant ''" in error.message


def test_a_damaged_page(folder: Path, put: Callable[..., Any]) -> None:
    with closing(open_catalog(folder)) as catalog:
        for at in range(100):
            put(catalog, f"i{at}")
    file = folder / "catalog.sqlite"
    whole = bytearray(file.read_bytes())
    assert len(whole) > 6 * 4096
    whole[2 * 4096 :] = os.urandom(len(whole) - 2 * 4096)
    file.write_bytes(whole)
    assert refused(folder).reason == "STORE_CORRUPT"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be used" in refused(tmp_path / "file").message
    (tmp_path / "catalog.sqlite").mkdir()
    assert "could not be read or written" in refused(tmp_path).message


def test_an_emptied_file_is_told_of(filled: Path, put: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    file = filled / "catalog.sqlite"
    with closing(open_catalog(filled)):
        pass
    assert not caplog.records
    os.truncate(file, 0)
    for warned in (True, False):
        caplog.clear()
        with closing(open_catalog(filled)) as catalog:
            assert catalog.count("") == 0
        assert [("0 bytes" in record.message and str(file) in record.message) for record in caplog.records] == (
            [True] if warned else []
        )


@pytest.mark.parametrize("how", ["folder deleted", "file deleted", "log deleted", "folder moved", "file replaced"])
def test_a_file_that_goes_away_in_service(
    filled: Path, put: Callable[..., Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled / "catalog.sqlite"
    told: list[str] = []
    with closing(open_catalog(filled, gone=lambda: told.append("gone"))) as catalog:
        match how:
            case "folder deleted":
                shutil.rmtree(filled)
            case "file deleted":
                file.unlink()
            case "log deleted":
                (filled / "catalog.sqlite-wal").unlink()
            case "folder moved":
                filled.rename(filled.with_name("elsewhere"))
            case "file replaced":
                copy = shutil.copy(file, filled / "copy")
                Path(copy).replace(file)
        same = catalog.get("", "a")
        assert same is not None
        for change in (
            lambda: put(catalog, "new"),
            lambda: put(catalog, "a"),  # which is there: nothing would have to be written
            lambda: catalog.update("", same.item),
            lambda: catalog.remove("", "a"),
            lambda: catalog.remove("", "nothing"),
            lambda: catalog.lacks("", "a", same.encoder),
        ):
            with pytest.raises(Unavailable, match="gone from the disk") as caught:
                change()
            assert caught.value.reason == "STORE_GONE"
            assert str(filled) not in caught.value.message
        assert [str(file) in record.getMessage() for record in caplog.records] == [True], "it is logged once"
        assert told == ["gone"]
        assert catalog.count("") == 3
        assert catalog.known("", "new") is None


def test_a_file_that_goes_while_nothing_is_written_is_noticed(filled: Path) -> None:
    gone = threading.Event()
    with closing(open_catalog(filled, gone=gone.set)):
        (filled / "catalog.sqlite").unlink()
        assert gone.wait(30)


def test_a_file_that_goes_while_a_commit_is_made(
    filled: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has committed, to a file that is nowhere: that is neither acknowledged nor shown."""
    commit = Store._commit

    def then_gone(self: Store, changes: Sequence[Change]) -> None:
        commit(self, changes)
        shutil.rmtree(filled)

    monkeypatch.setattr(Store, "_commit", then_gone)
    with closing(open_catalog(filled)) as catalog:
        with pytest.raises(Unavailable, match="gone from the disk"):
            put(catalog, "new")
        assert not filled.exists()
        assert catalog.known("", "new") is None


def test_a_folder_that_may_not_be_looked_into_is_still_there(
    filled: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: str) -> os.stat_result:
        asked.append(path)
        raise PermissionError(errno.EACCES, "no", path)

    asked: list[str] = []
    with closing(open_catalog(filled)) as catalog:
        monkeypatch.setattr("matchcut.server.disk.os", SimpleNamespace(stat=forbidden))
        put(catalog, "new")
        monkeypatch.undo()
    assert asked
    with closing(open_catalog(filled)) as catalog:
        assert catalog.known("", "new") is not None


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (sqlite3.SQLITE_FULL, "STORE_FULL", "no room left for the catalogue"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "STORE_FULL", "no room left for the catalogue"),
        (sqlite3.SQLITE_CORRUPT, "STORE_CORRUPT", "is damaged"),
        (sqlite3.SQLITE_IOERR_WRITE, "STORE_FAILED", "could not be written"),
    ],
)
def test_callers_are_not_told_the_path(
    filled: Path,
    put: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    reason: str,
    message: str,
) -> None:
    def fail(store: Store, changes: Sequence[Change]) -> None:
        error = sqlite3.OperationalError("as told")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(Store, "_commit", fail)
    with closing(open_catalog(filled)) as catalog:
        for change in (lambda: put(catalog, "new"), lambda: catalog.remove("", "a")):
            caplog.clear()
            with pytest.raises(StoreFailed, match=message) as caught:
                change()
            assert caught.value.reason == reason
            assert "nothing was changed" in caught.value.message
            assert str(filled) not in caught.value.message
            assert str(filled / "catalog.sqlite") in caplog.text
        assert catalog.count("") == 3


def test_a_full_disk(folder: Path, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    with closing(open_catalog(folder, limit_bytes=300_000)) as catalog:
        for at in range(5):
            put(catalog, f"i{at}", segments=1000)  # 40 kB each
        view = catalog.view("", encoder)
        for item_id in ("new", "i0"):  # what is there stays where its successor does not fit
            with pytest.raises(StoreFailed, match="no room left") as caught:
                put(catalog, item_id, seed=1, segments=5000)
            assert caught.value.reason == "STORE_FULL"
        assert catalog.get("", "new") is None
        assert catalog.count("") == 5
        assert catalog.view("", encoder) is view
        stored = catalog.get("", "i0")
        assert stored is not None
        assert stored.item.attributes == {"seed": "0"}
        assert all(catalog.remove("", f"i{at}") for at in range(1, 5))
        assert put(catalog, "new", segments=5000) is Outcome.CREATED
    with closing(open_catalog(folder)) as catalog:
        assert [item.item_id for item in catalog.page("", after="", size=9, tags=TagFilter())[0]] == ["i0", "new"]
        assert put(catalog, "more", segments=5000) is Outcome.CREATED


def test_a_change_that_cannot_be_written_takes_the_others_back(filled: Path) -> None:
    bad = Amend("", Item("b", "\ud800"))  # no UTF-8 can hold this
    with closing(Store(filled / "catalog.sqlite")) as store:
        with pytest.raises(UnicodeEncodeError):
            store.apply([Remove("", "a"), bad])
        assert [put.item_id for put in store.items()] == ["a", "b", "c"]
        store.apply([Remove("", "b")])
    with closing(open_catalog(filled)) as catalog:
        assert catalog.count("") == 2
