"""What is used no more is closed once, in a thread of its own; what is still used at the end is closed then."""

from __future__ import annotations

import gc
import logging
import threading

import pytest

from matchcut.server.engines.freeing import Freeing


class User:
    """Something that uses an engine."""

    def __init__(self, events: list[str], name: str) -> None:
        self._events, self._name = events, name
        self.other: User | None = None

    def close(self) -> None:
        self._events.append(f"{self._name} closed")


class Engine:
    """Tells which thread has closed it."""

    def __init__(self, events: list[str], name: str) -> None:
        self._events, self._name = events, name
        self.closed = threading.Event()
        self.by = ""

    def close(self) -> None:
        self._events.append(f"engine of {self._name} closed")
        self.by = threading.current_thread().name
        self.closed.set()


def test_an_engine_is_closed_when_its_last_user_has_gone() -> None:
    events: list[str] = []
    freeing, engine, user = Freeing(), Engine(events, "a"), User(events, "a")
    freeing.watch(user, engine.close)
    also = user
    del user
    assert not engine.closed.wait(0.05)
    del also
    assert engine.closed.wait(30)
    assert engine.by == "matchcut-freeing"
    freeing.close()
    assert events == ["engine of a closed"]


def test_users_that_hold_each_other_are_found_by_the_garbage_collector() -> None:
    events: list[str] = []
    freeing, engine, one = Freeing(), Engine(events, "a"), User(events, "a")
    one.other = User(events, "b")
    one.other.other = one
    freeing.watch(one, engine.close)
    del one
    gc.collect()
    assert engine.closed.wait(30)
    freeing.close()


def test_at_the_end_what_is_still_used_is_closed_the_last_first() -> None:
    events: list[str] = []
    freeing = Freeing()
    users = [User(events, name) for name in "abc"]
    for user, name in zip(users, "abc", strict=True):
        freeing.watch(user, Engine(events, name).close)
    del user, users[1]
    freeing.close()
    freeing.close()  # may be called twice
    events.remove("engine of b closed")
    assert events == ["c closed", "engine of c closed", "a closed", "engine of a closed"]
    del users
    assert len(events) == 4


def test_one_that_cannot_be_closed_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    freeing, engine, users = Freeing(), Engine(events, "b"), [User(events, "a"), User(events, "b")]

    def fail() -> None:
        raise RuntimeError("on purpose")

    freeing.watch(users[0], fail)
    freeing.watch(users[1], engine.close)
    with caplog.at_level(logging.ERROR):
        users.pop(0)
        users.pop(0)
        assert engine.closed.wait(30)
    freeing.close()
    assert "on purpose" in caplog.text


def test_nor_does_it_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(User):
        def close(self) -> None:
            super().close()
            raise RuntimeError("on purpose")

    events: list[str] = []
    freeing, users = Freeing(), [User(events, "a"), Broken(events, "b")]
    engines = [Engine(events, name) for name in "ab"]
    for user, engine in zip(users, engines, strict=True):
        freeing.watch(user, engine.close)
    with caplog.at_level(logging.ERROR):
        freeing.close()
    assert events == ["b closed", "engine of b closed", "a closed", "engine of a closed"]
    assert "on purpose" in caplog.text
    assert not freeing._thread.is_alive()
