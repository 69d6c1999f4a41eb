"""Threads that are stopped in the midst of reading and appending: nothing is lost, counted twice, or remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from matchcut.server.events.contract import Appended
from matchcut.server.records import Event, Logged, Receipt, UserKey
from matchcut.server.session import DecayingMean
from matchcut.server.users import Users
from support.fake_log import FakeLog
from support.user_crowd import ITEMS
from support.user_world import ENCODER, SECONDS, World, event


class Gate(FakeLog):
    """Holds a thread that reads, or has appended, until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.hold: set[str] = set()
        self.held = threading.Event()
        self.go_on = threading.Event()

    def events(self, user: UserKey) -> list[Logged]:
        found = super().events(user)
        self._stop("read")
        return found

    def append(self, tenant: str, events: Sequence[Event]) -> Appended:
        found = super().append(tenant, events)
        self._stop("appended")
        return found

    def forget(self, tenant: str, user_id: str) -> Receipt:
        found = super().forget(tenant, user_id)
        self._stop("forgotten")
        return found

    def _stop(self, where: str) -> None:
        if where in self.hold:
            self.hold.discard(where)
            self.held.set()
            assert self.go_on.wait(SECONDS)


@pytest.fixture
def gated() -> Iterator[tuple[World, Gate, Users]]:
    """A user with an event, and a log that can be stopped."""
    gate = Gate()
    world = World(gate)
    for item_id in ITEMS:
        world.put(item_id)
    users = world.users()
    users.record("", [event("1", "a", 1)])
    yield world, gate, users
    world.close()


@contextmanager
def stopped(gate: Gate, where: str, work: Callable[[], object]) -> Iterator[None]:
    """Runs work() in another thread; the block runs while it is held at `where`."""
    gate.held.clear()
    gate.go_on.clear()
    gate.hold.add(where)
    thread = threading.Thread(target=work)
    thread.start()
    assert gate.held.wait(SECONDS), f"it never got to {where}"
    try:
        yield
    finally:
        gate.go_on.set()
        thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_state_that_is_being_made_when_its_user_is_forgotten_is_not_kept(gated: tuple[World, Gate, Users]) -> None:
    _, gate, users = gated
    with stopped(gate, "read", lambda: users.recall("", "u")):
        assert users.forget("", "u").events == 1
    assert users.recall("", "u").seen == set()
    assert users.sizes().users == 0


def test_a_state_that_is_being_rebuilt_when_its_user_is_forgotten_is_not_kept(
    gated: tuple[World, Gate, Users],
) -> None:
    world, gate, users = gated
    users.recall("", "u")
    fresh = world.galleries(DecayingMean(ENCODER, 1))
    with stopped(gate, "read", lambda: users.swap(fresh)):
        assert users.forget("", "u").events == 1
    assert users.rebuilt(SECONDS)
    assert users.sizes().users == 0
    assert users.recall("", "u").seen == set()


def test_an_event_that_was_forgotten_before_it_was_noted_is_not_kept(gated: tuple[World, Gate, Users]) -> None:
    _, gate, users = gated
    with stopped(gate, "appended", lambda: users.record("", [event("2", "b", 9)])):
        assert users.forget("", "u").events == 2
        users.record("", [event("3", "c", 3)])
        assert users.recall("", "u").seen == {"c"}  # its entry is new, and made before 9
    assert users.recall("", "u").seen == {"c"}


def test_an_event_of_a_user_who_is_just_being_forgotten_is_what_the_log_says(
    gated: tuple[World, Gate, Users],
) -> None:
    _, gate, users = gated
    users.recall("", "u")
    with stopped(gate, "forgotten", lambda: users.forget("", "u")):
        users.record("", [event("2", "b", 2)])
        assert users.recall("", "u").seen == {"a", "b"}  # it has not returned yet
    assert users.recall("", "u").seen == {"b"}


def test_an_event_that_comes_while_the_log_is_read_is_not_lost(gated: tuple[World, Gate, Users]) -> None:
    _, gate, users = gated
    recorder = threading.Thread(target=lambda: users.record("", [event("2", "b", 2)]))
    with stopped(gate, "read", lambda: users.recall("", "u")):
        recorder.start()
        recorder.join(0.05)  # durable by now, and waits for the entry
    recorder.join(SECONDS)
    assert users.recall("", "u").seen == {"a", "b"}


def test_an_event_that_the_log_told_before_it_was_noted_counts_once(gated: tuple[World, Gate, Users]) -> None:
    _, gate, users = gated
    with stopped(gate, "appended", lambda: users.record("", [event("2", "b", 2)])):
        assert users.recall("", "u").events == 2
    assert users.recall("", "u").events == 2
    with stopped(gate, "appended", lambda: users.record("", [event("3", "c", 3), event("4", "d", 4)])):
        users.record("", [event("5", "e", 5)])
        users._cache.drop(world_key(gate))
        assert users.recall("", "u").events == 5
    assert users.recall("", "u").events == 5


def world_key(gate: Gate) -> UserKey:
    return gate.key("", "u")
