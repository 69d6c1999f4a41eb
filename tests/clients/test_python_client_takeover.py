"""A change of the encoder: what both Python clients send for it, and what they make of the replies."""

from __future__ import annotations

from typing import Any

from matchcut.client import Encoder
from matchcut.v1 import catalog_pb2, common_pb2

NEXT = common_pb2.Encoder(name="next", version="2", digest="cd", dimensions=8)


def test_each_ingest_may_be_for_the_next_encoder(client: Any, server: Any) -> None:
    frame = memoryview(bytes(12)).cast("B", (2, 2, 3))
    for ahead in (True, False):
        client.ingest("a", b"x", for_next_encoder=ahead)
        client.ingest_frames("a", [(0.0, frame)], for_next_encoder=ahead)
        client.ingest_pictures("a", [(0.0, b"x")], for_next_encoder=ahead)
        client.ingest_vectors("a", [(None, [1.0])], for_next_encoder=ahead)
    client.ingest("a", b"x")
    client.ingest_vectors("a", [(None, [1.0])])
    firsts = [call.requests[0] for call in server.calls]
    headers = [first.header if isinstance(first, catalog_pb2.IngestRequest) else first for first in firsts]
    assert [header.for_next_encoder for header in headers] == [True] * 4 + [False] * 6


def test_a_listing_of_what_lacks(client: Any, server: Any) -> None:
    reply = catalog_pb2.ListItemsResponse(total_size=5, next_encoder=NEXT, ready_size=3)
    server.on("ListItems", lambda requests, seen, context: [reply] if next(requests) else [])
    page = client.page(lacking_next_encoder=True)
    assert (page.next_encoder, page.ready, page.total) == (Encoder("next", "2", "cd", 8), 3, 5)
    assert list(client.items(page_size=2, lacking_next_encoder=True)) == []
    client.page()
    asked = [call.requests[0].lacking_next_encoder for call in server.calls]
    assert asked == [True, True, False]
    server.on("ListItems", lambda requests, seen, context: [catalog_pb2.ListItemsResponse()] if next(requests) else [])
    assert client.page().next_encoder is None


def test_the_switch(client: Any, server: Any) -> None:
    def switched(requests: Any, seen: Any, context: Any) -> list[Any]:
        asked = next(requests)
        lacking = [catalog_pb2.ItemKey(tenant="t", item_id="i")] if asked.dry_run else []
        return [
            catalog_pb2.SwitchEncoderResponse(
                encoder=NEXT, total_size=3, ready_size=2, lacking=lacking, switched=not asked.dry_run
            )
        ]

    server.on("SwitchEncoder", switched)
    looked = client.switch_encoder(dry_run=True)
    assert (looked.encoder.name, looked.total, looked.ready, looked.done) == ("next", 3, 2, False)
    assert looked.lacking == (("t", "i"),)
    assert client.switch_encoder(force=True).done
    assert client.switch_encoder().lacking == ()
    asked = [call.requests[0] for call in server.calls]
    assert [(one.force, one.dry_run) for one in asked] == [(False, True), (True, False), (False, False)]


def test_an_item_that_came_as_vectors(client: Any, server: Any) -> None:
    assert not client.get("a").from_vectors
    server.on("GetItem", lambda r, s, c: [catalog_pb2.GetItemResponse(from_vectors=bool(next(r)))])
    assert client.get("a").from_vectors
