"""Vectors of the next encoder: kept aside through crashes, dropped with what they were made of, switched to at once."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matchcut.kernels.device import open_device
from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.catalog.room import Room
from matchcut.server.catalog.store import Store
from matchcut.server.errors import EncoderMismatch, StoreFailed, Unavailable
from matchcut.server.records import EncoderIdentity, Floats, Item, Outcome, Segment, TagFilter, TimeRange

OLD = EncoderIdentity("old", "1", "d-old", 4)
NEW = EncoderIdentity("new", "1", "d-new", 6)
THIRD = EncoderIdentity("third", "1", "d-third", 6)
ALL = TagFilter()


def segments(encoder: EncoderIdentity, seed: int = 0, count: int = 2) -> list[Segment]:
    vectors = np.random.default_rng(seed).standard_normal((count, encoder.dimensions)).astype(np.float32)
    return [Segment(TimeRange(at, at + 1), vector) for at, vector in enumerate(vectors)]


def put(catalog: Catalog, item_id: str, seed: int = 0, tenant: str = "", recipe: str = "r") -> None:
    item = Item(item_id, f"title {seed}", tags=("t",))
    catalog.put(tenant, item, segments(OLD, seed), OLD, bytes([seed]), recipe)


def stage(
    catalog: Catalog, item_id: str, seed: int = 0, tenant: str = "", encoder: EncoderIdentity = NEW, count: int = 3
) -> Outcome:
    content = bytes([seed])
    return catalog.stage(tenant, item_id, segments(encoder, seed, count), encoder, content, "r", of=content)


def vectors(catalog: Catalog, item_id: str) -> Floats:
    stored = catalog.get("", item_id)
    assert stored is not None
    return np.stack([segment.vector for segment in stored.segments])


def test_what_is_aside_shows_nowhere_until_the_switch(catalog: Catalog) -> None:
    for item_id in "abc":
        put(catalog, item_id)
        before = vectors(catalog, item_id)
        assert stage(catalog, item_id) is Outcome.CREATED
        np.testing.assert_array_equal(vectors(catalog, item_id), before)
    assert catalog.count("") == 3
    assert catalog.view("", NEW).count == 0
    assert catalog.view("", OLD).count == 3
    sizes = catalog.sizes()
    assert (sizes.segments, sizes.items, sizes.staged) == (6, 3, 3)
    done = catalog.switch(NEW)
    assert (done.items, done.count) == (3, 3)
    assert catalog.own == NEW
    assert catalog.view("", OLD).count == 0
    view = catalog.view("", NEW)
    assert [view.item(group).item_id for group in view.groups.tolist()] == list("aaabbbccc")
    for item_id in "abc":
        np.testing.assert_array_equal(vectors(catalog, item_id), [s.vector for s in segments(NEW, count=3)])
    known = catalog.known("", "a")
    assert known is not None
    assert (known.item.title, known.item.tags, known.encoder, known.content) == ("title 0", ("t",), NEW, b"\0")
    assert catalog.sizes().staged == 0


def test_an_item_that_is_replaced_or_removed_loses_what_was_aside(catalog: Catalog) -> None:
    for item_id in "abcd":
        put(catalog, item_id)
        stage(catalog, item_id)
    put(catalog, "a", seed=1)
    catalog.remove("", "b")
    put(catalog, "b")
    catalog.update("", Item("c", "other words"))
    catalog.put("", Item("d", "title 0"), segments(OLD), OLD, b"\0")  # the same content: the same item
    assert [catalog.lacks("", item_id, NEW) for item_id in "abcd"] == [True, True, False, False]
    assert catalog.lacking(NEW).first == (("", "a"), ("", "b"))
    with pytest.raises(EncoderMismatch, match="'a' was replaced") as caught:
        stage(catalog, "a")
    assert caught.value.reason == "ITEM_CHANGED"
    assert stage(catalog, "a", seed=1) is Outcome.CREATED


def test_a_switch_waits_for_all_tenants_unless_it_is_forced(catalog: Catalog) -> None:
    put(catalog, "a")
    put(catalog, "x", tenant="other")
    stage(catalog, "a")
    with pytest.raises(EncoderMismatch, match="1 of 2 items have no vectors of 'new' yet, such as 'x' of tenant 'ot"):
        catalog.switch(NEW)
    assert catalog.own is None
    assert catalog.view("", OLD).count == 1
    done = catalog.switch(NEW, force=True)
    assert (done.items, done.count) == (2, 1)
    assert catalog.view("", NEW).count == 1
    assert catalog.view("other", OLD).count == 1
    assert catalog.view("other", NEW).count == 0


def test_what_comes_after_the_switch_is_the_items_own_at_once(catalog: Catalog) -> None:
    put(catalog, "a")
    catalog.switch(NEW, force=True)
    assert stage(catalog, "a") is Outcome.REPLACED
    assert catalog.view("", NEW).count == 1
    assert stage(catalog, "a") is Outcome.UNCHANGED


def test_what_is_aside_of_another_encoder_goes(catalog: Catalog) -> None:
    put(catalog, "a")
    stage(catalog, "a", encoder=THIRD)
    assert catalog.lacks("", "a", NEW)
    stage(catalog, "a")
    assert catalog.lacks("", "a", THIRD)
    stage(catalog, "a", encoder=THIRD)
    catalog.switch(NEW, force=True)
    assert catalog.lacks("", "a", THIRD)
    assert catalog.view("", OLD).count == 1


def test_an_edition_stays_as_it_is_at_the_switch(catalog: Catalog) -> None:
    put(catalog, "a")
    stage(catalog, "a")
    edition = catalog.edition()
    put(catalog, "b")
    assert edition.view("", OLD).count == 2  # it follows until the switch
    done = catalog.switch(NEW, force=True)
    catalog.remove("", "b")
    put(catalog, "c")
    for view in (edition.view("", OLD), edition.view("", NEW)):
        assert view.count == (2 if view.rows.shape[1] == 4 else 0)
    old, new = edition.get("", "a"), done.edition.get("", "a")
    assert old is not None
    assert new is not None
    assert (old.encoder, new.encoder) == (OLD, NEW)
    assert done.edition.get("", "b") is None
    assert done.edition.get("", "c") is not None


def test_it_is_there_after_a_restart_and_so_is_the_switch(tmp_path: Path) -> None:
    with closing(open_catalog(tmp_path)) as catalog:
        for item_id in "cab":
            put(catalog, item_id)
            stage(catalog, item_id)
        stage(catalog, "b", count=5)
        put(catalog, "c", seed=1)
    with closing(open_catalog(tmp_path)) as catalog:
        assert catalog.own is None
        assert catalog.lacking(NEW).first == (("", "c"),)
        stage(catalog, "c", seed=1)
        catalog.switch(NEW)
        before = catalog.view("", NEW)
    with closing(open_catalog(tmp_path)) as catalog:
        after = catalog.view("", NEW)
        assert catalog.own == NEW
        assert catalog.sizes().staged == 0
        np.testing.assert_array_equal(after.rows, before.rows)
        assert [after.item(g) for g in after.groups.tolist()] == [before.item(g) for g in before.groups.tolist()]
        assert len(vectors(catalog, "b")) == 5
        known = catalog.known("", "c")
        assert known is not None
        assert (known.content, known.recipe) == (b"\1", "r")
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM staged").fetchone() == (0,)


# Lets two encoders take turns over 24 items. All vectors of round n are n, and each item says its round in its content.
CHILD = """
import sys
from pathlib import Path
import numpy as np
from matchcut.server.catalog import open_catalog
from matchcut.server.records import EncoderIdentity, Item, Segment, TimeRange

catalog = open_catalog(Path(sys.argv[1]))
known = catalog.known("", "0")
turn = int(known.content) if known else 0

def made(turn):
    encoder = EncoderIdentity("e", "1", f"e{turn % 2}", 200 + turn % 2)
    return [Segment(TimeRange(0, 1), np.full(encoder.dimensions, turn, np.float32))], encoder, str(turn).encode()

for at in range(24 if known is None else 0):
    catalog.put("", Item(str(at)), *made(turn))
while True:
    for at in range(24):
        present = catalog.known("", str(at)).content
        catalog.stage("", str(at), *made(turn + 1), of=present)
        print("staged", flush=True)
    turn += 1
    catalog.switch(made(turn)[1])
    print("switched", turn, flush=True)
"""


@pytest.mark.parametrize("lines", [7, 24, 25, 63])
def test_a_kill_leaves_all_of_a_switch_or_nothing_of_it(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        assert all(said), "the child died by itself"
        child.kill()
        said += [line for line in child.stdout if line.endswith("\n")]
    assert child.returncode == -9
    turns = [int(line.split()[1]) for line in said if line.startswith("switched")]
    staged = len(said) - 1 - max((at for at, line in enumerate(said) if line.startswith("switched")), default=-1)
    with closing(open_catalog(tmp_path)) as catalog:
        contents = {known.content for at in range(24) if (known := catalog.known("", str(at))) is not None}
        assert len(contents) == 1, "half of a switch"
        turn = int(next(iter(contents)))
        last = turns[-1] if turns else 0
        assert turn - last in (0, 1)  # the next one may be durable too, though nobody was told
        encoder = EncoderIdentity("e", "1", f"e{turn % 2}", 200 + turn % 2)
        assert (catalog.view("", encoder).rows == turn).all()
        assert catalog.view("", encoder).count == 24
        following = EncoderIdentity("e", "1", f"e{(turn + 1) % 2}", 200 + (turn + 1) % 2)
        if turn == last:
            assert catalog.readiness(following).ready in (staged, staged + 1)
        else:
            assert catalog.own == encoder


VERSION_1 = """
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
PRAGMA application_id = 1296253268;
PRAGMA user_version = 1;
"""


def test_a_catalogue_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    with closing(open_catalog(tmp_path / "now")) as catalog:
        put(catalog, "a")
    with closing(sqlite3.connect(tmp_path / "now" / "catalog.sqlite")) as db:
        (row,) = db.execute(
            "SELECT seq, tenant, item_id, title, uri, tags, attributes, duration_us, encoder, content, segments, "
            "checksum, ranges, vectors FROM items"
        )
    folder = tmp_path / "then"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as db:
        db.executescript(VERSION_1)
        db.execute("INSERT INTO encoders VALUES (1, 'old', '1', 'd-old', 4)")
        db.execute(f"INSERT INTO items VALUES ({', '.join('?' * len(row))})", row)
        db.commit()
    for _ in range(2):
        with closing(open_catalog(folder)) as catalog:
            known = catalog.known("", "a")
            assert known is not None
            assert (known.item.title, known.encoder, known.content, known.recipe) == ("title 0", OLD, b"\0", "")
            stage(catalog, "a")
    with closing(open_catalog(folder)) as catalog:
        assert not catalog.lacks("", "a", NEW)


def test_what_is_damaged_aside_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(open_catalog(tmp_path)) as catalog:
        for item_id in "ab":
            put(catalog, item_id)
            stage(catalog, item_id)
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as db:
        db.execute("UPDATE staged SET vectors = zeroblob(length(vectors)) WHERE item_id = 'a'")
        db.commit()
    with caplog.at_level(logging.WARNING, "matchcut.catalog"), closing(open_catalog(tmp_path)) as catalog:
        assert "what was kept aside for item 'a' of tenant '' is damaged" in caplog.text
        assert catalog.lacking(NEW).first == (("", "a"),)
        catalog.switch(NEW, force=True)
    with closing(open_catalog(tmp_path)) as catalog:  # nothing of it came back
        assert [catalog.lacks("", item_id, NEW) for item_id in "ab"] == [True, False]
        np.testing.assert_array_equal(vectors(catalog, "a"), [s.vector for s in segments(OLD)])


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_catalog(tmp_path)) as catalog:
        put(catalog, "a")
        stage(catalog, "a")
        with monkeypatch.context() as patch:
            patch.setattr(Room, "free", property(lambda room: 4096))
            with pytest.raises(StoreFailed, match="no room left") as caught:
                catalog.switch(NEW)
        assert caught.value.reason == "STORE_FULL"
        assert catalog.own is None
        assert catalog.view("", OLD).count == 1
        catalog.switch(NEW)
        assert catalog.view("", NEW).count == 1


def test_a_file_that_is_gone_is_not_switched(tmp_path: Path) -> None:
    with closing(open_catalog(tmp_path)) as catalog:
        put(catalog, "a")
        stage(catalog, "a")
        (tmp_path / "catalog.sqlite").rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable) as caught:
            catalog.switch(NEW)
        assert caught.value.reason == "STORE_GONE"
        assert catalog.view("", OLD).count == 1


def test_changes_wait_for_a_switch_and_readers_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, opened = threading.Event(), threading.Event()
    honest = Store.switch

    def held(store: Store, encoder: EncoderIdentity) -> None:
        entered.set()
        assert opened.wait(30)
        honest(store, encoder)

    monkeypatch.setattr(Store, "switch", held)
    with closing(open_catalog(tmp_path)) as catalog, ThreadPoolExecutor(2) as threads:
        put(catalog, "a")
        stage(catalog, "a")
        switching = threads.submit(catalog.switch, NEW)
        assert entered.wait(30)
        putting = threads.submit(put, catalog, "b")
        assert catalog.view("", OLD).count == 1
        assert catalog.view("", NEW).count == 0
        assert not putting.done()
        opened.set()
        assert switching.result(30).count == 1
        putting.result(30)
        assert (catalog.view("", NEW).count, catalog.view("", OLD).count) == (1, 1)


def test_a_defect_reaches_the_caller_and_ends_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    put(catalog, "a")
    with monkeypatch.context() as patch:
        patch.setattr("matchcut.server.catalog.memory.Memory.switched", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            catalog.switch(NEW, force=True)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise MemoryError

        patch.setattr("matchcut.server.catalog.memory.Memory.switched", full)
        with pytest.raises(StoreFailed, match="no memory left"):
            catalog.switch(NEW, force=True)
    put(catalog, "b")
    assert catalog.view("", OLD).count == 2


def test_the_scan_is_coded_anew() -> None:
    with closing(open_catalog(None, coding=open_device("cpu", threads=1), scan_from=1)) as catalog:
        coded(catalog, [put, stage])
        before = catalog.view("", OLD)
        catalog.switch(NEW)
        coded(catalog, [])
        after = catalog.view("", NEW)
        assert before.coded is not None
        assert after.coded is not None
        assert (before.coded.count, after.coded.count) == (len(before.rows), len(after.rows)) == (80, 120)


def coded(catalog: Catalog, change: Sequence[object]) -> None:
    """Makes the changes for 40 items and waits until all there is has codes; the run's time limit ends it elsewise."""
    for at in range(40):
        for one in change:
            one(catalog, f"i{at}", at)  # type: ignore[operator]
    pause = threading.Event()
    while (sizes := catalog.sizes()).coded < sizes.segments:
        pause.wait(0.005)
