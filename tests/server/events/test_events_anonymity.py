"""No number that leaves the log tells of a few."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.events import EventLog, open_log
from matchcut.server.events.anonymity import published
from matchcut.server.records import Event, EventKind, ItemCounts

Make = Callable[..., Event]


@given(users=st.integers(0, 10**9), threshold=st.integers(2, 1000))
def test_published_numbers(users: int, threshold: int) -> None:
    said = published(users, threshold)
    assert said <= users
    assert said == 0 or said >= threshold or threshold < 5
    assert said % max(5, threshold) == 0
    assert users - said < max(5, threshold) or said == 0
    assert published(users, 1) == published(users, 0) == users


def test_one_more_changes_nothing_but_at_every_tenth() -> None:
    changes = [users for users in range(1, 101) if published(users, 10) != published(users - 1, 10)]
    assert changes == list(range(10, 101, 10))


def like(log: EventLog, make: Make, item: str, users: range, kind: EventKind = EventKind.LIKE) -> None:
    log.append("", [make(f"{item}{kind}{at}", f"u{at}", item, kind) for at in users])


def test_counts(log: EventLog, make: Make) -> None:
    like(log, make, "nine", range(9))
    like(log, make, "ten", range(10))
    like(log, make, "many", range(37))
    like(log, make, "many", range(9), EventKind.DISLIKE)
    like(log, make, "many", range(5, 19), EventKind.CLICK)
    like(log, make, "seen", range(25), EventKind.IMPRESSION)
    many = ItemCounts("many", 30, {EventKind.LIKE: 30, EventKind.CLICK: 10})
    ten, none = ItemCounts("ten", 10, {EventKind.LIKE: 10}), ItemCounts("none", 0, {})
    seen = ItemCounts("seen", 20, {EventKind.IMPRESSION: 20})
    assert log.counts("", [], 10) == [many, seen, ten]
    assert log.counts("", [], 1) == [many]
    assert log.counts("", ["none", "ten", "many", "ten"], 0) == [none, ten, many, ten]
    assert log.counts("", ["nine"], 0) == [ItemCounts("nine", 0, {})]
    assert log.counts("other", [], 10) == log.counts("other", ["many"], 5)[1:] == []
    assert log.popularity("") == {"many": 30, "ten": 10}
    assert log.popularity("other") == {}


def test_one_user_counts_once(log: EventLog, make: Make) -> None:
    log.append("", [make(f"{at}", "ann", "x", EventKind.LIKE, at) for at in range(100)])
    assert log.counts("", ["x"], 0) == [ItemCounts("x", 0, {})]
    assert log.popularity("") == {}


def test_the_order_tells_no_more_than_the_numbers(log: EventLog, make: Make) -> None:
    like(log, make, "z", range(19))
    like(log, make, "a", range(10))
    assert [one.item_id for one in log.counts("", [], 10)] == ["a", "z"]
    assert [one.item_id for one in log.counts("", [], 1)] == ["a"]


def test_popularity_is_read_in_the_background(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.events.popular._PIECE", 7)
    with closing(open_log(tmp_path / "log", days=0, threshold=0)) as log:
        log.append("", [make(f"{at}", f"u{at % 30}", f"i{at % 50}", EventKind.LIKE) for at in range(600)])
        wanted = dict(log.popularity(""))
        assert len(wanted) == 50
    with closing(open_log(tmp_path / "log", days=0, threshold=0)) as log:
        log.append("", [make("new", "stranger", "i7", EventKind.LIKE)])  # before all has been read, perhaps
        assert log.popularity("") == wanted | {"i7": wanted["i7"] + 1}
        assert log._popular._tenants[""].after  # type: ignore[attr-defined]


def test_popularity_does_not_wait_long(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_log(tmp_path / "log", days=0, threshold=0)) as log:
        log.append("", [make("1", kind=EventKind.LIKE)])
    monkeypatch.setattr("matchcut.server.events.popular.Popular.load", lambda *args: False)
    monkeypatch.setattr("matchcut.server.events.popular._WAIT_S", 0.01)
    with closing(open_log(tmp_path / "log", days=0, threshold=0)) as log:
        assert log.popularity("") == {}


def test_a_copy_is_not_made_all_the_time(log: EventLog, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]

    def monotonic() -> float:
        clock[0] += 1.0  # so that each copy takes a second
        return clock[0]

    monkeypatch.setattr("matchcut.server.events.popular.time", type("", (), {"monotonic": staticmethod(monotonic)}))
    like(log, make, "a", range(10))
    assert log.popularity("") == {"a": 10}
    like(log, make, "b", range(10))
    assert log.popularity("") == {"a": 10}
    clock[0] += 100
    assert log.popularity("") == {"a": 10, "b": 10}
    with pytest.raises(TypeError):
        log.popularity("")["a"] = 3  # type: ignore[index]
    time.sleep(0)
