"""The Recommender service over the wire: every kind of query, live lists, filters, and hostile callers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.wire import SIDE, Wire


async def flow(chunks: Iterable[media_pb2.MediaChunk]) -> AsyncIterator[media_pb2.MediaChunk]:
    for chunk in chunks:
        yield chunk


def ids(ranking: pb.RecommendResponse) -> list[str]:
    return [match.item.item_id for match in ranking.matches]


async def fill(wire: Wire, count: int = 5) -> None:
    for number in range(count):
        await wire.ingest(f"item-{number}", [10 * number] * 3, tags=[f"t{number % 2}"])


async def test_a_clip_finds_its_like_and_says_where(wire: Wire) -> None:
    await wire.ingest("other", [7, 7])
    await wire.ingest("long", [1] * 8 + [2] * 8)
    ranking = await wire.clip(3, 3, 2, 2)
    best = ranking.matches[0]
    assert best.item.item_id == "long"
    assert best.score == pytest.approx(1.0)
    assert (best.query_range.start_us, best.query_range.end_us) == (1_500_000, 4_000_000)
    assert (best.item_range.start_us, best.item_range.end_us) == (8_000_000, 16_000_000)
    assert ranking.final
    assert ranking.revision == 1
    assert ranking.encoder.name == "layout"
    assert ranking.report.frames_used == 4
    assert ranking.report.frames_reused == 2
    stages = {stage.name: stage for stage in ranking.times.stages}
    assert stages["encode"].counts["frames"] == 2
    assert stages["rank"].counts["rows"] >= 3
    assert stages["encode"].variant == "onnxruntime-fp32"
    assert sum(stage.wall_us for stage in ranking.times.stages) <= ranking.times.total_us


async def test_items_as_a_query(wire: Wire) -> None:
    await fill(wire)
    request = pb.RecommendRequest(query=pb.Query(items=pb.ItemsQuery(item_ids=["item-1", "item-3"])))
    ranking = await wire.recommender.Recommend(request)
    assert sorted(ids(ranking)) == ["item-0", "item-2", "item-4"]
    assert {match.query_item_id for match in ranking.matches} <= {"item-1", "item-3"}
    request.query.items.include_themselves = True
    ranking = await wire.recommender.Recommend(request)
    assert sorted(ids(ranking)[:2]) == ["item-1", "item-3"]
    for match in ranking.matches[:2]:
        assert match.query_item_id == match.item.item_id
    assert not ranking.HasField("report")


async def test_a_vector_as_a_query(wire: Wire) -> None:
    await fill(wire)
    stored = await wire.catalog.GetItem(catalog_pb2.GetItemRequest(item_id="item-2", include_vectors=True))
    values = [3 * value for value in stored.segments[0].vector]
    ranking = await wire.recommender.Recommend(
        pb.RecommendRequest(query=pb.Query(vector=pb.VectorQuery(values=values)))
    )
    assert ids(ranking)[0] == "item-2"
    assert ranking.matches[0].score == pytest.approx(1.0)
    assert ranking.matches[0].query_range == common_pb2.TimeRange()


async def test_vectors_of_two_encoders_never_meet(wire: Wire) -> None:
    await fill(wire)
    foreign = common_pb2.Encoder(name="clip", version="b32")
    await wire.catalog.IngestVectors(
        catalog_pb2.IngestVectorsRequest(
            item=catalog_pb2.Item(item_id="foreign"), segments=[catalog_pb2.Segment(vector=[1] * 48)], encoder=foreign
        )
    )
    query = pb.VectorQuery(values=[1] * 48)
    own = await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(vector=query)))
    assert len(own.matches) == 5
    query.encoder.CopyFrom(foreign)
    other = await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(vector=query)))
    assert ids(other) == ["foreign"]
    assert other.encoder.name == "clip"
    items = pb.Query(items=pb.ItemsQuery(item_ids=["item-1", "foreign"]))
    for query_ in (pb.Query(vector=pb.VectorQuery(values=[1], encoder=common_pb2.Encoder(name="none"))), items):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.recommender.Recommend(pb.RecommendRequest(query=query_))
        assert wire.told(caught.value)[:2] == ("FAILED_PRECONDITION", "ENCODER_MISMATCH")


async def test_filters_apply_inside_the_ranking(wire: Wire) -> None:
    await fill(wire, 8)
    everything = ids(await wire.clip(0))
    assert len(everything) == 8
    even = await wire.clip(0, limit=4, tags=catalog_pb2.TagFilter(all_of=["t0"]))
    assert ids(even) == [name for name in everything if int(name[-1]) % 2 == 0]
    assert ids(await wire.clip(0, tags=catalog_pb2.TagFilter(any_of=["t1", "none"]))) == [
        name for name in everything if int(name[-1]) % 2
    ]
    assert ids(await wire.clip(0, tags=catalog_pb2.TagFilter(none_of=["t0", "t1"]))) == []
    assert ids(await wire.clip(0, limit=3, exclude_item_ids=everything[:2])) == everything[2:5]
    scores = [match.score for match in (await wire.clip(0)).matches]
    assert scores == sorted(scores, reverse=True)
    assert len((await wire.clip(0, minimum_score=scores[2])).matches) == 3


async def test_an_empty_catalogue_gives_an_empty_list(wire: Wire) -> None:
    ranking = await wire.clip(1)
    assert ranking.final
    assert not ranking.matches


async def test_equal_items_come_in_the_order_of_ingest(wire: Wire) -> None:
    for name in ("b", "c", "a"):
        await wire.ingest(name, [5, 5])
    ranking = await wire.clip(5)
    assert ids(ranking) == ["b", "c", "a"]
    assert len({match.score for match in ranking.matches}) == 1


async def test_live_frames_give_lists_that_improve(wire: Wire) -> None:
    await fill(wire)
    header = pb.RecommendLiveHeader(media=wire.frame_header(), options=pb.RankOptions(frames_per_update=2, limit=1))
    rankings = [one async for one in wire.live(header, flow(wire.chunks(30, 30, 30, 40, 40)))]
    assert [one.revision for one in rankings] == [1, 2, 3, 4]
    assert [one.final for one in rankings] == [False, False, False, True]
    assert ids(rankings[0]) == ["item-3"]
    assert rankings[0].report.frames_used >= 1
    assert rankings[-1].report.frames_used == 5
    assert all(one.encoder.digest for one in rankings)


async def test_the_first_list_comes_before_the_second_frame_is_sent(wire: Wire) -> None:
    await fill(wire)
    chunks = wire.chunks(30, 40)
    answered = asyncio.Event()

    async def hesitant() -> AsyncIterator[media_pb2.MediaChunk]:
        yield chunks[0]
        await asyncio.wait_for(answered.wait(), 10)
        yield chunks[1]

    call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), hesitant())
    replies = aiter(call)
    assert ids(await anext(replies))[0] == "item-3"
    answered.set()
    rest = [one async for one in replies]
    assert rest[-1].final


async def test_live_pictures(wire: Wire) -> None:
    await fill(wire)
    chunks = []
    for at, form in enumerate(("PNG", "JPEG")):
        file = io.BytesIO()
        Image.fromarray(wire.picture(20)).save(file, form, quality=95)
        chunks.append(media_pb2.MediaChunk(picture=media_pb2.Picture(data=file.getvalue(), time_us=at * 1_000_000)))
    header = pb.RecommendLiveHeader(media=media_pb2.MediaHeader(pictures=media_pb2.PictureForm()))
    rankings = [one async for one in wire.live(header, flow(chunks))]
    assert ids(rankings[-1])[0] == "item-2"
    assert rankings[-1].matches[0].score > 0.99


async def test_live_container_of_a_real_clip(wire: Wire, media: Path) -> None:
    clips = ("carphone.mp4", "bikes.mp4", "b.mp4")
    for name in clips:
        data = (media / name).read_bytes()
        chunks = [media_pb2.MediaChunk(data=data[at : at + 100_000]) for at in range(0, len(data), 100_000)]
        await wire.send(catalog_pb2.IngestHeader(item=catalog_pb2.Item(item_id=name)), chunks)
    rankings = [one async for one in wire.live(pb.RecommendLiveHeader(), flow(chunks))]
    assert ids(rankings[-1])[0] == clips[-1]
    assert rankings[-1].report.container
    assert rankings[-1].report.codec == "h264"
    assert "decode" in {stage.name for stage in rankings[-1].times.stages}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.RecommendRequest(), "query"),
        (pb.RecommendRequest(query=pb.Query(items=pb.ItemsQuery())), "query.items.item_ids"),
        (pb.RecommendRequest(query=pb.Query(items=pb.ItemsQuery(item_ids=["a"] * 65))), "query.items.item_ids"),
        (pb.RecommendRequest(query=pb.Query(items=pb.ItemsQuery(item_ids=[""]))), "query.items.item_ids"),
        (pb.RecommendRequest(query=pb.Query(vector=pb.VectorQuery())), "query.vector.values"),
        (pb.RecommendRequest(query=pb.Query(vector=pb.VectorQuery(values=[0] * 48))), "query.vector.values"),
        (pb.RecommendRequest(tenant="t" * 257, query=pb.Query(vector=pb.VectorQuery(values=[1] * 48))), "tenant"),
        (
            pb.RecommendRequest(
                query=pb.Query(vector=pb.VectorQuery(values=[1] * 48)), options=pb.RankOptions(limit=1001)
            ),
            "options.limit",
        ),
        (
            pb.RecommendRequest(
                query=pb.Query(vector=pb.VectorQuery(values=[1] * 48)), options=pb.RankOptions(limit=-1)
            ),
            "options.limit",
        ),
        (
            pb.RecommendRequest(
                query=pb.Query(vector=pb.VectorQuery(values=[1] * 48)),
                options=pb.RankOptions(minimum_score=float("nan")),
            ),
            "options.minimum_score",
        ),
        (
            pb.RecommendRequest(
                query=pb.Query(vector=pb.VectorQuery(values=[1] * 48)),
                options=pb.RankOptions(exclude_item_ids=["x"] * 10_001),
            ),
            "options.exclude_item_ids",
        ),
        (
            pb.RecommendRequest(
                query=pb.Query(vector=pb.VectorQuery(values=[1] * 48)), options=pb.RankOptions(frames_per_update=-1)
            ),
            "options.frames_per_update",
        ),
        (
            pb.RecommendRequest(
                query=pb.Query(clip=pb.ClipQuery(chunks=[media_pb2.MediaChunk(picture=media_pb2.Picture(data=b"x"))]))
            ),
            "chunk",
        ),
    ],
)
async def test_a_wrong_query_names_its_field(wire: Wire, message: pb.RecommendRequest, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.recommender.Recommend(message)
    assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", field)


async def test_an_unknown_item_as_a_query(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(items=pb.ItemsQuery(item_ids=["nowhere"]))))
    assert wire.told(caught.value) == ("NOT_FOUND", "ITEM_NOT_FOUND", "query.items.item_ids")


async def test_garbage_is_refused_and_the_server_goes_on(wire: Wire) -> None:
    await fill(wire, 1)
    garbage = np.random.default_rng(0).bytes(50_000)
    for data in (b"", garbage, b"ffconcat version 1.0\nfile /etc/hostname\n"):
        query = pb.Query(clip=pb.ClipQuery(chunks=[media_pb2.MediaChunk(data=data)]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.recommender.Recommend(pb.RecommendRequest(query=query))
        assert wire.told(caught.value)[0] == "INVALID_ARGUMENT"
        assert "hostname" not in caught.value.details()
    assert ids(await wire.clip(0)) == ["item-0"]


async def test_the_callers_own_limits_end_the_reading_with_a_warning(wire: Wire) -> None:
    for limits, used in (
        (media_pb2.MediaLimits(frames=2), 2),
        (media_pb2.MediaLimits(duration_us=3_000_000), 3),
    ):
        clip = pb.ClipQuery(media=wire.frame_header(limits=limits), chunks=wire.chunks(1, 2, 3, 4, 5))
        ranking = await wire.recommender.Recommend(pb.RecommendRequest(query=pb.Query(clip=clip)))
        assert ranking.report.frames_used == used
        assert ranking.report.truncated
        assert [warning.reason for warning in ranking.report.warnings] == ["LIMIT_REACHED"]


async def test_frames_of_a_wrong_size_and_times_that_do_not_grow(wire: Wire) -> None:
    short = media_pb2.MediaChunk(frame=media_pb2.Frame(pixels=b"x" * (SIDE * SIDE * 3 - 1)))
    for chunks in ([short], [*wire.chunks(1), *wire.chunks(1)]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.recommender.Recommend(
                pb.RecommendRequest(query=pb.Query(clip=pb.ClipQuery(media=wire.frame_header(), chunks=chunks)))
            )
        assert wire.told(caught.value)[0] == "INVALID_ARGUMENT"


async def endless(wire: Wire) -> AsyncIterator[media_pb2.MediaChunk]:
    for at in range(1_000_000):
        yield media_pb2.MediaChunk(frame=media_pb2.Frame(pixels=wire.picture(at).tobytes(), time_us=at * 1_000_000))
        await asyncio.sleep(0.005)


async def test_a_cancelled_stream_gives_its_place_back(config: Config) -> None:
    async with App(replace(config, max_media_requests=1)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        for _ in range(3):
            call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), endless(wire))
            await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await wire.clip(1)
            assert wire.told(caught.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
            assert ("grpc-retry-pushback-ms", "1000") in list(caught.value.trailing_metadata())
            call.cancel()
            await asyncio.wait_for(placed(wire), 10)


async def placed(wire: Wire) -> None:
    """Waits until there is a place for a clip."""
    while True:
        try:
            await wire.clip(1)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(0.01)


async def test_a_lost_connection_gives_the_place_back(config: Config) -> None:
    async with App(replace(config, max_media_requests=1)) as app:
        for _ in range(2):
            async with grpc.aio.insecure_channel(app.address) as channel:
                wire = Wire(channel)
                await asyncio.wait_for(placed(wire), 10)
                call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), endless(wire))
                await call.read()
        async with grpc.aio.insecure_channel(app.address) as channel:
            await asyncio.wait_for(placed(Wire(channel)), 10)


async def test_the_deadline_ends_the_work(wire: Wire) -> None:
    call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), endless(wire), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    # A write that the deadline overtakes is INTERNAL in the caller's own gRPC (its issue 36066).
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL)
    assert ids(await wire.clip(1)) == []


async def test_a_stalled_upload_is_given_up(config: Config) -> None:
    async with App(replace(config, receive_timeout=0.1)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        forever = asyncio.Event()

        async def silent() -> AsyncIterator[media_pb2.MediaChunk]:
            yield wire.chunks(1)[0]
            await forever.wait()

        call = wire.live(pb.RecommendLiveHeader(media=wire.frame_header()), silent())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert wire.told(caught.value)[:2] == ("DEADLINE_EXCEEDED", "UPLOAD_STALLED")


async def test_a_reader_that_does_not_read_loses_its_place(config: Config) -> None:
    limits = replace(config, receive_timeout=0.5, max_media_requests=1)
    async with App(limits) as app, grpc.aio.insecure_channel(app.address) as other:
        wire = Wire(other)
        for number in range(40):
            await wire.ingest(f"item-{number}", [number], attributes={"k": "v" * 16_000})
        async with grpc.aio.insecure_channel(app.address) as channel:
            options = pb.RankOptions(limit=100, frames_per_update=1)
            call = Wire(channel).live(
                pb.RecommendLiveHeader(media=wire.frame_header(), options=options), flow(wire.chunks(*range(400)))
            )
            await anext(aiter(call))
            with pytest.raises(grpc.aio.AioRpcError):
                await wire.clip(1)
            await asyncio.wait_for(placed(wire), 20)
            call.cancel()


async def test_items_with_too_many_segments_together(config: Config) -> None:
    async with App(replace(config, max_item_segments=3)) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        for name, count in (("three", 3), ("one", 1)):
            segments = [catalog_pb2.Segment(vector=[1] * 47 + [at]) for at in range(count)]
            item = catalog_pb2.Item(item_id=name)
            await wire.catalog.IngestVectors(catalog_pb2.IngestVectorsRequest(item=item, segments=segments))
        query = pb.Query(items=pb.ItemsQuery(item_ids=["three"]))
        assert ids(await wire.recommender.Recommend(pb.RecommendRequest(query=query))) == ["one"]
        query.items.item_ids.append("one")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.recommender.Recommend(pb.RecommendRequest(query=query))
        assert wire.told(caught.value) == ("INVALID_ARGUMENT", "INVALID_INPUT", "query.items.item_ids")


async def test_the_times_say_how_long_frames_waited_and_with_how_many_they_ran(wire: Wire) -> None:
    stages = wire.stages(await wire.clip(1, 2, 3, 4, 5))
    assert dict(stages["encode"].counts) == {"frames": 5, "runs": 2, "batched": 5}
    assert stages["queue"].wall_us >= 0
    assert list(stages).index("preprocess") < list(stages).index("queue") < list(stages).index("encode")
