"""A full disk: nothing is put in that does not fit, what is there stays, and removals go through."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matchcut.server.catalog import Catalog, open_catalog, room
from matchcut.server.catalog.changes import Change
from matchcut.server.catalog.room import Room
from matchcut.server.catalog.store import Store
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter, TimeRange

ENCODER = EncoderIdentity("wide", "1", "wide", 1000)


def put_big(catalog: Catalog, item_id: str, segments: int = 100) -> Outcome:
    """An item of 4 kB a segment, all of its values its id's length."""
    vectors = np.full((segments, 1000), len(item_id), np.float32)
    parts = [Segment(TimeRange(at, at + 1), vector) for at, vector in enumerate(vectors)]
    return catalog.put("", Item(item_id), parts, ENCODER, item_id.encode())


def put_until_full(catalog: Catalog, prefix: str) -> list[str]:
    """The ids of what went in."""
    done: list[str] = []
    with pytest.raises(StoreFailed, match="remove items") as caught:  # noqa: PT012
        while True:
            assert put_big(catalog, f"{prefix}{len(done)}") is Outcome.CREATED
            done.append(f"{prefix}{len(done)}")
    assert caught.value.reason == "STORE_FULL"
    assert catalog.get("", f"{prefix}{len(done)}") is None
    return done


def ids(catalog: Catalog) -> set[str]:
    return {item.item_id for item in catalog.page("", after="", size=1000, tags=TagFilter())[0]}


@pytest.mark.parametrize("small_disk", [6, 40], indirect=True)
def test_a_disk_that_the_catalogue_fills(small_disk: Any) -> None:
    with closing(open_catalog(small_disk.folder / "data")) as catalog:
        first = put_until_full(catalog, "a")
        assert len(first) > 5
        for item_id in first[:4]:
            assert catalog.remove("", item_id)
        second = put_until_full(catalog, "b")
        assert len(second) >= 3
        left = {*first[4:], *second}
        assert ids(catalog) == left
    with closing(open_catalog(small_disk.folder / "data")) as catalog:
        assert ids(catalog) == left
        assert all(catalog.remove("", item_id) for item_id in left)
        assert len(put_until_full(catalog, "c")) >= len(left) - 1  # what each takes is rounded up


@pytest.mark.parametrize("small_disk", [48], indirect=True)
def test_a_disk_that_others_fill(small_disk: Any) -> None:
    folder = small_disk.folder / "data"
    reserve = folder / "reserve"
    with closing(open_catalog(folder)) as catalog:
        for at in range(20):
            put_big(catalog, f"a{at}")
        small_disk.fill()
        assert reserve.stat().st_size == 8 << 20
        put_until_full(catalog, "b")
        for item_id in ids(catalog):
            small_disk.fill()  # what the reserve gave back, too
            assert catalog.remove("", item_id)
        assert put_until_full(catalog, "c")
        small_disk.free()
        assert put_big(catalog, "d") is Outcome.CREATED
        assert reserve.stat().st_size == 8 << 20
        left = ids(catalog)
    small_disk.fill()
    with closing(open_catalog(folder)) as catalog:  # the reserve lets it start
        assert not reserve.exists()
        assert ids(catalog) == left
        assert all(catalog.remove("", item_id) for item_id in left)


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_what_is_larger_than_the_reserve_can_be_removed(small_disk: Any) -> None:
    folder = small_disk.folder / "data"
    with closing(open_catalog(folder)) as catalog:
        put_big(catalog, "large", segments=4000)  # 16 MB
    with closing(open_catalog(folder)) as catalog:
        small_disk.fill()
        assert catalog.remove("", "large")
        assert put_big(catalog, "new") is Outcome.CREATED
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] > 3000


class Full(Store):
    """A store on a disk that is full until its reserve is gone."""

    tries = 0

    def _commit(self, changes: Sequence[Change]) -> None:
        self.tries += 1
        if self._room.kept:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        super()._commit(changes)


@pytest.fixture
def full(tmp_path: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """A catalogue with the items a and b on a disk that has become full."""
    with closing(open_catalog(tmp_path)) as catalog:
        put(catalog, "a")
        put(catalog, "b")
    monkeypatch.setattr("matchcut.server.catalog.local.Store", Full)
    with closing(open_catalog(tmp_path)) as catalog:
        yield catalog


def test_a_removal_may_use_the_reserve(full: Catalog, tmp_path: Path, put: Callable[..., Any]) -> None:
    with pytest.raises(StoreFailed, match="remove items") as caught:
        put(full, "c")
    assert caught.value.reason == "STORE_FULL"
    with pytest.raises(StoreFailed):
        full.update("", Item("a", "other words"))
    assert (tmp_path / "reserve").exists()
    assert full.remove("", "a")
    assert (tmp_path / "reserve").exists()  # there was room for it again
    store = full._keeper._store  # type: ignore[attr-defined]
    assert store.tries == 4
    with closing(sqlite3.connect(":memory:")) as fresh:
        usual = fresh.execute("PRAGMA secure_delete").fetchone()
    assert store._db.execute("PRAGMA secure_delete").fetchone() == usual


def test_a_removal_that_even_the_reserve_does_not_let_through(full: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "release", lambda self: False)
    with pytest.raises(StoreFailed, match="free space on its disk") as caught:
        full.remove("", "a")
    assert caught.value.reason == "STORE_FULL"
    assert full.count("") == 2


def test_nothing_is_put_in_that_does_not_fit(
    tmp_path: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_catalog(tmp_path)) as catalog:
        for at in range(10):
            put_big(catalog, f"a{at}")
        monkeypatch.setattr(Room, "free", property(lambda self: 0))
        with pytest.raises(StoreFailed, match="remove items"):
            put_big(catalog, "b")
        assert catalog.remove("", "a0")
        assert catalog.remove("", "a1")
        assert put_big(catalog, "b") is Outcome.CREATED  # the log is there, and so are the pages of what was removed
        with pytest.raises(StoreFailed, match="remove items"):
            put_big(catalog, "c", segments=200)
        log = tmp_path / "catalog.sqlite-wal"
        monkeypatch.setattr(Room, "free", property(lambda self: 2 * 500_000 + log.stat().st_size))
        assert put_big(catalog, "c") is Outcome.CREATED


def test_space_is_put_by_and_given_back(tmp_path: Path) -> None:
    kept = Room(tmp_path / "reserve")
    assert not kept.release()
    kept.keep()
    assert kept.kept
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 8 << 20  # a hole would put nothing by
    assert Room(tmp_path / "reserve").kept
    assert kept.release()
    assert not (tmp_path / "reserve").exists()


def test_space_is_put_by_where_files_cannot_be_preallocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    kept = Room(tmp_path / "reserve")
    kept.keep()
    assert kept.kept


@pytest.mark.parametrize("how", ["little is free", "it fails"])
def test_no_space_can_be_put_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def fail(*args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if how == "it fails":
            patch.setattr(os, "posix_fallocate", fail)
        else:
            patch.setattr(Room, "free", property(lambda self: 2 * room._SIZE - 1))
        kept = Room(tmp_path / "reserve")
        kept.keep()
        kept.keep()
        assert not (tmp_path / "reserve").exists()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    kept.keep()
    assert kept.kept
    assert len(caplog.records) == 1


def test_a_disk_that_does_not_say_how_much_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < Room(tmp_path / "reserve").free < sys.maxsize
    assert Room(tmp_path / "gone" / "reserve").free == sys.maxsize
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096))
    assert Room(tmp_path / "reserve").free == sys.maxsize
