"""Changes that are committed by the thread that brings them: when, what a failure leaves, and whose turn it is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from matchcut.server.commit import Writer
from matchcut.server.errors import StoreFailed
from matchcut.server.events import open_log
from matchcut.server.records import Event, EventKind


class Store:
    """Where every change waits for the gate; a change below 0 fails."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.commits: list[list[int]] = []
        self.threads: list[threading.Thread] = []
        self.inside = 0
        self.upkeeps = 0

    def commit(self, changes: Sequence[int]) -> list[int | Exception]:
        self.inside += 1
        assert self.inside == 1, "two at the store at once"
        self.entered.release()
        assert self.gate.wait(30)
        self.commits.append(list(changes))
        self.threads.append(threading.current_thread())
        self.inside -= 1
        return [ValueError("as told") if change < 0 else change + 1 for change in changes]

    def upkeep(self) -> float:
        assert not self.inside
        self.upkeeps += 1
        return 0.0


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer[int, int]]:
    made = Writer[int, int](store.commit, noun="test", direct=True)
    yield made
    store.gate.set()
    made.close()


def test_a_change_that_finds_nothing_under_way_is_committed_by_its_own_thread(
    store: Store, writer: Writer[int, int]
) -> None:
    assert [writer.submit(1), writer.submit(2)] == [2, 3]
    assert store.threads == [threading.current_thread()] * 2


def test_without_that_wish_the_writer_commits_it(store: Store) -> None:
    with closing(Writer[int, int](store.commit, noun="test")) as writer:
        assert writer.submit(1) == 2
    assert store.threads[0] is not threading.current_thread()


def test_its_failure_is_raised_and_the_next_change_goes_on(store: Store, writer: Writer[int, int]) -> None:
    with pytest.raises(ValueError, match="as told"):
        writer.submit(-1)
    assert writer.submit(1) == 2
    assert store.threads == [threading.current_thread()] * 2


def test_what_comes_meanwhile_goes_together_into_the_next_commit(store: Store, writer: Writer[int, int]) -> None:
    store.gate.clear()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(writer.submit, 0)
        assert store.entered.acquire(timeout=30)
        others = [pool.submit(writer.submit, number) for number in range(1, 6)]
        deadline = time.monotonic() + 30
        while writer._waiting < 5:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        store.gate.set()
        assert [first.result(30), *(other.result(30) for other in others)] == [1, 2, 3, 4, 5, 6]
    # The writer's thread had taken the first of them when the others came, or not.
    assert store.commits[0] == [0]
    assert sorted(change for commit in store.commits[1:] for change in commit) == [1, 2, 3, 4, 5]
    assert len(store.commits) == 2


def test_many_threads_are_never_at_the_store_at_once(store: Store, writer: Writer[int, int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(writer.submit, range(400)))
    assert found == list(range(1, 401))
    assert sorted(change for commit in store.commits for change in commit) == list(range(400))


def test_work_that_is_to_be_alone_waits_for_it(store: Store, writer: Writer[int, int]) -> None:
    store.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(writer.submit, 0)
        assert store.entered.acquire(timeout=30)
        alone = pool.submit(writer.alone, lambda: store.inside)
        time.sleep(0.02)
        assert not alone.done()
        store.gate.set()
        assert (alone.result(30), change.result(30)) == (0, 1)


def test_closing_waits_for_it_and_takes_no_more(store: Store, writer: Writer[int, int]) -> None:
    store.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        change = pool.submit(writer.submit, 0)
        assert store.entered.acquire(timeout=30)
        closing_ = pool.submit(writer.close)
        time.sleep(0.02)
        assert not closing_.done()
        store.gate.set()
        closing_.result(30)
        assert change.result(30) == 1
    with pytest.raises(StoreFailed, match="closed"):
        writer.submit(1)


def test_upkeep_gets_its_turn_between_changes_that_follow_each_other(store: Store) -> None:
    with closing(Writer[int, int](store.commit, noun="test", upkeep=store.upkeep, direct=True)) as writer:
        deadline = time.monotonic() + 30
        while store.upkeeps < 20:
            writer.submit(0)
            assert time.monotonic() < deadline


def test_an_event_that_the_disk_refuses_leaves_nothing(tmp_path: Path) -> None:
    """In the caller's own thread: neither rows nor numbers, and the next event is kept."""

    def event(name: str) -> Event:
        return Event(name, "ann", f"item-{name}", EventKind.LIKE, 1_000_000)

    with closing(open_log(tmp_path / "events.sqlite", days=0, threshold=0)) as log:
        log.append("", [event("a")])
        db = log._store._db  # type: ignore[attr-defined]
        assert log._writer._waiting == 0  # type: ignore[attr-defined]
        refused: list[threading.Thread] = []

        def refuse(action: int, *_: object) -> int:
            if action == sqlite3.SQLITE_INSERT:
                refused.append(threading.current_thread())
                return sqlite3.SQLITE_DENY
            return sqlite3.SQLITE_OK

        db.set_authorizer(refuse)
        try:
            with pytest.raises(StoreFailed, match="nothing was changed"):
                log.append("", [event("b")])
        finally:
            db.set_authorizer(None)
        assert refused
        assert [each.item_id for each in log.events(log.key("", "ann"))] == ["item-a"]
        assert (log.sizes().events, dict(log.popularity(""))) == (1, {"item-a": 1})
        assert len(log.append("", [event("b")]).logged) == 1
        assert log.sizes().events == 2
