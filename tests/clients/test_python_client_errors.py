"""What both Python clients raise, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from matchcut.client import (
    Cancelled,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidInput,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from matchcut.v1 import catalog_pb2

Status = grpc.StatusCode


@pytest.mark.parametrize("token", ["two\nlines", "trailing\n", "caf\u00e9", "nul\0"])
def test_a_token_that_no_header_may_have_is_refused_unsaid(make: Any, token: str) -> None:
    with pytest.raises(ValueError, match="the token has characters") as caught:
        make("localhost:1", token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(make: Any, client: Any, timeout: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        make("localhost:1", timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        client.get("a", timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        list(client.live(b"x", timeout=timeout))


@pytest.mark.parametrize("timeout", [1e300, float("inf")])
def test_a_timeout_without_end_is_no_bound(client: Any, timeout: float) -> None:
    assert client.get("a", timeout=timeout).item.id == "a"


@pytest.mark.parametrize(("seconds", "told"), [(-10_000 * 365 * 86400, 0.0), (10**17, 1e17)])
def test_a_wish_beyond_all_measure(client: Any, server: Any, seconds: int, told: float) -> None:
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds))
    server.on("RemoveItem", server.fails(Status.UNAVAILABLE, "Not now.", info))
    with pytest.raises(Unavailable) as caught:
        client.remove("a")
    assert caught.value.retry_after == told


class Oops(Exception):
    """What the callers' own code raises here."""


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.INVALID_ARGUMENT, InvalidInput),
        (Status.OUT_OF_RANGE, InvalidInput),
        (Status.NOT_FOUND, NotFound),
        (Status.FAILED_PRECONDITION, FailedPrecondition),
        (Status.RESOURCE_EXHAUSTED, Overloaded),
        (Status.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Status.CANCELLED, Cancelled),
        (Status.UNAVAILABLE, Unavailable),
        (Status.UNAUTHENTICATED, Unauthenticated),
        (Status.PERMISSION_DENIED, NotAllowed),
        (Status.INTERNAL, ServerError),
        (Status.UNIMPLEMENTED, ServerError),
    ],
)
@pytest.mark.parametrize("way", ["get", "ingest", "live", "clip"])
def test_each_status_has_its_error(make: Any, server: Any, status: Any, kind: type[Error], way: str) -> None:
    client = make(server.target, retry=None)
    info = error_details_pb2.ErrorInfo(reason="WHY", domain="matchcut")
    violation = error_details_pb2.BadRequest.FieldViolation(field="item.item_id", description="bad")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    again = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
    for method in ("GetItem", "Ingest", "RecommendLive"):
        server.on(method, server.fails(status, "Do otherwise.", info, bad, again))
    calls: dict[str, Any] = {
        "get": lambda: client.get("a"),
        "ingest": lambda: client.ingest("a", b"x"),
        "live": lambda: list(client.live(b"x")),
        "clip": lambda: client.recommend(clip=iter([b"x"])),
    }
    with pytest.raises(Error) as caught:
        calls[way]()
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.message, str(error)) == (status.name, "Do otherwise.", "Do otherwise.")
    assert (error.reason, error.field, error.retry_after) == ("WHY", "item.item_id", 1.5)
    assert isinstance(error.__cause__, grpc.RpcError)


def test_an_error_without_details_or_with_garbled_ones_still_maps(client: Any, server: Any) -> None:
    def bare(requests: Any, seen: Any, context: grpc.ServicerContext) -> list[Message]:
        context.abort(Status.NOT_FOUND, "Gone.")
        return []

    def garbled(requests: Any, seen: Any, context: grpc.ServicerContext) -> list[Message]:
        context.set_trailing_metadata([("grpc-status-details-bin", b"\xff\xff\xff")])
        context.abort(Status.NOT_FOUND, "Gone.")
        return []

    for handler in (bare, garbled):
        server.on("GetItem", handler)
        with pytest.raises(NotFound, match="Gone") as caught:
            client.get("a")
        assert (caught.value.reason, caught.value.field, caught.value.retry_after) == ("", "", None)


def test_an_unreachable_server_is_unavailable(make: Any) -> None:
    client = make("localhost:1")
    with pytest.raises(Unavailable):
        client.get("a")


@pytest.mark.parametrize("way", ["get", "ingest", "live", "clip"])
def test_the_deadline_ends_the_call_on_both_sides(client: Any, server: Any, way: str) -> None:
    def stuck(requests: Iterator[Any], seen: Any, context: Any) -> list[Message]:
        assert seen.gone.wait(10)
        context.abort(Status.DEADLINE_EXCEEDED, "Nobody waits any more.")
        return []

    for method in ("GetItem", "Ingest", "RecommendLive"):
        server.on(method, stuck)
    calls: dict[str, Any] = {
        "get": lambda: client.get("a", timeout=0.1),
        "ingest": lambda: client.ingest("a", b"x", timeout=0.1),
        "live": lambda: list(client.live(b"x", timeout=0.1)),
        "clip": lambda: client.recommend(clip=iter([b"x"]), timeout=0.1),
    }
    with pytest.raises(DeadlineExceeded):
        calls[way]()
    assert server.call().gone.wait(10)
    assert len(server.calls) == 1


def test_the_clients_timeout_is_for_all_but_live_calls(make: Any, server: Any) -> None:
    left: list[float | None] = []

    def note(requests: Iterator[Any], seen: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        left.append(context.time_remaining())
        yield catalog_pb2.GetItemResponse() if seen.method == "GetItem" else server.ranking(1, final=True)

    server.on("GetItem", note)
    server.on("RecommendLive", note)
    client = make(server.target, timeout=50)
    client.get("a")
    client.get("a", timeout=20)
    client.get("a", timeout=None)
    list(client.live(b"x"))
    client.recommend(clip=iter([b"x"]))
    bounds = [60 if seconds is None or seconds > 1000 else round(seconds, -1) for seconds in left]
    assert bounds == [50, 20, 60, 60, 50]  # 60 stands for none


@pytest.mark.parametrize("way", ["ingest", "live", "clip", "frames", "progress"])
def test_the_callers_own_exceptions_pass_through_and_cancel(client: Any, server: Any, way: str) -> None:
    server.patient = True
    original = Oops("mine")
    original.__cause__ = ValueError("why")

    def broken() -> Iterator[Any]:
        yield b"one" if way != "frames" else (0.0, np.zeros((2, 2, 3), np.uint8))
        raise original

    def progress(sent: int, total: int | None) -> None:
        raise original

    calls: dict[str, Any] = {
        "ingest": lambda: client.ingest("a", broken()),
        "live": lambda: list(client.live(broken())),
        "clip": lambda: client.recommend(clip=broken()),
        "frames": lambda: list(client.live_frames(broken())),
        "progress": lambda: client.ingest("a", [b"one", b"two"], progress=progress),
    }
    with pytest.raises(Oops) as caught:
        calls[way]()
    assert caught.value is original
    assert isinstance(original.__cause__, ValueError)
    seen = server.call()
    assert seen.gone.wait(10)
    assert not seen.ended.is_set()  # half an upload must not look like a whole one
    assert len(server.calls) == 1


def test_a_missing_file_is_no_call(client: Any, server: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.ingest("a", tmp_path / "none.mp4")
    assert server.calls == []


def test_a_closed_client_says_so(make: Any, server: Any) -> None:
    client = make(server.target)
    client.health()
    client.close()
    client.close()
    for call in (lambda: client.health(), lambda: client.ingest("a", b"x"), lambda: list(client.live(b"x"))):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.get("a", colour="red"), "unexpected keyword 'colour'; there are"),
        (lambda c: c.recommend(items=["a"], limt=1), "unexpected keyword 'limt'; did you mean 'limit'\\?; there"),
        (lambda c: c.ingest("a", b"x", limit=1), "unexpected keyword 'limit'"),
        (lambda c: list(c.live(b"x", title="t")), "unexpected keyword 'title'"),
        (lambda c: c.ingest("a", b"x", tags="drama"), r"tags is a list.*\['drama'\]"),
        (lambda c: c.recommend(items="a"), r"items is a list.*\['a'\]"),
        (lambda c: c.recommend(items=["a"], exclude="b"), "exclude is a list"),
        (lambda c: c.recommend(), "exactly one"),
        (lambda c: c.recommend(items=["a"], vector=[1.0]), "exactly one"),
        (lambda c: c.ingest("a", 7), "not int"),
    ],
)
def test_misuse_is_a_type_error_before_any_call(client: Any, server: Any, call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(client)
    assert server.calls == []


def test_unknown_words_are_value_errors(client: Any, server: Any) -> None:
    with pytest.raises(ValueError, match="shots"):
        client.ingest("a", b"x", shots="all")
    with pytest.raises(ValueError, match="pixel_format"):
        client.ingest_frames("a", [], pixel_format="rgba")
    assert server.calls == []
