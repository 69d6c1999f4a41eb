"""States in memory take no more of it than they may, and who had to go comes back the same."""

from __future__ import annotations

import tracemalloc

import pytest

from matchcut.server.records import Floats
from matchcut.server.session import DecayingMean
from matchcut.server.users import states as states_module
from support.user_crowd import check_all, fill
from support.user_world import ENCODER, World, event


def test_who_was_evicted_comes_back_the_same(world: World, items: dict[str, Floats]) -> None:
    users = world.users(cache_bytes=40_000)
    fill(users, 60)
    sizes = users.sizes()
    assert sizes.users < 30
    assert sizes.evicted > 30
    assert sizes.bytes <= 40_000
    check_all(world, users, DecayingMean(ENCODER), items, 60)
    tiny = world.users(cache_bytes=1)
    check_all(world, tiny, DecayingMean(ENCODER), items, 5)
    assert tiny.sizes().users == 0


def test_the_bound_on_memory_is_one(world: World, items: dict[str, Floats]) -> None:
    limit, count = 400_000, 300
    users = world.users(cache_bytes=limit)
    for number in range(count):
        its = [event(f"{number}/{at}", f"item {number} {at}", at, user_id=f"u{number}") for at in range(40)]
        users.record("", its)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            users.recall("", f"u{number}")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert users.sizes().evicted > count / 2
    assert grown < limit
    assert limit / 2 < users.sizes().bytes <= limit


def test_what_waits_is_bounded_without_a_recall(
    world: World, items: dict[str, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states_module, "_WAITING", 4)
    users = world.users()
    users.record("", [event("first", "a", 0)])
    users.recall("", "u")
    size = users.sizes().bytes
    users.record("", [event(str(at), "a", 1 + at) for at in range(50)])
    assert users.sizes().bytes == size
    assert users.recall("", "u").events == 51
