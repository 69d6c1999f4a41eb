"""A user's state is the fold of the log, whatever order events come in and whatever happens to items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.errors import EngineFailed, StoreFailed, Unavailable
from matchcut.server.records import Event, EventKind, Floats
from matchcut.server.session import DecayingMean, OnnxSession, SessionModel
from matchcut.server.users import Taste, Users
from support import session_models
from support.fake_log import FakeLog
from support.user_model import assert_same, expected
from support.user_world import ENCODER, World, event, vector

ITEMS = "abcde"  # "e" is never ingested
KINDS = st.sampled_from(list(EventKind))


def content(*item_ids: str) -> dict[str, Floats]:
    return {item_id: vector(item_id) for item_id in item_ids}


def should(world: World, model: SessionModel, items: dict[str, Floats], tenant: str = "", user_id: str = "u") -> Taste:
    """What the log says by now."""
    return expected(model, items, world.log.events(world.log.key(tenant, user_id)))


events_of_a_user = st.lists(
    st.builds(
        event,
        st.integers(0, 30).map(str),
        st.sampled_from(ITEMS),
        st.integers(0, 12),
        KINDS,
        weight=st.sampled_from([0.0, 0.25, 1.0]),
    ),
    max_size=25,
)


@pytest.fixture(params=["decaying", "onnx"], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SessionModel:
    """One that needs no files, and a trained one. Both stay open for all tests here."""
    if request.param == "decaying":
        return DecayingMean(ENCODER)
    folder: Path = tmp_path_factory.mktemp("session")
    session_models.write(folder, ENCODER, ids=["a", "never there"])
    return _Open(folder, ENCODER)


class _Open(OnnxSession):
    def close(self) -> None:
        """Others use it, too."""


@settings(max_examples=60, deadline=None)
@given(events=events_of_a_user, data=st.data())
def test_any_order_and_duplicates_are_the_same_as_sorted(
    model: SessionModel, events: list[Event], data: st.DataObject
) -> None:
    world = World()
    try:
        for item_id in ITEMS[:-1]:
            world.put(item_id)
        users = world.users(world.galleries(model))
        mixed = data.draw(st.permutations(events + events[:5]))
        while mixed:
            size = data.draw(st.integers(1, 6))
            users.record("", mixed[:size])
            mixed = mixed[size:]
            if data.draw(st.booleans()):
                assert_same(users.recall("", "u"), should(world, model, content(*ITEMS[:-1])))
        assert_same(users.recall("", "u"), should(world, model, content(*ITEMS[:-1])))
        again = world.users(world.galleries(model))  # a restart
        assert_same(again.recall("", "u"), users.recall("", "u"))
    finally:
        world.close()


def test_an_event_in_order_costs_one_step_and_no_look_at_the_log(faked: World) -> None:
    for item_id in "abc":
        faked.put(item_id)
    counting = Counting(ENCODER)
    users = faked.users(faked.galleries(counting))
    users.record("", [event("1", "a", 1)])
    users.recall("", "u")
    assert isinstance(faked.log, FakeLog)
    reads, counting.steps = faked.log.reads, 0
    for at, item_id in enumerate("bcab"):
        users.record("", [event(f"x{at}", item_id, 2 + at)])
        users.recall("", "u")
        users.recall("", "u")
    assert (faked.log.reads - reads, counting.steps) == (0, 4)
    assert_same(users.recall("", "u"), should(faked, DecayingMean(ENCODER), content(*"abc")))


class Counting(DecayingMean):
    """Counts its steps, by row."""

    steps = 0

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        self.steps += len(items)
        return super().step(items, states, strengths)


def test_a_late_event_is_put_where_it_belongs(world: World) -> None:
    for item_id in "abc":
        world.put(item_id)
    users = world.users()
    users.record("", [event("1", "a", 10), event("2", "b", 20)])
    before = users.recall("", "u")
    users.record("", [event("3", "c", 15)])
    after = users.recall("", "u")
    assert (before.liked, after.liked) == (("b", "a"), ("b", "c", "a"))
    assert_same(after, should(world, DecayingMean(ENCODER), content(*"abc")))
    assert users.sizes().replayed == 2
    users.record("", [event("4", "c", 5, EventKind.IMPRESSION)])  # late, but it moves nothing
    users.recall("", "u")
    assert users.sizes().replayed == 2


def test_an_unknown_item_counts_once_it_is_ingested(world: World) -> None:
    world.put("a")
    users = world.users()
    appended, unknown = users.record("", [event("1", "x", 1), event("2", "a", 2), event("3", "x", 3)])
    assert (len(appended.logged), unknown) == (3, 2)
    assert users.record("", [event("1", "x", 1)]) == (type(appended)((), 1), 0)
    before = users.recall("", "u")
    assert (before.events, before.seen, before.liked) == (1, {"a", "x"}, ("x", "a"))
    world.put("x")
    world.settle()
    after = users.recall("", "u")
    assert after.events == 3
    assert_same(after, should(world, DecayingMean(ENCODER), content("a", "x")))


def test_a_replaced_or_removed_item_changes_the_state(world: World) -> None:
    for item_id in "abc":
        world.put(item_id)
    users = world.users()
    users.record("", [event("1", "a", 1), event("2", "b", 2)])
    users.recall("", "u")
    world.put("a", seed=1)
    world.settle()
    assert_same(users.recall("", "u"), should(world, DecayingMean(ENCODER), {"a": vector("a", 1), **content("b")}))
    world.catalog.remove("", "b")
    world.settle()
    assert_same(users.recall("", "u"), should(world, DecayingMean(ENCODER), {"a": vector("a", 1)}))
    replayed = users.sizes().replayed
    world.put("c", seed=1)  # none of the user's
    world.settle()
    users.recall("", "u")
    assert users.sizes().replayed == replayed


def test_nobody_is_nobody(world: World) -> None:
    users = world.users()
    taste = users.recall("", "stranger")
    assert (taste.query, taste.seen, taste.liked, taste.disliked, taste.events) == (None, set(), (), (), 0)
    assert (users.sizes().users, users.sizes().bytes) == (0, 0)


def test_only_what_speaks_for_items_makes_a_query(world: World) -> None:
    world.put("a")
    users = world.users()
    users.record("", [event("1", "a", 1, EventKind.IMPRESSION)])
    assert users.recall("", "u").seen == set()
    users.record("", [event("2", "a", 2, EventKind.SKIP), event("3", "a", 3, EventKind.LIKE, weight=0)])
    taste = users.recall("", "u")
    assert (taste.query, taste.seen, taste.liked, taste.disliked) == (None, {"a"}, (), ("a",))


def test_the_latest_opinion_counts_and_the_ring_is_bounded(world: World) -> None:
    users = world.users(ring=3)
    users.record("", [event(str(at), item_id, at) for at, item_id in enumerate("abcdba")])
    assert users.recall("", "u").liked == ("a", "b", "d")
    users.record("", [event("x", "b", 10, EventKind.DISLIKE)])
    taste = users.recall("", "u")
    assert (taste.liked, taste.disliked) == (("a", "d"), ("b",))
    assert taste.seen == set("abcd")
    assert_same(world.users(ring=3).recall("", "u"), taste)


def test_tenants_never_meet(world: World) -> None:
    world.put("a", tenant="one")
    world.put("a", seed=1, tenant="two")
    users = world.users()
    users.record("one", [event("1", "a", 1)])
    users.record("two", [event("1", "a", 1), event("2", "b", 2)])
    one, two, default = (users.recall(tenant, "u") for tenant in ("one", "two", ""))
    assert one.query is not None
    assert two.query is not None
    np.testing.assert_allclose(one.query, vector("a"), atol=1e-6)
    np.testing.assert_allclose(two.query, vector("a", 1), atol=1e-6)
    assert (one.seen, two.seen, default.seen) == ({"a"}, {"a", "b"}, set())
    users.forget("one", "u")
    assert (users.recall("one", "u").seen, users.recall("two", "u").seen) == (set(), {"a", "b"})


def test_what_the_log_lets_go_of_leaves_the_state(faked: World) -> None:
    for item_id in "abc":
        faked.put(item_id)
    users = faked.users()
    users.record("", [event(str(at), item_id, at) for at, item_id in enumerate("abc")])
    users.recall("", "u")
    user = faked.log.key("", "u")
    assert isinstance(faked.log, FakeLog)
    faked.log.trim(user, 1)
    assert users.recall("", "u").seen == set("abc")  # it has not said so yet
    users.trimmed([user, faked.log.key("", "not in memory")])
    assert_same(users.recall("", "u"), should(faked, DecayingMean(ENCODER), content("c")))
    assert users.recall("", "u").seen == {"c"}


def test_more_events_than_may_wait_are_read_from_the_log(world: World) -> None:
    world.put("a")
    users = world.users()
    users.record("", [event("0", "a", 0)])
    users.recall("", "u")
    for at in range(1, 200):
        users.record("", [event(str(at), "a", at)])
    assert users.sizes().bytes < 100_000
    taste = users.recall("", "u")
    assert (taste.events, users.sizes().replayed) == (200, 2)


class Failing(DecayingMean):
    """Steps into NaN while `broken` is set."""

    broken = False

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        return super().step(items * np.float32(np.nan) if self.broken else items, states, strengths)


def test_a_model_that_fails_leaves_the_state_untouched(world: World) -> None:
    for item_id in "ab":
        world.put(item_id)
    failing = Failing(ENCODER)
    users = world.users(world.galleries(failing))
    users.record("", [event("1", "a", 1)])
    before = users.recall("", "u")
    failing.broken = True
    users.record("", [event("2", "b", 2, EventKind.DISLIKE), event("3", "b", 3)])  # durable all the same
    assert users.recall("", "other").seen == set()
    for _ in range(2):
        with pytest.raises(EngineFailed, match="NaN"):
            users.recall("", "u")
    users.record("", [event("0", "b", 0)])  # late: made anew, which fails, too
    with pytest.raises(EngineFailed, match="NaN"):
        users.recall("", "u")
    failing.broken = False
    assert_same(users.recall("", "u"), should(world, DecayingMean(ENCODER), content("a", "b")))
    assert before.seen == {"a"}
    assert before.liked == ("a",)


def test_a_log_that_fails_is_told_and_nothing_has_changed(faked: World) -> None:
    faked.put("a")
    users = faked.users()
    assert isinstance(faked.log, FakeLog)
    faked.log.broken = True
    with pytest.raises(StoreFailed):
        users.record("", [event("1", "a", 1)])
    with pytest.raises(StoreFailed):
        users.recall("", "u")
    with pytest.raises(StoreFailed):
        users.forget("", "u")
    faked.log.broken = False
    assert users.recall("", "u").events == 0


def test_a_history_that_the_client_sends_leaves_no_trace(world: World) -> None:
    for item_id in "abc":
        world.put(item_id)
    users = world.users()
    users.record("", [event("9", "c", 9)])
    history = [event("2", "b", 20), event("1", "a", 10), event("2", "c", 30), event("3", "a", 5, EventKind.SKIP)]
    taste = users.replay("", history)
    assert (taste.liked, taste.disliked, taste.seen, taste.events) == (("b", "a"), (), {"a", "b"}, 2)
    other = World()
    try:
        for item_id in "abc":
            other.put(item_id)
        stored = other.users()
        stored.record("", history)
        assert_same(taste, stored.recall("", "u"))
    finally:
        other.close()
    assert users.recall("", "u").seen == {"c"}
    assert world.log.sizes().events == 1
    assert users.replay("", []).query is None


def test_a_closed_one_says_so(world: World) -> None:
    users: Users = world.users()
    users.close()
    users.close()
    with pytest.raises(Unavailable):
        users.recall("", "u")
    with pytest.raises(Unavailable):
        users.record("", [event("1", "a", 1)])
    assert world.log.sizes().events == 0
