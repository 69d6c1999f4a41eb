"""Session models are swapped under traffic, and every answer is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Floats, Logged
from matchcut.server.session import DecayingMean
from matchcut.server.users import Galleries, Taste
from support.user_crowd import ITEMS, check_all, fill
from support.user_model import assert_same, expected
from support.user_world import ENCODER, SECONDS, World, event, vector


@contextmanager
def running(*works: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Calls each over and over in a thread of its own while the block runs; what one raised ends it."""
    over = threading.Event()
    raised: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield raised
    finally:
        over.set()
        for thread in threads:
            thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in threads)


class Closing(DecayingMean):
    """Fails once it is closed, as a trained model does."""

    closed = False

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        assert not self.closed, "it is used after it was closed"
        return super().step(items, states, strengths)

    def queries(self, states: Floats) -> Floats:
        assert not self.closed, "it is used after it was closed"
        return super().queries(states)

    def close(self) -> None:
        self.closed = True


def test_a_swap_rebuilds_all_in_the_background(world: World, items: dict[str, Floats]) -> None:
    users = world.users(world.galleries(Closing(ENCODER, 4)))
    fill(users, 600)
    users.swap(world.galleries(Closing(ENCODER, 2)))
    assert users.rebuilt(SECONDS)
    replayed = users.sizes().replayed
    assert replayed == 600 + 600  # at each first recall, and in the background
    known = users.recall("", "u0")
    assert users.sizes().replayed == replayed
    assert known.model == DecayingMean(ENCODER, 2).identity
    check_all(world, users, DecayingMean(ENCODER, 2), items, 20)


def more(recalled: list[Taste], raised: list[BaseException]) -> None:
    """Waits for some recalls that begin after this."""
    least = len(recalled) + 20
    until = time.monotonic() + SECONDS
    while len(recalled) < least and not raised and time.monotonic() < until:
        time.sleep(0.001)


def test_recalls_never_fail_while_models_are_swapped(world: World, items: dict[str, Floats]) -> None:
    models = [Closing(ENCODER, 1 + at) for at in range(8)]
    identities = [model.identity for model in models]
    users = world.users(world.galleries(models[0]))
    fill(users, 40)
    numbers, ids = iter(range(10**9)), iter(range(10**9))
    recalled: list[Taste] = []

    def recall() -> None:
        with users.using() as galleries:
            taste = users.recall("", f"u{next(numbers) % 40}", galleries)
            assert taste.model == galleries.model.identity
            assert galleries.project(vector("x")[np.newaxis]).shape == (1, 6)
            recalled.append(taste)

    def record() -> None:
        at = next(ids)
        users.record("", [event(f"more{at}", ITEMS[at % 6], 100 + at, user_id=f"u{at % 40}")])

    with running(recall, recall, record) as raised:
        more(recalled, raised)
        for model in models[1:]:
            users.swap(world.galleries(model))
            more(recalled, raised)
    assert raised == []
    assert {identities.index(taste.model) for taste in recalled} == set(range(8))
    assert users.rebuilt(SECONDS)
    assert [model.closed for model in models] == [True] * 7 + [False]
    check_all(world, users, DecayingMean(ENCODER, 8), items, 40)
    users.close()
    assert models[-1].closed


def test_a_request_that_began_before_a_swap_ends_with_its_model(world: World, items: dict[str, Floats]) -> None:
    old, new = Closing(ENCODER, 4), Closing(ENCODER, 1)
    users = world.users(world.galleries(old))
    fill(users, 2)
    with users.using() as galleries:
        users.swap(world.galleries(new))
        users.record("", [event("x", "f", 50, user_id="u0")])
        before = users.recall("", "u0", galleries)
        after = users.recall("", "u0")
        closed = [old.closed]
    assert [*closed, old.closed] == [False, True]
    events = world.log.events(world.log.key("", "u0"))
    assert_same(before, expected(DecayingMean(ENCODER, 4), items, events))
    assert_same(after, expected(DecayingMean(ENCODER, 1), items, events))
    assert users.replay("", [event("1", "a", 1)]).model == new.identity


def test_galleries_that_were_closed_are_not_swapped_in(world: World, items: dict[str, Floats]) -> None:
    users = world.users()
    closed = Closing(ENCODER)
    galleries = world.galleries(closed)
    galleries.close()
    galleries._first = 1  # as if it had been closed before it was filled
    with pytest.raises(InvalidInput, match="closed"):
        users.swap(galleries)
    assert closed.closed
    assert users.recall("", "u").model == DecayingMean(ENCODER).identity


def test_a_rebuild_that_fails_leaves_it_to_the_recalls(
    world: World, items: dict[str, Floats], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    users = world.users(world.galleries(DecayingMean(ENCODER, 4)))
    fill(users, 3)

    def fail(_: object) -> list[list[Logged]]:
        raise RuntimeError("defect")

    with monkeypatch.context() as patched:
        patched.setattr(world.log, "events_of", fail)
        users.swap(world.galleries(DecayingMean(ENCODER, 2)))
        assert users.rebuilt(SECONDS)
    assert "one by one" in caplog.text
    check_all(world, users, DecayingMean(ENCODER, 2), items, 3)


def test_events_of_one_user_from_many_threads(world: World, items: dict[str, Floats]) -> None:
    users = world.users()
    ids = iter(range(10**9))

    def record() -> None:
        at = next(ids)
        users.record("", [event(str(at), ITEMS[at % 6], (at * 7919) % 1000)])

    with running(record, record, lambda: users.recall("", "u")) as raised:
        while world.log.sizes().events < 400 and not raised:
            time.sleep(0.005)
    assert raised == []
    events = world.log.events(world.log.key("", "u"))
    assert_same(users.recall("", "u"), expected(DecayingMean(ENCODER), items, events))


def test_galleries_are_usable_while_they_are_used(world: World, items: dict[str, Floats]) -> None:
    users = world.users()
    with users.using() as galleries:
        users.close()
        assert isinstance(galleries, Galleries)
        assert galleries.gallery("").view.count == 6
