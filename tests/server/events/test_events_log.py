"""What the log keeps, in which order, and for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput, StoreFailed
from matchcut.server.events import EventLog, open_log, read_exposures, strength
from matchcut.server.records import Event, EventKind, Exposure, Logged, Shown, UserKey

Make = Callable[..., Event]


def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it does not come true")


def items(log: EventLog, user: str = "ann", tenant: str = "") -> list[str]:
    return [event.item_id for event in log.events(log.key(tenant, user))]


def test_events_come_back_in_order(log: EventLog, make: Make, now_us: int) -> None:
    told = [make("3", item="c", at=3), make("1", item="a", at=1), make("2", item="b", kind=EventKind.LIKE, at=2)]
    appended = log.append("", told)
    key = log.key("", "ann")
    assert appended.duplicates == 0
    assert [user for user, _ in appended.logged] == [key] * 3
    assert [event.item_id for _, event in appended.logged] == ["c", "a", "b"]
    kept = log.events(key)
    assert kept == sorted((event for _, event in appended.logged), key=lambda event: event.order)
    assert [(event.time_us - now_us, event.kind, event.strength) for event in kept] == [
        (1, EventKind.CLICK, 0.5),
        (2, EventKind.LIKE, 1.0),
        (3, EventKind.CLICK, 0.5),
    ]
    assert log.sizes().events == 3
    assert log.sizes().users == 1
    assert log.sizes().bytes > 0


def test_the_first_of_an_id_is_kept(log: EventLog, make: Make) -> None:
    log.append("", [make("1", item="a")])
    appended = log.append("", [make("1", item="b"), make("2", item="c"), make("2", item="d"), make("1", user="bob")])
    assert [event.item_id for _, event in appended.logged] == ["c"]
    assert appended.duplicates == 3
    assert sorted(items(log)) == ["a", "c"]
    assert items(log, "bob") == []
    assert log.sizes().users == 1


def test_nothing_to_append(log: EventLog) -> None:
    appended = log.append("", [])
    assert (appended.logged, appended.duplicates) == ((), 0)
    assert log.events(log.key("nobody", "ann")) == []


def test_many_users_at_once(log: EventLog, make: Make) -> None:
    log.append("", [make(f"{at}", f"u{at % 150}", f"i{at}", at=at) for at in range(900)])
    log.append("other", [make("0", "u1", "theirs")])
    keys = [log.key("", f"u{at}") for at in range(149, -1, -1)]
    keys[70:70] = [log.key("other", "u1"), log.key("", "stranger"), UserKey("nobody", bytes(16))]
    found = log.events_of(keys)
    assert [len(events) for events in found] == [6] * 70 + [1, 0, 0] + [6] * 80
    assert found == [log.events(key) for key in keys]
    assert [event.item_id for event in found[0]] == [f"i{at}" for at in range(149, 900, 150)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_with_duplicates_gives_the_same(data: st.DataObject, make: Make) -> None:
    kinds = st.sampled_from(EventKind)
    drawn = data.draw(
        st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), kinds, st.integers(0, 5)), max_size=25)
    )
    told = [make(f"e{at}", user, item, kind, time_us) for at, (user, item, kind, time_us) in enumerate(drawn)]
    extra = data.draw(st.lists(st.sampled_from(told), max_size=10)) if told else []
    shuffled = data.draw(st.permutations([*told, *extra]))
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=len(shuffled), max_size=len(shuffled)))
    with closing(open_log(None, days=0, threshold=0)) as log:
        rest, new = iter(shuffled), 0
        for size in sizes:
            new += len(log.append("", list(islice(rest, size))).logged)
        assert new == len(told)
        for user in "uvw":
            kept = log.events(log.key("", user))
            assert kept == sorted(kept, key=lambda event: event.order)
            wanted = [(one.time_us, one.item_id, one.kind, strength(one)) for one in told if one.user_id == user]
            assert sorted((one.time_us, one.item_id, one.kind.value, one.strength) for one in kept) == sorted(
                (time_us, item, kind.value, strong) for time_us, item, kind, strong in wanted
            )
        counted = {one.item_id: one for one in log.counts("", list("abcd"), 0)}
        for item in "abcd":
            its = [one for one in told if one.item_id == item]
            assert counted[item].users == len({one.user_id for one in its})
            for kind in EventKind:
                assert counted[item].kinds.get(kind, 0) == len({one.user_id for one in its if one.kind is kind})
            loved = len({one.user_id for one in its if strength(one) > 0})
            assert log.popularity("").get(item, 0) == loved
        assert log.sizes().users == len({one.user_id for one in told})


def test_the_order_does_not_depend_on_the_order_of_arrival(tmp_path: Path, make: Make) -> None:
    told = [make(f"{at}", at=at % 3, item=f"i{at}") for at in range(40)]
    with closing(open_log(tmp_path / "a", days=0)) as one:
        one.append("", told)
        first = one.events(one.key("", "ann"))
        one.append("", told[::-1])
        assert one.events(one.key("", "ann")) == first
        assert [event.time_us for event in first] == sorted(event.time_us for event in first)


@pytest.mark.parametrize("item", ["a\0b", "\0", 'quote"d', "ü" * 128, "🎬", "back\\slash", "line\nbreak", "'; DROP"])
def test_odd_ids(log: EventLog, make: Make, item: str, now_us: int) -> None:
    log.append(item, [make(item, item, item, EventKind.LIKE), make("other", item, item + "2")])
    assert sorted(items(log, item, item)) == [item, item + "2"]
    assert log.append(item, [make(item, item, item)]).duplicates == 1
    assert log.introduced(item, [item], now_us) == {item: now_us}
    until(lambda: log._later.waits() is False)  # type: ignore[attr-defined]
    assert log.introduced(item, [item], now_us + 1) == {item: now_us}


def test_survives_a_restart(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "events.sqlite"
    with closing(open_log(path, days=0, threshold=2)) as log:
        log.append("t", [make(f"{at}", f"u{at % 7}", f"i{at % 3}", EventKind.LIKE, at) for at in range(50)])
        keys = [log.key("t", f"u{at}") for at in range(7)]
        before = log.events_of(keys), log.counts("t", [], 9), dict(log.popularity("t")), log.sizes()
    with closing(open_log(path, days=0, threshold=2)) as log:
        assert [log.key("t", f"u{at}") for at in range(7)] == keys
        after = log.events_of(keys), log.counts("t", [], 9), dict(log.popularity("t")), log.sizes()
        assert after[:3] == before[:3]
        assert replace(after[3], bytes=0) == replace(before[3], bytes=0)
        assert log.append("t", [make("7", "u0")]).duplicates == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": ""}, "event_id"),
        ({"user_id": ""}, "user_id"),
        ({"item_id": ""}, "item_id"),
        ({"time_us": -1}, "time_us"),
        ({"time_us": 1 << 63}, "time_us"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": 1.01}, "weight"),
        ({"fraction": float("inf")}, "fraction"),
        ({"fraction": -0.1}, "fraction"),
        ({"watched_us": -5}, "watched_us"),
    ],
)
def test_of_a_call_with_a_bad_event_nothing_is_kept(
    log: EventLog, make: Make, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        log.append("", [make("1"), replace(make("2"), **change)])
    assert caught.value.field == f"events[1].{field}"
    assert log.sizes().events == 0


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"kind": EventKind.IMPRESSION}, 0.0),
        ({"kind": EventKind.PURCHASE, "weight": 0.25}, 0.25),
        ({"kind": EventKind.DISLIKE}, -1.0),
        ({"kind": EventKind.SKIP, "weight": 0.5}, -0.25),
        ({"kind": EventKind.WATCH}, 0.5),
        ({"kind": EventKind.WATCH, "fraction": 0.0, "watched_us": 10_000_000}, 0.0),
        ({"kind": EventKind.WATCH, "watched_us": 10_000_000}, 0.5),
        ({"kind": EventKind.WATCH, "watched_us": 30_000_000}, 0.875),
        ({"kind": EventKind.WATCH, "watched_us": 1 << 62}, 1.0),
    ],
)
def test_strengths(make: Make, change: dict[str, Any], wanted: float) -> None:
    assert strength(replace(make("1"), **change)) == wanted


@given(fraction=st.floats(0, 1), weight=st.floats(0, 1))
def test_a_strength_comes_back_as_it_was(fraction: float, weight: float) -> None:
    event = Event("1", "u", "i", EventKind.WATCH, 5, weight=weight, fraction=fraction)
    assert abs(strength(event) - fraction * weight) <= 2**-21
    with closing(open_log(None, days=0)) as log:
        ((_, logged),) = log.append("", [event]).logged
        assert log.events(log.key("", "u")) == [logged]
        assert logged.strength == strength(event)


def test_tenants_never_meet(log: EventLog, make: Make, now_us: int) -> None:
    log.append("a", [make("1", "ann", "x", EventKind.LIKE)])
    assert log.append("b", [make("1", "ann", "y")]).duplicates == 0
    ours, theirs = log.key("a", "ann"), log.key("b", "ann")
    assert ours.digest != theirs.digest
    assert items(log, tenant="a") == ["x"]
    assert items(log, tenant="b") == ["y"]
    assert log.events(UserKey("b", ours.digest)) == []
    assert log.events(UserKey("a", ours.digest))[0].digest != log.events(theirs)[0].digest
    log.introduced("a", ["x"], now_us)
    assert log.introduced("b", ["x"], now_us + 5) == {"x": now_us + 5}
    assert log.forget("b", "ann").events == 1
    assert items(log, tenant="a") == ["x"]


def test_ids_of_each_sort_have_a_key_of_their_own(log: EventLog, make: Make) -> None:
    log.append("", [replace(make("same", "same"), session_id="same", recommendation_id="same")])
    sorts = log._tenant("").pseudonyms  # type: ignore[attr-defined]
    digests = {sorts.user("same"), sorts.event("same"), sorts.session("same"), sorts.recommendation("same")}
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {16}
    assert len(sorts.salt) == 32


def test_strangers_are_not_remembered_for_ever(log: EventLog, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    monkeypatch.setattr("matchcut.server.events.local._STRANGERS", 3)
    keys = [log.key(f"t{at}", "ann") for at in range(5)]
    assert log.key("t4", "ann") == keys[4]
    assert log.key("t0", "ann") != keys[0]
    log.append("t3", [make("1")])
    for at in range(9):
        log.key(f"s{at}", "ann")
    assert log.key("t3", "ann") == keys[3]


def test_exposures_are_kept_within_a_moment(tmp_path: Path, now_us: int) -> None:
    path = tmp_path / "events.sqlite"
    shown = (Shown("x", 0, 0.5, 0.9), Shown("y\0", 1, -1.25, 1 / 3))
    with closing(open_log(path, days=0)) as log:
        key = log.key("t", "ann")
        log.expose(key, Exposure("r1", now_us, "e", "b", "m", shown))
        until(lambda: log.sizes().exposures == 1)
        ((tenant, user, exposure),) = read_exposures(path)
        assert (tenant, user) == key
        assert exposure.shown == shown
        assert exposure.recommendation_id != "r1"
        log.expose(key, Exposure("r2", now_us, "e", "b", "m", shown))
    assert len(list(read_exposures(path))) == 2  # the last was written when it was closed


def test_introduced(log: EventLog, make: Make, now_us: int) -> None:
    assert log.introduced("", [], now_us) == {}
    assert log.introduced("", ["a", "b", "a"], now_us) == {"a": now_us, "b": now_us}
    assert log.introduced("", ["b", "c"], now_us + 1) == {"b": now_us, "c": now_us + 1}
    until(lambda: log._later.waits() is False)  # type: ignore[attr-defined]
    assert log.introduced("", ["a", "b", "c", "d"], now_us + 2) == {
        "a": now_us,
        "b": now_us,
        "c": now_us + 1,
        "d": now_us + 2,
    }


def test_closed(log: EventLog, make: Make) -> None:
    log.append("", [make("1")])
    log.close()
    log.close()
    with pytest.raises(StoreFailed) as caught:
        log.append("", [make("2")])
    assert caught.value.reason == "STORE_CLOSED"


def test_what_is_kept_is_what_is_said(log: EventLog, make: Make) -> None:
    ((key, logged),) = log.append("", [make("1")]).logged
    assert isinstance(logged, Logged)
    assert log.events(key) == [logged]
