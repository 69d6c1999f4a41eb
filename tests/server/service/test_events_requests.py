"""Events and users' options as records: every bound, each named by its field, and no value told of."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.records import EventKind, ItemsQuery, PersonalOptions, VectorQuery
from matchcut.server.service import replies
from matchcut.server.service.events_requests import (
    BOUNDS,
    EventRequests,
    count_limit,
    counted_items,
    personal_options,
)
from matchcut.server.service.requests import Requests
from matchcut.v1 import events_pb2, recommender_pb2

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
SECRET = "alice-of-wonderland"
CONFIG = Config(data=Path("none"), event_ahead=86400.0)
understand = EventRequests(CONFIG, Requests(CONFIG), now_us=lambda: NOW_US)


def event(**changed: Any) -> events_pb2.Event:
    """A valid event, but for what is changed."""
    made: dict[str, Any] = {"user_id": SECRET, "item_id": "film", "kind": events_pb2.EVENT_KIND_LIKE, "time_us": 5}
    return events_pb2.Event(**(made | changed))


def test_every_kind_has_one_number_and_back() -> None:
    assert set(replies.KINDS) == set(EventKind)
    numbers = {value.number for value in events_pb2.EventKind.DESCRIPTOR.values} - {0}
    assert set(replies.KINDS.values()) == numbers
    for kind, number in replies.KINDS.items():
        assert events_pb2.EventKind.Name(number) == f"EVENT_KIND_{kind.name}"
        assert understand.events([event(kind=number)])[0].kind is kind


def test_what_is_not_set_has_its_meaning() -> None:
    (made,) = understand.events([event()])
    assert (made.weight, made.fraction, made.watched_us) == (1.0, None, 0)
    assert (made.session_id, made.recommendation_id) == ("", "")
    (weightless,) = understand.events([event(weight=0.0)])
    assert weightless.weight == 0.0
    (unwatched,) = understand.events([event(fraction=0.0)])
    assert unwatched.fraction == 0.0


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)


@given(
    event_id=texts,
    user_id=texts.filter(bool),
    item_id=texts.filter(bool),
    kind=st.sampled_from(sorted(replies.KINDS.values())),
    time_us=st.integers(1, NOW_US + DAY_US),
    session_id=texts,
    weight=st.none() | st.floats(0, 1),
    extent=st.none() | st.floats(0, 1) | st.integers(0, 2**63 - 1),
    recommendation_id=texts,
)
def test_what_is_sent_is_what_is_kept(**sent: Any) -> None:
    extent = sent.pop("extent")
    if extent is not None:
        sent["fraction" if isinstance(extent, float) else "watched_us"] = extent
    (made,) = understand.events([events_pb2.Event(**sent)])
    for name in ("user_id", "item_id", "time_us", "session_id", "recommendation_id"):
        assert getattr(made, name) == sent[name]
    assert made.event_id == sent["event_id"] or (not sent["event_id"] and len(made.event_id) == 64)
    assert made.weight == (1.0 if sent["weight"] is None else sent["weight"])
    assert made.fraction == sent.get("fraction")
    assert made.watched_us == sent.get("watched_us", 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_id", ""),
        ("user_id", SECRET * 14),
        ("item_id", ""),
        ("item_id", "i" * 257),
        ("item_id", "\U0001f600" * 65),
        ("event_id", "e" * 257),
        ("session_id", "s" * 257),
        ("recommendation_id", "r" * 257),
        ("kind", events_pb2.EVENT_KIND_UNSPECIFIED),
        ("kind", 77),
        ("time_us", -1),
        ("time_us", NOW_US + DAY_US + 1),
        ("time_us", NOW_US + 3650 * DAY_US),
        ("time_us", 2**63 - 1),
        ("weight", math.nan),
        ("weight", math.inf),
        ("weight", -0.001),
        ("weight", 1.001),
        ("fraction", math.nan),
        ("fraction", -1.0),
        ("fraction", 2.0),
        ("watched_us", -1),
    ],
)
def test_one_wrong_field_refuses_all_and_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        understand.events([event()] * 17 + [event(**{name: value})] + [event()] * 3)
    assert refused.value.field == f"events[17].{name}"
    assert refused.value.message.startswith(f"events[17].{name} ")
    assert SECRET not in refused.value.message


def test_the_edges_are_allowed() -> None:
    smiles = "\U0001f600" * 64  # 256 bytes
    edges = event(user_id=smiles, item_id=smiles, event_id=smiles, session_id=smiles, recommendation_id=smiles)
    assert understand.events([edges, event(time_us=NOW_US + DAY_US), event(weight=1.0, fraction=1.0)])


def test_how_many_events_there_may_be() -> None:
    with pytest.raises(InvalidInput, match="events is empty"):
        understand.events([])
    assert len(understand.events([event()] * 10_000)) == 10_000
    with pytest.raises(InvalidInput, match="events has 10001 entries") as many:
        understand.events([event()] * 10_001)
    assert many.value.field == "events"


def test_an_event_without_a_time_is_now() -> None:
    assert understand.events([event(time_us=0)])[0].time_us == NOW_US


def test_an_id_is_made_of_all_other_fields() -> None:
    (first,), (again,) = understand.events([event()]), understand.events([event()])
    assert first.event_id == again.event_id
    others = [
        event(user_id="bob"),
        event(item_id="other"),
        event(kind=events_pb2.EVENT_KIND_SKIP),
        event(time_us=6),
        event(session_id="s"),
        event(weight=0.5),
        event(fraction=0.0),
        event(watched_us=0),
        event(recommendation_id="r"),
        event(time_us=0),  # the server's time, which is another at another time
    ]
    ids = {first.event_id, *(made.event_id for made in understand.events(others))}
    assert len(ids) == len(others) + 1


def test_two_of_one_content_at_different_server_times_are_two() -> None:
    later = EventRequests(CONFIG, Requests(CONFIG), now_us=lambda: NOW_US + 1)
    (now,), (then,) = understand.events([event(time_us=0)]), later.events([event(time_us=0)])
    assert now.event_id != then.event_id


def test_a_live_event_is_of_the_header_s_user() -> None:
    assert understand.live(event(user_id=""), SECRET).user_id == SECRET
    assert understand.live(event(), SECRET).user_id == SECRET
    with pytest.raises(InvalidInput) as other:
        understand.live(event(), "bob")
    assert other.value.field == "event.user_id"
    assert SECRET not in other.value.message
    assert "bob" not in other.value.message
    with pytest.raises(InvalidInput) as wrong:
        understand.live(event(time_us=-1), SECRET)
    assert wrong.value.field == "event.time_us"


def ask(**fields: Any) -> Any:
    return understand.asked(recommender_pb2.RecommendForUserRequest(**fields))


def test_whom_a_list_is_for() -> None:
    assert ask(user_id=SECRET).user_id == SECRET
    with pytest.raises(InvalidInput) as nobody:
        ask()
    assert nobody.value.field == "user_id"
    with pytest.raises(InvalidInput) as long:
        ask(user_id="u" * 257)
    assert long.value.field == "user_id"
    with pytest.raises(InvalidInput) as header:
        understand.asked(recommender_pb2.RecommendForUserLiveHeader())
    assert header.value.field == "user_id"


def test_a_history_needs_no_user_and_has_one_at_most() -> None:
    asked = ask(history=[event(user_id="", item_id="a"), event(user_id="", item_id="b")])
    assert asked.user_id == ""
    assert [one.item_id for one in asked.history] == ["a", "b"]
    assert ask(history=[event(user_id=""), event()]).user_id == SECRET
    assert ask(user_id=SECRET, history=[event(user_id=""), event()]).user_id == SECRET
    for request in ({"user_id": "bob", "history": [event()]}, {"history": [event(), event(user_id="bob")]}):
        with pytest.raises(InvalidInput) as mixed:
            ask(**request)
        assert mixed.value.field.startswith("history[")
        assert mixed.value.field.endswith("].user_id")
        assert SECRET not in mixed.value.message
    with pytest.raises(InvalidInput) as wrong:
        ask(history=[event(), event(weight=math.nan)])
    assert wrong.value.field == "history[1].weight"
    assert len(ask(history=[event()] * 1000).history) == 1000
    with pytest.raises(InvalidInput, match="history has 1001 entries"):
        ask(history=[event()] * 1001)


def test_what_is_of_interest_now() -> None:
    assert ask(user_id=SECRET).current is None
    items = recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=["a", "a"]))
    assert ask(user_id=SECRET, current=items).current == ItemsQuery(("a",))
    vector = ask(user_id=SECRET, current={"vector": {"values": [1.0, 0.0]}}).current
    assert isinstance(vector, VectorQuery)
    np.testing.assert_array_equal(vector.values, np.array([1, 0], np.float32))
    with pytest.raises(InvalidInput) as empty:
        ask(user_id=SECRET, current={"items": {}})
    assert empty.value.field == "current.items.item_ids"
    with pytest.raises(InvalidInput) as unset:
        ask(user_id=SECRET, current={})
    assert unset.value.field == "current"


def test_only_options_that_are_set_are_asked_for() -> None:
    assert personal_options(recommender_pb2.UserOptions()) == {}
    zeros = {"include_seen": False, "mmr_lambda": 0.0, "popularity": 0.0, "cap": 0}
    assert personal_options(recommender_pb2.UserOptions(**zeros)) == zeros  # type: ignore[arg-type]


def test_every_option_is_one_of_the_records() -> None:
    known = {field.name for field in fields(PersonalOptions)}
    sent = {field.name for field in recommender_pb2.UserOptions.DESCRIPTOR.fields}
    assert sent == known
    assert sent - BOUNDS.keys() == {"include_seen", "cap_attribute"}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, math.nan) for name in ("mmr_lambda", "current_weight", "freshness", "popularity", "exploration")]
    + [(name, 1.01) for name in ("mmr_lambda", "current_weight", "exploration")]
    + [(name, -0.01) for name in ("mmr_lambda", "current_weight", "freshness", "popularity", "exploration")]
    + [("freshness", math.inf), ("popularity", math.inf), ("freshness_half_life_us", 0), ("cap", -1)]
    + [("freshness", 1000.5), ("popularity", 1000.5), ("freshness_half_life_us", (1 << 62) + 1)]
    + [("cap_attribute", ""), ("cap_attribute", "a" * 257)],
)
def test_options_out_of_their_bounds(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        ask(user_id=SECRET, user_options={name: value})
    assert refused.value.field == f"user_options.{name}"


def test_what_is_counted() -> None:
    assert counted_items(["b", "a", "b"]) == ("b", "a")
    assert len(counted_items([str(number) for number in range(1000)])) == 1000
    for names in (["a"] * 1001, ["a", ""], ["a" * 257]):
        with pytest.raises(InvalidInput) as refused:
            counted_items(names)
        assert refused.value.field == "item_ids"
    assert [count_limit(limit) for limit in (0, 1, 1000)] == [100, 1, 1000]
    for limit in (-1, 1001):
        with pytest.raises(InvalidInput):
            count_limit(limit)
