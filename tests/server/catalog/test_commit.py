"""One thread makes all changes: what goes into one commit, and what a failure leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.catalog.changes import Change
from matchcut.server.catalog.local import LocalCatalog
from matchcut.server.catalog.memory import Memory
from matchcut.server.catalog.store import Store
from matchcut.server.errors import NotFound, StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Outcome


class Halting(Store):
    """A store whose every commit waits until it is let through; it may then be told to fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.commits: list[int] = []
        self.fails: Callable[[Sequence[Change]], bool] = lambda changes: False

    def apply(self, changes: Sequence[Change]) -> None:
        self.commits.append(len(changes))
        self.entered.release()
        assert self.gate.acquire(timeout=30)
        if self.fails(changes):
            raise StoreFailed("as told")
        super().apply(changes)


@pytest.fixture
def halting(tmp_path: Path) -> Iterator[tuple[Catalog, Halting]]:
    store = Halting(tmp_path / "catalog.sqlite")
    with ExitStack() as stack:
        stack.callback(store.close)
        catalog = LocalCatalog(Memory(), store, stack.pop_all())
    yield catalog, store
    store.gate.release(1000)
    catalog.close()


def queue_behind_one(halting: tuple[Catalog, Halting], work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Runs all of the work in order while the commit of its first piece is held up; what each returned or raised."""
    catalog, store = halting
    writer = catalog._writer  # type: ignore[attr-defined]
    with ThreadPoolExecutor(len(work)) as pool:
        futures = []
        for at, piece in enumerate(work):
            futures.append(pool.submit(piece))
            if at == 0:
                assert store.entered.acquire(timeout=30)
            while writer._queue.qsize() < at:
                assert not futures[-1].done()
        store.gate.release(1000)
        return [future.exception() or future.result() for future in futures]


def test_what_waits_goes_into_one_commit(halting: tuple[Catalog, Halting], put: Callable[..., Any]) -> None:
    catalog, store = halting
    outcomes = queue_behind_one(halting, [lambda at=at: put(catalog, f"i{at}") for at in range(6)])  # type: ignore[misc]
    assert outcomes == [Outcome.CREATED] * 6
    assert store.commits == [1, 5]


def test_changes_in_one_commit_know_of_each_other(
    halting: tuple[Catalog, Halting], put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    catalog, store = halting
    outcomes = queue_behind_one(
        halting,
        [
            lambda: put(catalog, "first"),
            lambda: put(catalog, "a"),
            lambda: put(catalog, "a"),
            lambda: put(catalog, "a", seed=1),
            lambda: catalog.update("", Item("a", "new")),
            lambda: catalog.remove("", "a"),
            lambda: catalog.remove("", "a"),
            lambda: catalog.update("", Item("a", "newer")),
            lambda: put(catalog, "a", seed=2),
        ],
    )
    assert store.commits[0] == 1
    assert len(store.commits) == 2
    assert outcomes[1:7] == [Outcome.CREATED, Outcome.UNCHANGED, Outcome.REPLACED, Outcome.UPDATED, True, False]
    assert isinstance(outcomes[7], NotFound)
    assert outcomes[8] is Outcome.CREATED
    stored = catalog.get("", "a")
    assert stored is not None
    assert stored.item.attributes == {"seed": "2"}
    assert catalog.view("", encoder).count == 2


def test_one_bad_change_does_not_spoil_the_others(halting: tuple[Catalog, Halting], put: Callable[..., Any]) -> None:
    catalog, store = halting
    store.fails = lambda changes: any(change.item_id == "bad" for change in changes)
    names = ["first", "a", "bad", "b"]
    outcomes = queue_behind_one(halting, [lambda name=name: put(catalog, name) for name in names])  # type: ignore[misc]
    assert store.commits == [1, 3, 1, 1, 1]
    assert isinstance(outcomes.pop(2), StoreFailed)
    assert outcomes == [Outcome.CREATED] * 3
    assert [catalog.get("", name) is not None for name in names] == [True, True, False, True]


def test_nothing_shows_before_it_is_durable(
    halting: tuple[Catalog, Halting], put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    catalog, store = halting
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(put, catalog, "a")
        assert store.entered.acquire(timeout=30)
        assert catalog.get("", "a") is None  # and reading does not wait for the disk
        assert len(catalog.view("", encoder).rows) == 0
        assert not future.done()
        store.gate.release(1)
        assert future.result(30) is Outcome.CREATED
    assert catalog.get("", "a") is not None


def test_a_defect_reaches_the_caller_and_ends_nothing(
    halting: tuple[Catalog, Halting], put: Callable[..., Any]
) -> None:
    catalog, store = halting
    store.gate.release(1000)

    def broken(changes: Sequence[Change]) -> bool:
        raise ZeroDivisionError

    store.fails = broken
    with pytest.raises(ZeroDivisionError):
        put(catalog, "a")
    store.fails = lambda changes: False
    assert put(catalog, "a") is Outcome.CREATED


def test_no_memory_left(
    tmp_path: Path, put: Callable[..., Any], encoder: EncoderIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Memory, changes: object) -> None:
        raise MemoryError

    with closing(open_catalog(tmp_path)) as catalog:
        put(catalog, "a")
        with monkeypatch.context() as patch:
            patch.setattr(Memory, "reserve_for", full)
            with pytest.raises(StoreFailed, match="no memory left") as caught:
                put(catalog, "b")
        assert caught.value.reason == "STORE_FULL"
        assert catalog.count("") == 1
        assert put(catalog, "b") is Outcome.CREATED
