"""What both Python clients send again, and what they do not."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from matchcut.client import (
    Overloaded,
    Retry,
    ServerError,
    Unavailable,
)

Status = grpc.StatusCode
DATA = bytes(range(256)) * 4096  # 1 MiB


def retry_info(seconds: float) -> Message:
    nanos = round(seconds % 1 * 1e9)
    info: Message = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=int(seconds), nanos=nanos))
    return info


@pytest.mark.parametrize("details", [[], [retry_info(0.001)]])
@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED])
@pytest.mark.parametrize(
    ("method", "call", "safe"),
    [
        ("GetItem", lambda c: c.get("a"), "always"),
        ("ListItems", lambda c: list(c.items()), "always"),
        ("Check", lambda c: c.health(), "always"),
        ("Recommend", lambda c: c.recommend(items=["a"]), "always"),
        ("Recommend", lambda c: c.recommend(clip=b"clip"), "always"),
        ("IngestVectors", lambda c: c.ingest_vectors("a", [(None, [1.0])]), "always"),
        ("Ingest", lambda c: c.ingest("a", DATA), "always"),
        ("Ingest", lambda c: c.ingest("a", iter([DATA])), "never"),
        ("Ingest", lambda c: c.ingest("a", io.BytesIO(DATA)), "never"),
        ("Ingest", lambda c: c.ingest_pictures("a", [(0.0, b"x")]), "never"),
        ("RecommendLive", lambda c: c.recommend(clip=iter([b"x"])), "never"),
        ("RecommendLive", lambda c: list(c.live(b"x")), "never"),
        ("RemoveItem", lambda c: c.remove("a"), "refused"),
    ],
)
def test_what_is_sent_again(
    client: Any, server: Any, method: str, call: Any, safe: str, status: Any, details: list[Message]
) -> None:
    refused = status is Status.RESOURCE_EXHAUSTED
    repeats = safe == "always" or (safe == "refused" and refused)
    if refused and not details:  # a limit that waiting does not lift
        repeats = False
    failing = server.fails(status, "Not now.", *details)
    server.on(method, failing, failing, server._handlers[method])
    if repeats:
        call(client)
        assert len(server.calls) == 3
    else:
        with pytest.raises((Unavailable, Overloaded)):
            call(client)
        assert len(server.calls) == 1


def test_an_upload_sent_again_is_whole(client: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(DATA)
    server.on("Ingest", server.fails(Status.UNAVAILABLE, "Not now."), server._handlers["Ingest"])
    client.ingest("a", path)
    assert server.call(1).data == DATA
    assert server.call(1).requests[0].header.content_sha256 == hashlib.sha256(DATA).digest()


def test_other_errors_are_not_tried_again(client: Any, server: Any) -> None:
    server.on("GetItem", server.fails(Status.INTERNAL, "Broken."))
    with pytest.raises(ServerError):
        client.get("a")
    assert len(server.calls) == 1


def test_the_number_of_tries_is_bounded(make: Any, server: Any) -> None:
    server.on("GetItem", server.fails(Status.UNAVAILABLE, "Not now."))
    with pytest.raises(Unavailable):
        make(server.target, retry=Retry(attempts=3, initial=0.001)).get("a")
    assert len(server.calls) == 3


@pytest.mark.parametrize("settings", [{"retry": Retry(maximum=1.9)}, {"timeout": 1.9}])
def test_a_wait_longer_than_allowed_is_left_to_the_caller(make: Any, server: Any, settings: Any) -> None:
    server.on("GetItem", server.fails(Status.RESOURCE_EXHAUSTED, "Full.", retry_info(2)))
    with pytest.raises(Overloaded) as caught:
        make(server.target, **{"retry": Retry(maximum=9.0), **settings}).get("a")
    assert caught.value.retry_after == 2
    assert len(server.calls) == 1


def test_pauses_grow_and_honour_the_servers_wish() -> None:
    policy = Retry(attempts=5, initial=1.0, maximum=3.0, multiplier=2.0)
    down = Unavailable("", code="UNAVAILABLE")
    assert [policy.pause(n, down, lambda: 0.0) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 3.0, 3.0, None]
    assert policy.pause(1, down, lambda: 1.0) == 0.5
    full = Overloaded("", code="RESOURCE_EXHAUSTED", retry_after=2.0)
    assert policy.pause(1, full, lambda: 0.0) == 2.0
    assert policy.pause(1, full, lambda: 1.0) == 2.5
    assert policy.pause(1, Overloaded("", code="RESOURCE_EXHAUSTED", retry_after=3.1)) is None
