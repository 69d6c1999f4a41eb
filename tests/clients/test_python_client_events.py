"""Events from both Python clients: what leaves, in which calls, what is sent again, and what is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, get_args

import grpc
import numpy as np
import pytest

from matchcut.client import Event, EventKind, InvalidInput, Recorded, Unavailable
from matchcut.v1 import events_pb2

Status = grpc.StatusCode


def kept(requests: Iterator[Any], *_: Any) -> list[events_pb2.RecordEventsResponse]:
    """A reply to the request, read."""
    return [events_pb2.RecordEventsResponse(recorded=len(next(requests).events))]


def sent(server: Any) -> list[list[events_pb2.Event]]:
    """The events of each call."""
    return [list(call.requests[0].events) for call in server.calls]


def test_an_event_is_told_whole(client: Any, server: Any) -> None:
    done = client.record(
        [
            Event("ann", "film", "watch", 2.5, "visit", 0.5, watched=1.25, recommendation="list", id="e1"),
            {"user": "bob", "item": "clip", "kind": "watch", "time": 3, "fraction": 0.0},
        ]
    )
    assert done == Recorded(recorded=2, duplicates=1, unknown_items=2, seconds=0.5)
    (request,) = server.call().requests
    assert request.tenant == "films"
    first, second = request.events
    assert first == events_pb2.Event(
        event_id="e1",
        user_id="ann",
        item_id="film",
        kind=events_pb2.EVENT_KIND_WATCH,
        time_us=2_500_000,
        session_id="visit",
        weight=0.5,
        watched_us=1_250_000,
        recommendation_id="list",
    )
    assert second.WhichOneof("extent") == "fraction"
    assert not second.HasField("weight")
    assert second.event_id == ""  # the server makes one of the other fields, which tell the time


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_each_kind_is_the_contract_s(client: Any, server: Any, kind: Any) -> None:
    client.record([Event("ann", "film", kind)])
    assert events_pb2.EventKind.Name(server.call().requests[0].events[0].kind) == f"EVENT_KIND_{kind.upper()}"


def test_there_is_a_word_for_each_kind() -> None:
    known = {value.name for value in events_pb2.EventKind.DESCRIPTOR.values if value.number}
    assert {f"EVENT_KIND_{kind.upper()}" for kind in get_args(EventKind)} == known


def test_many_events_go_in_calls_of_500(client: Any, server: Any) -> None:
    taken = 0

    def events() -> Iterator[Event]:
        nonlocal taken
        for number in range(1201):
            taken += 1
            yield Event(f"user {number}", "film", "click", time=number)

    told: list[tuple[int, int]] = []
    done = client.record(events(), progress=lambda so_far: told.append((so_far.recorded, taken)))
    assert [len(events) for events in sent(server)] == [500, 500, 201]
    assert [event.user_id for events in sent(server) for event in events] == [f"user {n}" for n in range(1201)]
    assert told == [(500, 500), (1000, 1000), (1201, 1201)]
    assert done == Recorded(1201, 3, 1201, 1.5)


@pytest.mark.parametrize(
    "event", [Event("ann", "film", "like", 2.5), {"user": "ann", "item": "film", "kind": "like", "time": 2.5}]
)
def test_one_event_may_come_alone(client: Any, server: Any, event: Any) -> None:
    assert client.record(event).recorded == 1
    assert [(one.user_id, one.time_us) for one in sent(server)[0]] == [("ann", 2_500_000)]


def test_a_time_may_be_a_datetime(client: Any, server: Any) -> None:
    when = datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    client.record([Event("ann", "film", "like", when), Event("ann", "film", "like", np.float64(99_999_999_999.0))])
    assert [event.time_us for event in sent(server)[0]] == [1_714_564_800_000_000, 99_999_999_999_000_000]


def test_no_events_are_no_call(client: Any, server: Any) -> None:
    assert client.record([]) == Recorded()
    assert server.calls == []


def test_a_try_again_is_of_the_very_same_events(client: Any, server: Any) -> None:
    unavailable = server.fails(Status.UNAVAILABLE, "Not now.")
    server.on("RecordEvents", unavailable, unavailable, kept)
    client.record([Event("ann", "film", "click"), Event("ann", "film", "click"), Event("ann", "film", "click", 5.0)])
    first, *others = sent(server)
    assert len(others) == 2
    assert others == [first, first]
    assert len({event.event_id for event in first}) == 3  # two clicks are two
    assert first[2].event_id == ""


def test_what_was_kept_before_a_failure_was_told(client: Any, server: Any) -> None:
    refused = server.fails(Status.INVALID_ARGUMENT, "events[3].weight is 2; it must be 0 to 1")
    server.on("RecordEvents", kept, refused)
    told: list[Recorded] = []
    with pytest.raises(InvalidInput, match="weight is 2"):
        client.record((Event("ann", "film", "like", n + 1) for n in range(900)), progress=told.append)
    assert told == [Recorded(500)]


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ({"user": "ann", "item": "film", "kind": "loved"}, ValueError, "kind is one of impression, click"),
        ({"user": "ann", "item": "film", "kind": "like", "colour": 1}, TypeError, "colour"),
        ({"user": "ann", "item": "film"}, TypeError, "kind"),
        (Event("ann", "film", "watch", fraction=0.5, watched=2.0), ValueError, "either fraction or watched"),
        ({"item": "film", "kind": "like"}, TypeError, "no 'user'"),
        ("ann", TypeError, "not str"),
        (Event(7, "film", "like"), TypeError, "user is a str, not 7"),  # type: ignore[arg-type]
        (Event("ann", "film", ["like"]), TypeError, "kind is a str"),  # type: ignore[arg-type]
        (Event("ann", "film", "like", time="2026-11-20"), TypeError, "not '2026-11-20'"),  # type: ignore[arg-type]
        (Event("ann", "film", "like", time=datetime(2026, 11, 20)), ValueError, "no time zone"),
        (Event("ann", "film", "like", time=float("nan")), ValueError, "time is nan"),
        (Event("ann", "film", "like", time=1_795_046_532_000), ValueError, "1795046532000, which looks like millis"),
        (Event("ann", "film", "like", time=1.795e15), ValueError, "looks like microseconds: time is in seconds"),
        (Event("ann", "film", "like", time=10**18), ValueError, "looks like nanoseconds"),
        (Event("ann", "film", "watch", watched="3"), TypeError, "watched is a number"),  # type: ignore[arg-type]
        (Event("ann", "film", "watch", watched=float("inf")), ValueError, "watched is inf"),
        (Event("ann", "film", "like", weight=True), TypeError, "weight is a number, not True"),
    ],
)
def test_what_is_no_event_is_told_at_once(client: Any, server: Any, event: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        client.record([event])
    assert server.calls == []


def test_a_caller_s_own_failure_passes_through(client: Any, server: Any) -> None:
    def events() -> Iterator[Event]:
        for number in range(600):
            yield Event("ann", "film", "click", number + 1)
        raise RuntimeError("the disk fell down")

    with pytest.raises(RuntimeError, match="fell down"):
        client.record(events())
    assert len(server.calls) == 1


def test_forgetting_gives_a_receipt(client: Any, server: Any) -> None:
    receipt = client.forget("ann")
    assert (receipt.events, receipt.exposures, receipt.time, receipt.digest) == (3, 2, 1.5, "ab" * 32)
    (request,) = server.call().requests
    assert (request.tenant, request.user_id) == ("films", "ann")
    server.on("ForgetUser", server.fails(Status.UNAVAILABLE, "Not now."))
    with pytest.raises(Unavailable):  # a second receipt would say that there was nothing
        client.forget("ann")
    assert len(server.calls) == 2


def test_counts(client: Any, server: Any) -> None:
    counts = client.count_events(["a", "b"], limit=3)
    assert [(one.item, one.users, dict(one.kinds)) for one in counts] == [
        ("a", 12, {"like": 11, "unknown": 10}),
        ("b", 12, {"like": 11, "unknown": 10}),
    ]
    assert (counts.threshold, len(counts)) == (10, 2)
    (request,) = server.call().requests
    assert (request.tenant, list(request.item_ids), request.limit) == ("films", ["a", "b"], 3)
    assert len(client.count_events()) == 0
    with pytest.raises(TypeError, match="list of strings"):
        client.count_events("ab")


@pytest.mark.parametrize("method", ["record", "count_events"])
def test_unknown_keywords_are_told(client: Any, method: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword 'tenant'"):
        getattr(client, method)([], tenant="other")
