"""Cheap reads that take long are asked twice; nothing else is, and the first answer counts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest

from matchcut.client import DeadlineExceeded, NotFound, Retry, ServerError

Status = grpc.StatusCode
HEDGED = Retry(attempts=1, hedge=0.02)


def stuck(requests: Iterator[Any], seen: Any, context: grpc.ServicerContext) -> Iterable[Any]:
    """Answers when the caller has gone."""
    next(requests)
    assert seen.gone.wait(30)
    return ()


def test_the_second_answers(make: Any, server: Any) -> None:
    server.on("GetItem", stuck, server._handlers["GetItem"])
    assert make(server.target, retry=HEDGED).get("a").item.id == "a"
    assert len(server.calls) == 2
    assert server.call(0).gone.wait(10)  # the first is wanted no more


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend(items=["a"]),
        lambda c: c.recommend(vector=[1.0]),
        lambda c: c.count_events(),
        lambda c: list(c.items()),
        lambda c: c.health(),
    ],
)
def test_what_is_cheap_is_asked_again(make: Any, server: Any, call: Any) -> None:
    call(make(server.target))
    (method,) = {seen.method for seen in server.calls}
    server.on(method, stuck, server._handlers[method])
    call(make(server.target, retry=HEDGED))
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.recommend(clip=b"clip", timeout=0.3),
        lambda c: c.recommend_for("ann", timeout=0.3),
        lambda c: c.ingest_vectors("a", [(None, [1.0])], timeout=0.3),
        lambda c: c.remove("a", timeout=0.3),
        lambda c: c.forget("ann", timeout=0.3),
    ],
)
def test_what_costs_or_changes_something_is_not(make: Any, server: Any, call: Any) -> None:
    for method in ("Recommend", "RecommendForUser", "IngestVectors", "RemoveItem", "ForgetUser"):
        server.on(method, stuck)
    with pytest.raises(DeadlineExceeded):
        call(make(server.target, retry=HEDGED))
    assert len(server.calls) == 1


def test_who_fails_at_once_is_not_asked_again(make: Any, server: Any) -> None:
    server.on("GetItem", server.fails(Status.NOT_FOUND, "None."))
    with pytest.raises(NotFound, match=r"None\."):
        make(server.target, retry=Retry(attempts=1, hedge=60.0)).get("a")
    assert len(server.calls) == 1


def both(first: Any, second: Any, server: Any) -> None:
    """The first is answered only once the second has come, and the second once the first has been answered or not."""
    came, answered = threading.Event(), threading.Event()

    def slow(requests: Iterator[Any], seen: Any, context: grpc.ServicerContext) -> Iterable[Any]:
        assert came.wait(10)
        try:
            yield from first(requests, seen, context)
        finally:
            answered.set()

    def late(requests: Iterator[Any], seen: Any, context: grpc.ServicerContext) -> Iterable[Any]:
        came.set()
        assert answered.wait(10)
        yield from second(requests, seen, context)

    server.on("GetItem", slow, late)


def test_an_answer_counts_more_than_an_error(make: Any, server: Any) -> None:
    both(server.fails(Status.INTERNAL, "Broken."), server._handlers["GetItem"], server)
    assert make(server.target, retry=HEDGED).get("a").item.id == "a"


def test_where_both_fail_it_fails(make: Any, server: Any) -> None:
    broken = server.fails(Status.INTERNAL, "Broken.")
    both(broken, broken, server)
    with pytest.raises(ServerError, match=r"Broken\."):
        make(server.target, retry=HEDGED).get("a")
    assert len(server.calls) == 2


def test_the_deadline_is_one_for_both(make: Any, server: Any) -> None:
    server.on("GetItem", stuck)
    with pytest.raises(DeadlineExceeded):
        make(server.target, retry=HEDGED, timeout=0.2).get("a")
    assert len(server.calls) == 2
