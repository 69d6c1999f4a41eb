"""The Catalog service over the wire: ingest, get, list, remove, and every way to get it wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.v1 import catalog_pb2 as pb
from matchcut.v1 import common_pb2, media_pb2
from support.wire import Wire

CREATED, REPLACED = pb.INGEST_OUTCOME_CREATED, pb.INGEST_OUTCOME_REPLACED
UNCHANGED, UPDATED = pb.INGEST_OUTCOME_UNCHANGED, pb.INGEST_OUTCOME_UPDATED


async def test_an_item_goes_in_comes_out_and_goes_away(wire: Wire) -> None:
    done = await wire.ingest("a", [1, 1, 2], title="A", tags=["y", "x", "x"], attributes={"k": "v"}, duration_us=77)
    assert done.outcome == CREATED
    assert (done.item.title, list(done.item.tags), dict(done.item.attributes)) == ("A", ["x", "y"], {"k": "v"})
    assert done.report.frames_seen == done.report.frames_used == 3
    assert done.item.duration_us == done.report.duration_us > 2_000_000
    assert done.encoder.name == "layout"
    assert done.encoder.dimensions == 48
    assert {"preprocess", "encode", "pool", "store"} <= {stage.name for stage in done.times.stages}
    assert done.times.total_us > 0
    got = await wire.catalog.GetItem(pb.GetItemRequest(item_id="a"))
    assert got.item == done.item
    assert len(got.segments) == done.segment_count
    assert not got.segments[0].vector
    with_vectors = await wire.catalog.GetItem(pb.GetItemRequest(item_id="a", include_vectors=True))
    assert sum(x * x for x in with_vectors.segments[0].vector) == pytest.approx(1)
    assert (await wire.catalog.RemoveItem(pb.RemoveItemRequest(item_id="a"))).removed
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.GetItem(pb.GetItemRequest(item_id="a"))
    assert wire.told(caught.value) == ("NOT_FOUND", "ITEM_NOT_FOUND", "item_id")


async def test_removing_what_is_not_there(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.RemoveItem(pb.RemoveItemRequest(item_id="a"))
    assert wire.told(caught.value) == ("NOT_FOUND", "ITEM_NOT_FOUND", "item_id")
    assert not (await wire.catalog.RemoveItem(pb.RemoveItemRequest(item_id="a", allow_missing=True))).removed


async def test_the_same_again_is_no_work_and_other_content_replaces(wire: Wire) -> None:
    assert (await wire.ingest("a", [1, 2], title="A")).outcome == CREATED
    assert (await wire.ingest("a", [1, 2], title="A")).outcome == UNCHANGED
    assert (await wire.ingest("a", [1, 2], title="B")).outcome == UPDATED
    assert (await wire.ingest("a", [1, 3], title="B")).outcome == REPLACED
    assert (await wire.catalog.ListItems(pb.ListItemsRequest())).total_size == 1


async def test_a_known_container_is_answered_before_it_is_sent(wire: Wire, media: Path) -> None:
    data = (media / "carphone.mp4").read_bytes()
    header = pb.IngestHeader(item=pb.Item(item_id="c"), content_sha256=hashlib.sha256(data).digest())
    chunks = [media_pb2.MediaChunk(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    assert (await wire.send(header, chunks)).outcome == CREATED
    again = await wire.send(header, [])  # not one byte of it
    assert again.outcome == UNCHANGED
    assert again.item.duration_us > 3_900_000
    header.ClearField("content_sha256")
    compared = await wire.send(header, chunks)
    assert compared.outcome == UNCHANGED
    assert "encode" not in {stage.name for stage in compared.times.stages}


async def test_bytes_that_are_not_what_was_declared_change_nothing(wire: Wire, media: Path) -> None:
    header = pb.IngestHeader(item=pb.Item(item_id="c"), content_sha256=b"x" * 32)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.send(header, [media_pb2.MediaChunk(data=(media / "carphone.mp4").read_bytes())])
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "CONTENT_MISMATCH", "header.content_sha256")
    assert (await wire.catalog.ListItems(pb.ListItemsRequest())).total_size == 0


async def test_vectors_go_in_with_their_own_encoder(wire: Wire) -> None:
    request = pb.IngestVectorsRequest(
        item=pb.Item(item_id="v"),
        segments=[
            pb.Segment(range=common_pb2.TimeRange(start_us=0, end_us=5), vector=[3, 4]),
            pb.Segment(range=common_pb2.TimeRange(start_us=5, end_us=9), vector=[0, 2]),
        ],
        encoder=common_pb2.Encoder(name="clip", version="b32"),
    )
    done = await wire.catalog.IngestVectors(request)
    assert (done.outcome, done.segment_count, done.item.duration_us) == (CREATED, 2, 9)
    assert (done.encoder.name, done.encoder.dimensions) == ("clip", 2)
    got = await wire.catalog.GetItem(pb.GetItemRequest(item_id="v", include_vectors=True))
    assert list(got.segments[0].vector) == pytest.approx([0.6, 0.8])
    assert (await wire.catalog.IngestVectors(request)).outcome == UNCHANGED


async def test_given_segments_take_the_place_of_detection(wire: Wire) -> None:
    given = [
        common_pb2.TimeRange(start_us=0, end_us=1_500_000),
        common_pb2.TimeRange(start_us=3_000_000, end_us=9_000_000),
    ]
    header = pb.IngestHeader(item=pb.Item(item_id="g"), media=wire.frame_header(segments=given))
    done = await wire.send(header, wire.chunks(1, 2, 3, 4, 5))
    assert done.segment_count == 2
    got = await wire.catalog.GetItem(pb.GetItemRequest(item_id="g"))
    assert [segment.range for segment in got.segments] == given


async def test_tenants_never_meet(wire: Wire) -> None:
    await wire.ingest("a", [1], tenant="one")
    await wire.ingest("a", [2], tenant="two", title="other")
    assert (await wire.catalog.ListItems(pb.ListItemsRequest())).total_size == 0
    await wire.catalog.RemoveItem(pb.RemoveItemRequest(tenant="one", item_id="a"))
    kept = await wire.catalog.GetItem(pb.GetItemRequest(tenant="two", item_id="a"))
    assert kept.item.title == "other"


async def test_pages_cover_everything_once(wire: Wire) -> None:
    names = [f"item-{number:02}" for number in range(7)]
    for number, name in enumerate(reversed(names)):
        await wire.ingest(name, [number], tags=["even"] if number % 2 == 0 else [])
    seen, token = [], ""
    while True:
        page = await wire.catalog.ListItems(pb.ListItemsRequest(page_size=3, page_token=token))
        assert page.total_size == 7
        seen += [item.item_id for item in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == names
    tagged = await wire.catalog.ListItems(pb.ListItemsRequest(tags=pb.TagFilter(all_of=["even"])))
    assert len(tagged.items) == 4


async def test_a_foreign_page_token(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.ListItems(pb.ListItemsRequest(page_token="!"))
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "page_token")


def header_of(**item: Any) -> pb.IngestHeader:
    return pb.IngestHeader(item=pb.Item(**item))


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (pb.IngestHeader(), "header.item.item_id"),
        (header_of(item_id="é" * 129), "header.item.item_id"),
        (pb.IngestHeader(tenant="t" * 257, item=pb.Item(item_id="a")), "tenant"),
        (header_of(item_id="a", title="t" * 1025), "header.item.title"),
        (header_of(item_id="a", uri="t" * 2049), "header.item.uri"),
        (header_of(item_id="a", tags=[""]), "header.item.tags"),
        (header_of(item_id="a", tags=["t" * 129]), "header.item.tags"),
        (header_of(item_id="a", tags=[str(n) for n in range(65)]), "header.item.tags"),
        (header_of(item_id="a", attributes={str(n): "" for n in range(65)}), "header.item.attributes"),
        (header_of(item_id="a", attributes={"k": "v" * 16384}), "header.item.attributes"),
        (header_of(item_id="a", duration_us=-1), "header.item.duration_us"),
        (pb.IngestHeader(item=pb.Item(item_id="a"), content_sha256=b"short"), "header.content_sha256"),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"),
                media=media_pb2.MediaHeader(sampling=media_pb2.Sampling(frames_per_second=-1)),
            ),
            "media.sampling.frames_per_second",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"), media=media_pb2.MediaHeader(sampling=media_pb2.Sampling(tolerance_us=-1))
            ),
            "media.sampling.tolerance_us",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"), media=media_pb2.MediaHeader(frames=media_pb2.FrameForm(width=0, height=8))
            ),
            "media.frames.width",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"),
                media=media_pb2.MediaHeader(
                    frames=media_pb2.FrameForm(width=7, height=8, pixel_format=media_pb2.PIXEL_FORMAT_NV12)
                ),
            ),
            "media.frames.pixel_format",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"), media=media_pb2.MediaHeader(limits=media_pb2.MediaLimits(frames=-1))
            ),
            "media.limits.frames",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"),
                media=media_pb2.MediaHeader(segments=[common_pb2.TimeRange(start_us=5, end_us=5)]),
            ),
            "media.segments[0]",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"),
                media=media_pb2.MediaHeader(segments=[common_pb2.TimeRange(start_us=5, end_us=4)]),
            ),
            "media.segments[0]",
        ),
        (
            pb.IngestHeader(
                item=pb.Item(item_id="a"),
                media=media_pb2.MediaHeader(
                    segments=[
                        common_pb2.TimeRange(start_us=0, end_us=9),
                        common_pb2.TimeRange(start_us=5, end_us=12),
                    ]
                ),
            ),
            "media.segments[1]",
        ),
    ],
)
async def test_a_wrong_header_names_its_field(wire: Wire, header: pb.IngestHeader, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.send(header, [])
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", field)


@pytest.mark.parametrize(
    ("segments", "encoder", "told"),
    [
        ([], {}, ("INVALID_ARGUMENT", "INVALID_INPUT", "segments")),
        ([[]], {}, ("INVALID_ARGUMENT", "INVALID_INPUT", "segments[0].vector")),
        ([[1.0] * 47], {}, ("FAILED_PRECONDITION", "ENCODER_MISMATCH", "segments[0].vector")),
        ([[1.0] * 48, [1.0] * 47], {}, ("FAILED_PRECONDITION", "ENCODER_MISMATCH", "segments[1].vector")),
        ([[0.0] * 48], {}, ("INVALID_ARGUMENT", "INVALID_INPUT", "segments[0].vector")),
        ([[float("nan")] * 48], {}, ("INVALID_ARGUMENT", "INVALID_INPUT", "segments[0].vector")),
        (
            [[1.0, 2.0]],
            {"name": "x", "dimensions": 3},
            ("FAILED_PRECONDITION", "ENCODER_MISMATCH", "segments[0].vector"),
        ),
    ],
)
async def test_wrong_vectors_name_their_place(
    wire: Wire, segments: list[list[float]], encoder: dict[str, Any], told: tuple[str, str, str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.IngestVectors(
            pb.IngestVectorsRequest(
                item=pb.Item(item_id="v"),
                segments=[pb.Segment(vector=vector) for vector in segments],
                encoder=common_pb2.Encoder(**encoder),
            )
        )
    assert wire.told(caught.value) == told


async def test_a_stream_without_its_header(wire: Wire) -> None:
    for messages in ([], [pb.IngestRequest(chunk=media_pb2.MediaChunk(data=b"x"))], [pb.IngestRequest()]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.catalog.Ingest(iter(messages))
        assert wire.told(caught.value) == ("INVALID_ARGUMENT", "HEADER_MISSING", "header")


async def test_a_second_header_and_chunks_of_another_kind(wire: Wire) -> None:
    header = pb.IngestHeader(item=pb.Item(item_id="a"), media=wire.frame_header())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.Ingest(iter([pb.IngestRequest(header=header)] * 2))
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "header")
    for chunk in (
        media_pb2.MediaChunk(data=b"x"),
        media_pb2.MediaChunk(),
        media_pb2.MediaChunk(picture=media_pb2.Picture(data=b"x")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.send(header, [chunk])
        assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "chunk")


async def test_chunks_and_pictures_have_a_largest_size(wire: Wire) -> None:
    item = pb.Item(item_id="a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.send(pb.IngestHeader(item=item), [media_pb2.MediaChunk(data=bytes((1 << 20) + 1))])
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "chunk.data")
    pictures = pb.IngestHeader(item=item, media=media_pb2.MediaHeader(pictures=media_pb2.PictureForm()))
    for size in (0, (16 << 20) + 1):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.send(pictures, [media_pb2.MediaChunk(picture=media_pb2.Picture(data=bytes(size)))])
        assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "chunk.picture.data")


async def test_no_frame_at_all(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.ingest("a", [])
    assert wire.told(caught.value)[:2] == ("INVALID_ARGUMENT", "UNREADABLE_MEDIA")


async def test_refused_uploads_do_not_use_up_the_connection(wire: Wire) -> None:
    """A refused call whose sender had more to send must not go on counting as one of the connection's streams."""
    bad, chunks = header_of(), [media_pb2.MediaChunk(data=bytes(1000))] * 20
    for _ in range(150):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.send(bad, chunks)
        assert wire.told(caught.value)[0] == "INVALID_ARGUMENT"
    assert (await wire.catalog.ListItems(pb.ListItemsRequest(), timeout=10)).total_size == 0


async def test_a_header_must_come_in_time(config: Config) -> None:
    async with App(replace(config, receive_timeout=0.1)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, never = Wire(channel), asyncio.Event()

        async def silent() -> AsyncIterator[pb.IngestRequest]:
            await never.wait()
            yield pb.IngestRequest()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.catalog.Ingest(silent(), timeout=20)
        assert wire.told(caught.value)[:2] == ("DEADLINE_EXCEEDED", "UPLOAD_STALLED")


async def test_the_limit_of_bytes_holds_for_an_item_that_is_there(config: Config, media: Path) -> None:
    data = (media / "carphone.mp4").read_bytes()
    async with App(replace(config, max_bytes=1 << 20)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, header = Wire(channel), pb.IngestHeader(item=pb.Item(item_id="c"))
        await wire.send(header, [media_pb2.MediaChunk(data=data)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.send(header, [media_pb2.MediaChunk(data=data)] * 2)
        assert wire.told(caught.value)[:2] == ("INVALID_ARGUMENT", "MEDIA_TOO_MANY_BYTES")
        assert (await wire.send(header, [media_pb2.MediaChunk(data=data)])).outcome == UNCHANGED


async def test_an_upload_too_large_to_hold_back_is_compared_all_the_same(config: Config, media: Path) -> None:
    data = (media / "world.mp4").read_bytes()
    chunks = [media_pb2.MediaChunk(data=data[at : at + 100_000]) for at in range(0, len(data), 100_000)]
    async with App(replace(config, max_buffered=1 << 16)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, header = Wire(channel), pb.IngestHeader(item=pb.Item(item_id="w"))
        assert (await wire.send(header, chunks)).outcome == CREATED
        assert (await wire.send(header, chunks)).outcome == UNCHANGED


async def test_the_callers_limit_of_bytes_and_a_digest_of_all(wire: Wire, media: Path) -> None:
    data = (media / "world.mp4").read_bytes()
    header = pb.IngestHeader(
        item=pb.Item(item_id="w"),
        media=media_pb2.MediaHeader(limits=media_pb2.MediaLimits(bytes=800_000)),
        content_sha256=hashlib.sha256(data).digest(),
    )
    chunks = [media_pb2.MediaChunk(data=data[at : at + 100_000]) for at in range(0, len(data), 100_000)]
    done = await wire.send(header, chunks)
    assert done.outcome == CREATED
    assert "LIMIT_REACHED" in [warning.reason for warning in done.report.warnings]


async def test_a_page_of_fat_items_fits_every_client(wire: Wire) -> None:
    for number in range(300):
        request = pb.IngestVectorsRequest(
            item=pb.Item(item_id=f"{number:03}", attributes={"k": "v" * 16_000}),
            segments=[pb.Segment(vector=[1] * 48)],
        )
        await wire.catalog.IngestVectors(request)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = await wire.catalog.ListItems(pb.ListItemsRequest(page_size=1000, page_token=token))
        assert page.ByteSize() < 4 << 20
        seen += [item.item_id for item in page.items]
        token, pages = page.next_page_token, pages + 1
    assert pages == 2
    assert seen == [f"{number:03}" for number in range(300)]


async def test_a_restart_answers_the_same(config: Config) -> None:
    async def answer(app: App) -> list[tuple[str, float]]:
        async with grpc.aio.insecure_channel(app.address) as channel:
            wire = Wire(channel)
            if not (await wire.catalog.ListItems(pb.ListItemsRequest())).total_size:
                for number in range(5):
                    await wire.ingest(f"item {number}", [number, number + 1])
            ranking = await wire.clip(2)
            return [(match.item.item_id, match.score) for match in ranking.matches]

    async with App(config) as app:
        before = await answer(app)
    async with App(config) as app:
        assert await answer(app) == before
    assert len(before) == 5


async def test_a_stream_without_its_end_keeps_nothing(wire: Wire) -> None:
    header = pb.IngestHeader(item=pb.Item(item_id="a"), media=wire.frame_header())
    messages = [pb.IngestRequest(header=header), *(pb.IngestRequest(chunk=chunk) for chunk in wire.chunks(1, 2))]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.catalog.Ingest(iter(messages))
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "END_MISSING", "end")
    assert (await wire.catalog.ListItems(pb.ListItemsRequest())).total_size == 0


async def test_an_upload_that_is_cut_off_keeps_what_was_there(wire: Wire) -> None:
    """gRPC may show a cancelled stream as one that has ended, so only the end message counts."""
    await wire.ingest("a", [7], title="whole")
    calls: list[Any] = []

    async def messages() -> AsyncIterator[pb.IngestRequest]:
        yield pb.IngestRequest(header=pb.IngestHeader(item=pb.Item(item_id="a"), media=wire.frame_header()))
        for chunk in wire.chunks(1, 2, 3):
            yield pb.IngestRequest(chunk=chunk)
        calls[-1].cancel()

    for _ in range(30):
        calls.append(wire.catalog.Ingest(messages()))
        with pytest.raises(asyncio.CancelledError):
            await calls[-1]
    await asyncio.sleep(0.1)
    assert (await wire.catalog.GetItem(pb.GetItemRequest(item_id="a"))).item.title == "whole"
