"""Places are shared fairly: whoever floods is the one to be refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.errors import Overloaded
from matchcut.server.service.places import MEMORY, Places


class World:
    """Places with a clock of its own."""

    def __init__(self, size: int) -> None:
        self.time = 100.0
        self.places = Places(size, "media", "--max-media-requests", now=lambda: self.time)

    def enters(self, client: str) -> bool:
        try:
            self.places.enter(client)
        except Overloaded:
            return False
        return True


def test_a_client_alone_may_take_all() -> None:
    world = World(3)
    assert [world.enters("a") for _ in range(4)] == [True, True, True, False]
    assert world.places.taken == 3
    with pytest.raises(Overloaded, match=r"all 3 places for media requests are taken; .* --max-media-requests"):
        world.places.enter("a")


def test_who_floods_leaves_what_is_freed_to_others() -> None:
    world = World(4)
    assert all(world.enters("flood") for _ in range(4))
    assert not world.enters("b")
    for turn in range(2):  # two places of four are b's share
        world.places.leave("flood")
        with pytest.raises(Overloaded, match="other clients wait for their share of the 4 places"):
            world.places.enter("flood")
        assert world.enters("b"), turn
    world.places.leave("flood")
    assert world.enters("flood")  # b has its share
    assert not world.enters("b")  # full, and b holds what is its own: it is owed nothing
    world.places.leave("flood")
    assert world.enters("flood")


def test_a_place_is_kept_for_a_while_only() -> None:
    world = World(2)
    assert world.enters("a")
    assert world.enters("a")
    assert not world.enters("b")
    world.places.leave("a")
    world.time += MEMORY - 0.01
    assert not world.enters("a")
    world.time += 0.02
    assert world.enters("a")


def test_who_was_refused_may_have_more_than_a_share_later() -> None:
    world = World(2)
    assert world.enters("a")
    assert world.enters("a")
    assert not world.enters("b")
    world.places.leave("a")
    world.places.leave("a")
    assert [world.enters("b"), world.enters("b")] == [True, True]
    assert not world.enters("a")


def test_more_clients_than_places() -> None:
    world = World(2)
    assert [world.enters(name) for name in "abcd"] == [True, True, False, False]
    world.places.leave("a")
    assert not world.enters("b")
    assert world.enters("c")
    assert not world.enters("d")
    world.places.leave("b")
    assert world.enters("d")


@settings(max_examples=200)
@given(size=st.integers(1, 6), steps=st.lists(st.tuples(st.sampled_from("abcdf"), st.booleans()), max_size=80))
def test_never_more_than_there_are_and_none_is_lost(size: int, steps: list[tuple[str, bool]]) -> None:
    world, held = World(size), dict.fromkeys("abcdf", 0)
    for client, arrives in steps:
        if arrives:
            held[client] += world.enters(client)
        elif held[client]:
            world.places.leave(client)
            held[client] -= 1
        assert world.places.taken == sum(held.values()) <= size
    world.time += MEMORY + 1
    for client, count in held.items():
        for _ in range(count):
            world.places.leave(client)
    assert all(world.enters("a") for _ in range(size))


@given(size=st.integers(2, 8), others=st.integers(1, 4))
def test_a_flood_starves_nobody(size: int, others: int) -> None:
    """One client refills whatever is free before anybody else asks; the others get in all the same."""
    world = World(size)
    names = [f"client {at}" for at in range(min(others, size - 1))]
    served = dict.fromkeys(names, 0)
    flood = 0
    for _ in range(20):
        while world.enters("flood"):
            flood += 1
        for name in names:
            if world.enters(name):
                served[name] += 1
                world.places.leave(name)
        if flood:
            world.places.leave("flood")
            flood -= 1
    assert min(served.values()) >= 10
