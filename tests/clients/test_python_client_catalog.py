"""Items in, items out: what both Python clients send and what they make of the replies."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message

from matchcut.client import (
    Encoder,
    Outcome,
    TimeRange,
    Unavailable,
)
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2


def test_ingest_sends_each_form_whole_in_small_chunks(client: Any, server: Any, containers: Any, film: bytes) -> None:
    for number, (source, replayable) in enumerate(containers):
        result = client.ingest("film", source, title="Film", tags=["b", "a"], attributes={"year": "1999"})
        assert (result.outcome, result.item.id, result.segment_count, result.report) == (
            Outcome.CREATED,
            "film",
            2,
            None,
        )
        seen = server.call(number)
        assert seen.ended.wait(10)
        assert seen.data == film
        assert max(len(request.chunk.data) for request in seen.requests) <= 256 * 1024
        header = seen.requests[0].header
        assert header.content_sha256 == (hashlib.sha256(film).digest() if replayable else b"")
        assert header.tenant == "films"
        assert header.item == catalog_pb2.Item(
            item_id="film", title="Film", tags=["b", "a"], attributes={"year": "1999"}
        )
    assert number == 7


def test_ingest_options_reach_the_header(client: Any, server: Any) -> None:
    client.ingest(
        "film",
        b"x",
        uri="s3://film",
        format="mp4",
        rate=2.5,
        tolerance=0.04,
        shots="exact",
        segments=[(0.0, 4.0), (4.0, 8.1)],
        max_bytes=9,
        max_frames=8,
        max_duration=7.5,
    )
    header = server.call().requests[0].header
    assert header.item.uri == "s3://film"
    assert header.media == media_pb2.MediaHeader(
        container=media_pb2.ContainerForm(format="mp4"),
        sampling=media_pb2.Sampling(frames_per_second=2.5, tolerance_us=40_000, shots=media_pb2.SHOT_MODE_EXACT),
        limits=media_pb2.MediaLimits(bytes=9, frames=8, duration_us=7_500_000),
        segments=[
            common_pb2.TimeRange(start_us=0, end_us=4_000_000),
            common_pb2.TimeRange(start_us=4_000_000, end_us=8_100_000),
        ],
    )


def test_ingest_vectors_takes_any_numbers(client: Any, server: Any) -> None:
    vectors = [[1, 0.5], (0.25, 0.125), array.array("f", [1, 2]), np.array([3, 4], np.float32), np.array([5, 6.0])]
    encoder = Encoder("lite", "1", "abc", 2)
    client.ingest_vectors("v", [((i, i + 0.5), v) for i, v in enumerate(vectors)], tags=["t"], encoder=encoder)
    client.ingest_vectors("v", [(None, [1.0])])
    request = server.call().requests[0]
    assert [list(segment.vector) for segment in request.segments] == [list(map(float, v)) for v in vectors]
    assert request.segments[3].range == common_pb2.TimeRange(start_us=3_000_000, end_us=3_500_000)
    assert request.encoder == common_pb2.Encoder(name="lite", version="1", digest="abc", dimensions=2)
    assert list(request.item.tags) == ["t"]
    second = server.call(1).requests[0]
    assert not second.HasField("encoder")
    assert not second.segments[0].HasField("range")


def test_get_returns_segments_as_float32(client: Any, server: Any) -> None:
    segment = catalog_pb2.Segment(range=common_pb2.TimeRange(end_us=2_000_000), vector=[0.6, 0.8])
    reply = catalog_pb2.GetItemResponse(item=catalog_pb2.Item(item_id="a"), segments=[segment])
    server.on("GetItem", lambda requests, seen, context: [reply] if next(requests) else [])
    stored = client.get("a", vectors=True)
    assert stored.segments[0].range == TimeRange(0.0, 2.0)
    assert np.array_equal(np.asarray(stored.segments[0].vector), np.array([0.6, 0.8], np.float32))
    assert server.call().requests == [
        catalog_pb2.GetItemRequest(tenant="films", item_id="a", include_vectors=True),
    ]


def test_remove_says_whether_there_was_one(client: Any, server: Any) -> None:
    server.on("RemoveItem", lambda r, s, c: [catalog_pb2.RemoveItemResponse(removed=not next(r).allow_missing)])
    assert client.remove("a") is True
    assert client.remove("a", missing_ok=True) is False


def test_items_asks_for_pages_only_as_they_are_needed(client: Any, server: Any) -> None:
    def listed(requests: Iterator[Any], seen: Any, context: Any) -> list[Message]:
        first = int(next(requests).page_token or 0)
        items = [catalog_pb2.Item(item_id=str(i)) for i in range(first, min(first + 2, 5))]
        token = str(first + 2) if first + 2 < 5 else ""
        return [catalog_pb2.ListItemsResponse(items=items, next_page_token=token, total_size=5)]

    server.on("ListItems", listed)
    items = client.items(page_size=2, all_of=(tag for tag in ["x"]), none_of=["y"])
    assert server.calls == []
    assert [next(items).id, next(items).id] == ["0", "1"]
    assert len(server.calls) == 1
    assert [item.id for item in items] == ["2", "3", "4"]
    tags = catalog_pb2.TagFilter(all_of=["x"], none_of=["y"])
    assert [call.requests[0] for call in server.calls] == [
        catalog_pb2.ListItemsRequest(tenant="films", page_size=2, page_token=token, tags=tags)
        for token in ("", "2", "4")
    ]
    page = client.page(size=2, token="2")
    assert ([item.id for item in page.items], page.next, page.total) == (["2", "3"], "4", 5)


def test_health(client: Any, server: Any) -> None:
    assert client.health() == "SERVING"
    client.health("matchcut.v1.Catalog")
    assert server.call(1).requests[0].service == "matchcut.v1.Catalog"


def test_the_token_goes_with_each_call(make: Any, server: Any) -> None:
    client = make(server.target, token="secret")
    client.health()
    client.ingest("a", b"x")
    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer secret", "Bearer secret"]


def test_calls_are_encrypted_where_tls_is_on(make: Any, server: Any, secure_server: Any) -> None:
    client = make(secure_server.target, tls=secure_server.authorities, token="secret")
    assert client.health() == "SERVING"
    assert client.ingest("a", b"x").outcome is Outcome.CREATED
    assert secure_server.calls[0].metadata["authorization"] == "Bearer secret"
    with pytest.raises(Unavailable):
        make(secure_server.target, tls=True, retry=None).health()  # not signed by anyone well known
    with pytest.raises(Unavailable):
        make(secure_server.target, retry=None).health()
    assert len(secure_server.calls) == 2


def test_a_client_certificate_is_shown_where_asked_for(make: Any, server: Any, secure_server: Any) -> None:
    client = make(secure_server.mutual, tls=secure_server.authorities, certificate=secure_server.certificate)
    assert client.health() == "SERVING"
    with pytest.raises(Unavailable):
        make(secure_server.mutual, tls=secure_server.authorities, retry=None).health()
    with pytest.raises(ValueError, match="needs TLS"):
        make(secure_server.mutual, certificate=secure_server.certificate)
