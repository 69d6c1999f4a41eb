"""Codes for the native scan: made in the background, kept up to date, made anew, and never needed."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.device import Cpu, open_device
from matchcut.kernels.topk import search
from matchcut.server.catalog import Catalog, Sizes, View, open_catalog
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Floats, Outcome, TagFilter

DEVICE = open_device("cpu", threads=1)
ALL = TagFilter()
NONE: frozenset[str] = frozenset()
Put = Callable[..., Outcome]


class Held:
    """Makes codes when it is let: `gate` is open unless a test closes it; then it waits as a long computation would."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun: list[int] = []  # rows, each time
        self.copies = 0
        self.prepared: list[int] = []  # rows, each time
        self.no_room: Exception | None = None
        self.fails: Callable[[], None] = lambda: None
        self.no_copy = False

    def coding(self, rows: Floats, *, check: Callable[[], None] | None = None) -> Codes | None:
        self.begun.append(len(rows))
        while not self.gate.wait(0.005):
            assert check is not None
            check()
        self.fails()
        return DEVICE.coding(rows, check=check)

    def copied(self, coded: CodedRows, rows: NDArray[np.int64]) -> Codes:
        self.copies += 1
        if self.no_copy:
            raise MemoryError
        return DEVICE.copied(coded, rows)

    def prepare(self, rows: Floats, coded: CodedRows) -> None:
        assert coded.count == len(rows), "the codes are of these very rows"
        self.prepared.append(coded.count)
        if self.no_room is not None:
            raise self.no_room


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def catalog(held: Held) -> Iterator[Catalog]:
    """One whose shelves are coded from 20 rows on."""
    with closing(open_catalog(None, coding=held, scan_from=20)) as opened:
        yield opened


def until(condition: Callable[[], Any]) -> Any:
    """What the condition returns once that is true."""
    end = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.002)
    return result


def check_ranking(view: View, exclude: frozenset[str] = NONE, tags: TagFilter = ALL) -> None:
    """With codes and without, the view is ranked alike."""
    queries = np.random.default_rng(len(view.rows)).standard_normal((2, view.rows.shape[1])).astype(np.float32)
    eligible = view.eligible(exclude, tags)
    expected = search(queries, view.rows, groups=view.groups, k=7, eligible=eligible)
    found = DEVICE.search(queries, view.rows, groups=view.groups, k=7, eligible=eligible, coded=view.coded)
    assert list(found) == list(expected)
    assert found.variant == ("cpu-numpy" if view.coded is None else DEVICE.scan)


def fill(catalog: Catalog, put: Put, count: int, *, first: int = 0) -> None:
    for at in range(first, first + count):
        put(catalog, f"i{at}")  # two rows each


def test_a_shelf_is_coded_once_it_has_enough_rows(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "matchcut.catalog")
    fill(catalog, put, 9)
    assert catalog.view("", encoder).coded is None
    fill(catalog, put, 3, first=9)
    coded = until(lambda: catalog.view("", encoder).coded)
    assert coded.count == 24
    assert len(held.begun) == 1
    assert held.begun[0] >= 20, "with fewer rows nothing was begun"
    check_ranking(catalog.view("", encoder))
    lines = until(  # which is written after they were taken
        lambda: [record.getMessage() for record in caplog.records if "coded" in record.getMessage()]
    )
    (line,) = lines
    assert re.fullmatch(
        r"coded 2\d segments of 6 dimensions of tenant '' in \d\.\d\d s: 64 dense dimensions, 0 levels", line
    )


def test_codes_are_prepared_before_they_are_taken(
    catalog: Catalog,
    held: Held,
    put: Put,
    encoder: EncoderIdentity,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside of the lock: readers and the writer work on meanwhile."""
    seen: list[tuple[bool, int]] = []
    prepare = held.prepare

    def slow(rows: Floats, coded: CodedRows) -> None:
        prepare(rows, coded)
        if len(held.prepared) == 1:
            fill(catalog, put, 200, first=50)  # more than are coded while others wait
        seen.append((catalog.view("", encoder).coded is None, coded.count))

    monkeypatch.setattr(held, "prepare", slow)
    fill(catalog, put, 10)
    until(lambda: catalog.view("", encoder).coded)
    assert seen[:2] == [(True, 20), (True, 420)]  # after which they are soon coded in a better way
    check_ranking(catalog.view("", encoder))


def test_without_room_where_it_is_searched_a_shelf_stays_as_it_is(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    held.no_room = MemoryError("900 bytes of device memory are not to be had")
    fill(catalog, put, 10)
    until(lambda: caplog.records)
    assert catalog.view("", encoder).coded is None
    check_ranking(catalog.view("", encoder))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "could not be coded (900 bytes of device memory are not to be had); they are ranked as before" in warning


def test_changes_while_codes_are_made(catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity) -> None:
    fill(catalog, put, 9)
    held.gate.clear()
    fill(catalog, put, 1, first=9)
    until(lambda: held.begun)
    fill(catalog, put, 200, first=10)  # more than are coded while others wait
    put(catalog, "i3", seed=1)
    catalog.remove("", "i4")
    before = catalog.view("", encoder)
    assert before.coded is None
    check_ranking(before)
    held.gate.set()
    coded = until(lambda: catalog.view("", encoder).coded)
    assert coded.count == len(before.rows) == 422
    assert held.begun == [20, 422], "what was chosen for a few rows was not used for many"
    check_ranking(catalog.view("", encoder))
    check_ranking(catalog.view("", encoder), frozenset({"i3", "i7"}))
    assert before.coded is None


def test_codes_grow_with_the_shelf(catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity) -> None:
    fill(catalog, put, 12)
    until(lambda: catalog.view("", encoder).coded)
    for at in range(12, 20):
        put(catalog, f"i{at}")
        view = catalog.view("", encoder)
        assert view.coded is not None
        assert view.coded.count == len(view.rows) == 2 * at + 2
        check_ranking(view)
    catalog.remove("", "i3")
    check_ranking(catalog.view("", encoder))
    assert catalog.view("", encoder).coded is not None


def test_a_new_way_of_coding_takes_over_and_old_views_keep_theirs(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity
) -> None:
    fill(catalog, put, 10)
    old = until(lambda: (view := catalog.view("", encoder)).coded and view)
    held.gate.clear()
    fill(catalog, put, 11, first=10)  # twice the rows that the way was chosen for
    until(lambda: len(held.begun) == 2)
    between = catalog.view("", encoder)
    assert between.coded is not None, "the old codes serve until the new ones are there"
    assert between.coded.basis is old.coded.basis
    assert catalog.sizes().unplanned >= 20
    held.gate.set()
    until(lambda: catalog.sizes().unplanned < 20)
    new = catalog.view("", encoder)
    assert new.coded is not None
    assert new.coded.basis is not old.coded.basis
    assert catalog.sizes().unplanned <= 2
    assert old.coded.count == 20
    for view in (old, between, new):
        check_ranking(view)


def test_readers_and_the_writer_work_on_while_codes_are_made(encoder: EncoderIdentity, put: Put) -> None:
    """Three threads change, two read, and codes are made again and again."""
    seen: list[bool] = []
    with closing(open_catalog(None, coding=DEVICE, scan_from=8)) as catalog:
        fill(catalog, put, 4)
        ended, failures = threading.Event(), []

        def change(thread: int) -> None:
            random = np.random.default_rng(thread)
            for at in range(120):
                put(catalog, f"{thread}-{random.integers(40)}", seed=at, segments=int(random.integers(1, 9)))
                if at % 3 == 0:
                    catalog.remove("", f"{thread}-{random.integers(40)}")

        def read() -> None:
            while not ended.is_set():
                view = catalog.view("", encoder)
                check_ranking(view)
                check_ranking(view, frozenset({"0-1", "1-2", "2-3"}))
                seen.append(view.coded is not None)

        def reporting(work: Callable[..., None], *arguments: object) -> None:
            try:
                work(*arguments)
            except BaseException as error:
                failures.append(error)

        writers = [threading.Thread(target=reporting, args=(change, thread)) for thread in range(3)]
        readers = [threading.Thread(target=reporting, args=(read,)) for _ in range(2)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        until(lambda: (seen and seen[-1]) or failures)
        ended.set()
        for thread in readers:
            thread.join()
        assert not failures
        assert seen.count(True) > 10
        view = catalog.view("", encoder)
        assert view.coded is not None
        check_ranking(view)


def test_a_compacted_shelf_keeps_its_codes(catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity) -> None:
    fill(catalog, put, 12)
    until(lambda: catalog.view("", encoder).coded)
    for at in range(7):
        catalog.remove("", f"i{at}")
    view = catalog.view("", encoder)
    assert len(view.rows) == 10
    assert view.coded is not None
    assert (held.copies, len(held.begun)) == (1, 1)
    check_ranking(view)
    fill(catalog, put, 5, first=20)
    check_ranking(catalog.view("", encoder))
    assert catalog.view("", encoder).coded is not None


def test_a_compacted_shelf_without_room_for_codes_is_coded_anew(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity
) -> None:
    fill(catalog, put, 19)
    until(lambda: catalog.view("", encoder).coded)
    held.no_copy = True
    held.gate.clear()
    fill(catalog, put, 4, first=30)
    for at in range(12):
        catalog.remove("", f"i{at}")
    view = catalog.view("", encoder)
    assert (len(view.rows), view.coded, held.copies) == (22, None, 1)
    check_ranking(view)
    held.gate.set()
    until(lambda: catalog.view("", encoder).coded)
    check_ranking(catalog.view("", encoder))


def test_a_shelf_that_is_compacted_while_codes_are_made(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity
) -> None:
    held.gate.clear()
    fill(catalog, put, 24)
    until(lambda: held.begun)
    for at in range(13):
        catalog.remove("", f"i{at}")
    held.gate.set()
    coded = until(lambda: catalog.view("", encoder).coded)
    assert coded.count == 22, "the codes of the shelf that is gone were not taken"
    assert len(held.begun) == 2
    check_ranking(catalog.view("", encoder))


def test_a_tenant_that_goes_while_codes_are_made(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity
) -> None:
    held.gate.clear()
    fill(catalog, put, 10)
    until(lambda: held.begun)
    for at in range(10):
        catalog.remove("", f"i{at}")
    held.gate.set()
    for at in range(12):
        put(catalog, f"i{at}", tenant="other")
    until(lambda: catalog.view("other", encoder).coded)
    assert catalog.view("", encoder).coded is None
    assert (catalog.sizes().segments, catalog.sizes().coded) == (24, 24)


@pytest.mark.parametrize("error", [MemoryError(), ValueError("no good"), np.linalg.LinAlgError("no eigenvalues")])
def test_a_failure_is_told_once_and_numpy_ranks(
    catalog: Catalog,
    held: Held,
    put: Put,
    encoder: EncoderIdentity,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed: list[int] = []

    def fail() -> None:
        failed.append(held.begun[-1])
        raise error

    held.fails = fail
    fill(catalog, put, 10)
    until(lambda: held.begun and caplog.records)
    fill(catalog, put, 2, first=10)
    check_ranking(catalog.view("", encoder))
    assert catalog.view("", encoder).coded is None
    fill(catalog, put, 1, first=12)  # a quarter more than at the first try
    until(lambda: len(failed) == 2)
    held.fails = lambda: None
    fill(catalog, put, 5, first=13)
    until(lambda: catalog.view("", encoder).coded)
    assert failed == [20, 26]
    assert len(held.begun) == 3
    check_ranking(catalog.view("", encoder))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"could not be coded ({str(error) or 'MemoryError'}); they are ranked as before" in warning


def test_a_device_that_takes_rows_as_they_are(put: Put, encoder: EncoderIdentity) -> None:
    class Counting(Cpu):
        calls = 0

        def coding(self, rows: Floats, *, check: Callable[[], None] | None = None) -> Codes | None:
            Counting.calls += 1
            return super().coding(rows, check=check)

    with closing(open_catalog(None, coding=Counting(scan="numpy"), scan_from=1)) as catalog:
        fill(catalog, put, 40)
        until(lambda: Counting.calls)
        check_ranking(catalog.view("", encoder))
        assert catalog.view("", encoder).coded is None
        assert catalog.sizes() == Sizes(80, 0, 0, items=40)
    assert Counting.calls <= 20, "it is asked seldom, not for every row that comes"


def test_no_memory_for_codes_while_a_change_is_made(
    catalog: Catalog, held: Held, put: Put, encoder: EncoderIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(catalog, put, 10)
    coded = until(lambda: (view := catalog.view("", encoder)).coded and view)

    def full(self: Codes, *_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Codes, "reserve", full)
        with pytest.raises(StoreFailed, match="no memory left") as caught:
            put(catalog, "refused")
    assert caught.value.reason == "STORE_FULL"
    assert catalog.view("", encoder).count == 10
    with monkeypatch.context() as patch:
        patch.setattr(Codes, "extend", full)
        assert put(catalog, "durable") is Outcome.CREATED
    view = catalog.view("", encoder)
    assert (view.count, view.coded) == (11, None)
    check_ranking(view)
    check_ranking(coded)
    fill(catalog, put, 5, first=20)
    until(lambda: catalog.view("", encoder).coded)
    check_ranking(catalog.view("", encoder))


def test_tenants_are_coded_apart(catalog: Catalog, put: Put, encoder: EncoderIdentity) -> None:
    def coded_of(tenant: str) -> CodedRows | None:
        return catalog.view(tenant, encoder).coded

    for tenant in ("one", "two", "few"):
        for at in range(3 if tenant == "few" else 12):
            put(catalog, f"i{at}", seed=len(tenant), tenant=tenant)
    for tenant in ("one", "two"):
        until(partial(coded_of, tenant))
        check_ranking(catalog.view(tenant, encoder))
    assert catalog.view("few", encoder).coded is None
    assert catalog.sizes().segments == 54
    assert catalog.sizes().coded == 48


def test_a_restart_serves_at_once_and_codes_again(
    tmp_path: Path, held: Held, put: Put, encoder: EncoderIdentity
) -> None:
    with closing(open_catalog(tmp_path, coding=held, scan_from=20)) as catalog:
        fill(catalog, put, 30)
        until(lambda: catalog.view("", encoder).coded)
        before = catalog.view("", encoder)
    check_ranking(before)
    held.gate.clear()
    with closing(open_catalog(tmp_path, coding=held, scan_from=20)) as catalog:
        assert catalog.view("", encoder).coded is None
        check_ranking(catalog.view("", encoder))
        held.gate.set()
        until(lambda: catalog.view("", encoder).coded)
        np.testing.assert_array_equal(catalog.view("", encoder).rows, before.rows)
        check_ranking(catalog.view("", encoder))


def test_closing_gives_up_what_is_being_coded(held: Held, put: Put, encoder: EncoderIdentity) -> None:
    catalog = open_catalog(None, coding=held, scan_from=20)
    held.gate.clear()
    fill(catalog, put, 10)
    until(lambda: held.begun)
    began = time.monotonic()
    catalog.close()
    catalog.close()
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "catalog-coder"]
    check_ranking(catalog.view("", encoder))
