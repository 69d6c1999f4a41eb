"""Another encoder takes over a running server: aside, at once, and with no request that notices."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.ingest import ingest
from matchcut.server.pipeline import Pipeline
from matchcut.v1 import catalog_pb2 as pb
from matchcut.v1 import common_pb2, media_pb2, recommender_pb2
from support.encoders import write_coarse
from support.wire import Wire

CREATED, UNCHANGED = pb.INGEST_OUTCOME_CREATED, pb.INGEST_OUTCOME_UNCHANGED
ITEMS = {"a": [1, 2], "b": [3, 4, 5], "c": [6]}
Answer = tuple[str, list[tuple[str, float]]]


@pytest.fixture
def both(config: Config, tmp_path: Path) -> Config:
    """Options of a server whose next encoder is "coarse"."""
    return replace(config, next_encoder=write_coarse(tmp_path / "next"))


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Wire]:
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield Wire(channel)


async def filled(wire: Wire, **more: Any) -> None:
    for item_id, seeds in ITEMS.items():
        await wire.ingest(item_id, seeds, title=item_id.upper(), **more)


async def ahead(wire: Wire, item_id: str, seeds: list[int], **more: Any) -> pb.IngestResponse:
    header = pb.IngestHeader(item=pb.Item(item_id=item_id), media=wire.frame_header(), for_next_encoder=True, **more)
    return await wire.send(header, wire.chunks(*seeds))


async def lacking(wire: Wire) -> list[str]:
    listed = await wire.catalog.ListItems(pb.ListItemsRequest(lacking_next_encoder=True))
    return [item.item_id for item in listed.items]


async def switch(wire: Wire, **how: bool) -> pb.SwitchEncoderResponse:
    reply: pb.SwitchEncoderResponse = await wire.catalog.SwitchEncoder(pb.SwitchEncoderRequest(**how))
    return reply


async def refused(wire: Wire, call: Any) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return wire.told(caught.value)


def gist(reply: recommender_pb2.RecommendResponse) -> Answer:
    return reply.encoder.name, [(match.item.item_id, round(match.score, 5)) for match in reply.matches]


async def alike(wire: Wire, *item_ids: str) -> recommender_pb2.RecommendResponse:
    query = recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=item_ids))
    reply: recommender_pb2.RecommendResponse = await wire.recommender.Recommend(
        recommender_pb2.RecommendRequest(query=query)
    )
    return reply


async def test_the_next_encoder_takes_over(both: Config, tmp_path: Path) -> None:
    async with serving(both) as wire:
        await filled(wire)
        before = gist(await wire.clip(1, 4)), gist(await alike(wire, "a"))
        assert before[0][0] == "layout"
        assert len(before[0][1]) == 3
        for at, (item_id, seeds) in enumerate(ITEMS.items()):
            listed = await wire.catalog.ListItems(pb.ListItemsRequest())
            assert (listed.encoder.name, listed.next_encoder.name) == ("layout", "coarse")
            assert (listed.total_size, listed.ready_size, len(listed.items)) == (3, at, 3)
            assert await lacking(wire) == list(ITEMS)[at:]
            assert await refused(wire, switch(wire)) == ("FAILED_PRECONDITION", "ITEMS_LACKING", "")
            done = await ahead(wire, item_id, seeds)
            assert (done.outcome, done.encoder.name, done.item.title) == (CREATED, "coarse", item_id.upper())
            assert done.report.frames_used == len(seeds)
            assert (gist(await wire.clip(1, 4)), gist(await alike(wire, "a"))) == before
            got = await wire.catalog.GetItem(pb.GetItemRequest(item_id=item_id))
            assert (got.encoder.name, got.from_vectors) == ("layout", False)
        looked = await switch(wire, dry_run=True)
        assert (looked.switched, looked.total_size, looked.ready_size, len(looked.lacking)) == (False, 3, 3, 0)
        assert gist(await wire.clip(1, 4)) == before[0]
        turned = await switch(wire)
        assert (turned.switched, turned.encoder.name, turned.total_size, turned.ready_size) == (True, "coarse", 3, 3)
        after = gist(await wire.clip(1, 4)), gist(await alike(wire, "a"))
        got = await wire.catalog.GetItem(pb.GetItemRequest(item_id="a", include_vectors=True))
        assert (got.encoder.name, got.item.title, len(got.segments[0].vector)) == ("coarse", "A", 12)
        listed = await wire.catalog.ListItems(pb.ListItemsRequest())
        assert (listed.encoder.name, listed.HasField("next_encoder"), listed.ready_size) == ("coarse", False, 0)
        assert await refused(wire, switch(wire)) == ("FAILED_PRECONDITION", "NO_NEXT_ENCODER", "")
        assert (await wire.ingest("a", ITEMS["a"], title="A")).outcome == UNCHANGED
    fresh = replace(both, encoder=both.next_encoder, next_encoder=Path(), data=tmp_path / "fresh")
    async with serving(fresh) as wire:  # the answers are those of a catalogue that never had another encoder
        await filled(wire)
        assert (gist(await wire.clip(1, 4)), gist(await alike(wire, "a"))) == after


async def test_no_request_fails_and_none_mixes_encoders(both: Config) -> None:
    async with serving(both) as wire:
        await filled(wire)
        for item_id, seeds in ITEMS.items():
            await ahead(wire, item_id, seeds)
        asks = (lambda: wire.clip(1, 4), lambda: alike(wire, "a", "b"), lambda: alike(wire, "c"))
        before = [gist(await ask()) for ask in asks]
        seen: list[list[Answer]] = [[] for _ in asks]
        turned = asyncio.Event()

        async def ask_on(at: int) -> None:
            while len(seen[at]) < 12 or not turned.is_set() or seen[at][-1][0] != "coarse":
                seen[at].append(gist(await asks[at]()))

        go_on = asyncio.Event()

        async def frames() -> AsyncIterator[media_pb2.MediaChunk]:
            for at, chunk in enumerate(wire.chunks(1, 4, 5)):
                yield chunk
                if at == 0:
                    await go_on.wait()

        live = wire.live(
            recommender_pb2.RecommendLiveHeader(
                media=wire.frame_header(), options=recommender_pb2.RankOptions(frames_per_update=1)
            ),
            frames(),
        )
        rankings = [gist(await live.read())]  # it has begun
        tasks = [asyncio.create_task(ask_on(at)) for at in range(len(asks)) for _ in range(2)]
        while not all(len(found) >= 3 for found in seen):
            await asyncio.sleep(0.001)
        await switch(wire)
        turned.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)  # raises where one failed
        go_on.set()
        while (reply := await live.read()) is not grpc.aio.EOF:
            rankings.append(gist(reply))
        after = [gist(await ask()) for ask in asks]
    for found, old, new in zip(seen, before, after, strict=True):
        assert (old[0], new[0]) == ("layout", "coarse")
        assert {name for name, _ in found} == {"layout", "coarse"}
        assert all(answer in (old, new) for answer in found)
    assert len(rankings) > 2
    assert {name for name, _ in rankings} == {"layout"}
    assert all(len(matches) == 3 for _, matches in rankings)


async def test_a_request_that_the_switch_overtakes_answers_as_before(
    both: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, opened = threading.Semaphore(0), threading.Event()
    honest = Pipeline.understand

    def overtaken(*arguments: Any) -> Any:
        held.release()
        assert opened.wait(30)
        return honest(*arguments)

    async with serving(both) as wire:
        await filled(wire)
        for item_id, seeds in ITEMS.items():
            await ahead(wire, item_id, seeds)
        before = [gist(await wire.clip(1, 4)), gist(await alike(wire, "a", "b")), gist(await wire.ask([1.0] * 48))]
        monkeypatch.setattr(Pipeline, "understand", overtaken)
        asked = [wire.clip(1, 4), alike(wire, "a", "b"), wire.ask([1.0] * 48)]
        tasks = [asyncio.create_task(one) for one in asked]
        for _ in tasks:
            assert await asyncio.to_thread(held.acquire, timeout=30)
        await switch(wire)
        opened.set()
        assert [gist(await task) for task in tasks] == before
        assert all(name == "layout" for name, _ in before)
        assert gist(await wire.clip(1, 4))[0] == "coarse"


async def test_what_happens_to_items_meanwhile(both: Config) -> None:
    async with serving(both) as wire:
        await filled(wire)
        for item_id, seeds in ITEMS.items():
            await ahead(wire, item_id, seeds)
        await wire.ingest("a", [7], title="A")
        await wire.catalog.RemoveItem(pb.RemoveItemRequest(item_id="b"))
        await wire.ingest("d", [8])
        assert await lacking(wire) == ["a", "d"]
        assert await refused(wire, ahead(wire, "b", [3, 4, 5])) == ("NOT_FOUND", "ITEM_NOT_FOUND", "item.item_id")
        assert (await refused(wire, ahead(wire, "a", [1, 2])))[:2] == ("FAILED_PRECONDITION", "OTHER_MEDIA")
        await ahead(wire, "a", [7])
        done = await switch(wire, force=True)
        assert (done.total_size, done.ready_size) == (3, 2)
        assert [(one.tenant, one.item_id) for one in done.lacking] == [("", "d")]
        assert {match.item.item_id for match in (await wire.clip(1)).matches} == {"a", "c"}
        assert await refused(wire, alike(wire, "a", "d")) == (
            "FAILED_PRECONDITION",
            "ENCODER_MISMATCH",
            "query.items.item_ids",
        )
        await wire.ingest("d", [8])  # put in again, it is one of them
        assert {match.item.item_id for match in (await wire.clip(1)).matches} == {"a", "c", "d"}


async def test_it_goes_on_after_a_restart_and_stays_switched(both: Config, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(both) as wire:
        await filled(wire)
        await ahead(wire, "b", ITEMS["b"])
    async with serving(both) as wire:
        assert await lacking(wire) == ["a", "c"]
        for item_id in "ac":
            await ahead(wire, item_id, ITEMS[item_id])
        await switch(wire)
        after = gist(await wire.clip(1, 4))
    with caplog.at_level(logging.INFO, "matchcut"):
        async with serving(both) as wire:  # the very options that it had before
            assert gist(await wire.clip(1, 4)) == after
            assert await refused(wire, switch(wire)) == ("FAILED_PRECONDITION", "NO_NEXT_ENCODER", "")
    assert "'coarse' has taken over from 'layout' and answers: name it with --encoder" in caplog.text
    assert "WARNING" not in {record.levelname for record in caplog.records}
    caplog.clear()
    async with serving(replace(both, next_encoder=Path())) as wire:  # as any catalogue of two encoders
        assert not (await wire.clip(1, 4)).matches
        await wire.ingest("d", [1, 4])
        assert [match.item.item_id for match in (await wire.clip(1, 4)).matches] == ["d"]
    assert "3 of 3 items have vectors of other encoders than 'layout'" in caplog.text
    assert "the catalogue is 'coarse''s" in caplog.text
    caplog.clear()
    async with serving(replace(both, encoder=both.next_encoder)) as wire:
        assert gist(await wire.clip(1, 4)) == after
    assert "1 of 4 items have vectors of other encoders than 'coarse'" in caplog.text


async def test_a_server_without_a_next_encoder_says_so(wire: Wire) -> None:
    await wire.ingest("a", [1])
    vector = [pb.Segment(vector=[1.0] * 48)]
    for call in (
        ahead(wire, "a", [1]),
        wire.catalog.IngestVectors(
            pb.IngestVectorsRequest(item=pb.Item(item_id="a"), segments=vector, for_next_encoder=True)
        ),
        lacking(wire),
        switch(wire),
        switch(wire, force=True),
        switch(wire, dry_run=True),
    ):
        assert await refused(wire, call) == ("FAILED_PRECONDITION", "NO_NEXT_ENCODER", "")
    assert gist(await wire.clip(1))[0] == "layout"


async def test_what_is_not_the_items_own_is_not_kept(both: Config, media: Path) -> None:
    data = (media / "carphone.mp4").read_bytes()
    chunks = [media_pb2.MediaChunk(data=data)]
    async with serving(both) as wire:
        await wire.ingest("a", [1, 2], tenant="theirs")
        await wire.send(pb.IngestHeader(item=pb.Item(item_id="c")), chunks)
        await wire.vectors("v", [[1.0] * 48])
        header = pb.IngestHeader(item=pb.Item(item_id="c"), for_next_encoder=True)
        other = [media_pb2.MediaChunk(data=(media / "bikes.mp4").read_bytes())]
        declared = pb.IngestHeader()
        declared.CopyFrom(header)
        declared.content_sha256 = b"x" * 32
        lies = pb.IngestHeader()
        lies.CopyFrom(header)
        lies.content_sha256 = hashlib.sha256(data).digest()
        wrong = ("FAILED_PRECONDITION", "OTHER_MEDIA", "header.item.item_id")
        assert await refused(wire, ahead(wire, "a", [1, 2])) == ("NOT_FOUND", "ITEM_NOT_FOUND", "item.item_id")
        assert await refused(wire, wire.send(header, other)) == wrong
        assert await refused(wire, wire.send(declared, [])) == wrong  # before a byte of it
        assert await refused(wire, wire.send(lies, other)) == wrong
        assert await refused(wire, ahead(wire, "c", [1])) == wrong
        assert await refused(wire, ahead(wire, "v", [1])) == (
            "FAILED_PRECONDITION",
            "ITEM_WITHOUT_MEDIA",
            "header.item.item_id",
        )
        assert (await refused(wire, ahead(wire, "", [1])))[0] == "INVALID_ARGUMENT"
        looked = await switch(wire, dry_run=True)
        assert (looked.ready_size, looked.total_size) == (0, 3)
        assert {(one.tenant, one.item_id) for one in looked.lacking} == {("theirs", "a"), ("", "c"), ("", "v")}
        assert (await wire.send(header, chunks)).outcome == CREATED
        again = await wire.send(lies, [])
        assert (again.outcome, again.encoder.name) == (UNCHANGED, "coarse")  # before a byte of it
        assert (await wire.send(header, chunks)).outcome == UNCHANGED


async def test_vectors_of_the_callers_own(both: Config) -> None:
    async with serving(both) as wire:
        await wire.vectors("v", [[1.0] * 48])
        assert (await wire.catalog.GetItem(pb.GetItemRequest(item_id="v"))).from_vectors

        def send(length: int, item_id: str = "v", **more: Any) -> Any:
            request = pb.IngestVectorsRequest(
                item=pb.Item(item_id=item_id, title="ignored"),
                segments=[pb.Segment(vector=[2.0] * length)] * 2,
                for_next_encoder=True,
                **more,
            )
            return wire.catalog.IngestVectors(request)

        mismatch = "FAILED_PRECONDITION", "ENCODER_MISMATCH"
        assert (await refused(wire, send(48)))[:2] == mismatch
        theirs = common_pb2.Encoder(name="another", version="1", digest="d", dimensions=12)
        assert (await refused(wire, send(12, encoder=theirs)))[:2] == mismatch
        assert (await refused(wire, send(12, item_id="none")))[0] == "NOT_FOUND"
        done = await send(12)
        assert (done.outcome, done.encoder.name, done.segment_count, done.item.title) == (CREATED, "coarse", 2, "")
        await switch(wire)
        got = await wire.catalog.GetItem(pb.GetItemRequest(item_id="v", include_vectors=True))
        assert got.from_vectors
        assert [len(segment.vector) for segment in got.segments] == [12, 12]


async def test_media_is_read_as_it_was_for_the_item(both: Config, synth: Any) -> None:
    data = synth.clip(container="mpegts", frames=200)
    chunks = [media_pb2.MediaChunk(data=data)]
    odd = media_pb2.MediaHeader(
        sampling=media_pb2.Sampling(frames_per_second=3.3, shots=media_pb2.SHOT_MODE_OFF),
        limits=media_pb2.MediaLimits(duration_us=5_000_000),
    )
    part = media_pb2.MediaHeader(limits=media_pb2.MediaLimits(bytes=len(data) // 2))
    given = media_pb2.MediaHeader(segments=[common_pb2.TimeRange(start_us=1_000_000, end_us=3_000_000)])
    headers = {"odd": odd, "part": part, "given": given, "plain": media_pb2.MediaHeader()}
    async with serving(both) as wire:
        ranges = {}
        for item_id, header in headers.items():
            await wire.send(pb.IngestHeader(item=pb.Item(item_id=item_id), media=header), chunks)
            got = await wire.catalog.GetItem(pb.GetItemRequest(item_id=item_id))
            ranges[item_id] = [segment.range for segment in got.segments]
    # A server with other bounds: they are the item's, too.
    async with serving(replace(both, max_segment=3.0, rate=2.0)) as wire:
        for item_id in headers:
            aside = pb.IngestHeader(
                item=pb.Item(item_id=item_id), for_next_encoder=True, content_sha256=hashlib.sha256(data).digest()
            )
            assert (await wire.send(aside, chunks)).outcome == CREATED
        await switch(wire)
        for item_id, known in ranges.items():
            got = await wire.catalog.GetItem(pb.GetItemRequest(item_id=item_id))
            assert (got.encoder.name, [segment.range for segment in got.segments]) == ("coarse", known)


async def test_items_of_older_catalogues_want_their_options(both: Config) -> None:
    async with serving(both) as wire:
        await filled(wire)
    with closing(sqlite3.connect(both.data / "catalog.sqlite")) as db:
        db.execute("UPDATE items SET recipe = ''")
        db.commit()
    async with serving(both) as wire:
        header = pb.IngestHeader(item=pb.Item(item_id="a"), media=wire.frame_header(), for_next_encoder=True)
        header.media.sampling.frames_per_second = 2
        with pytest.raises(grpc.aio.AioRpcError, match="read with the options with which it was put in"):
            await wire.send(header, wire.chunks(1, 2))
        assert (await ahead(wire, "a", [1, 2])).outcome == CREATED


async def test_an_ingest_that_a_switch_overtakes_is_to_be_sent_again(
    both: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), asyncio.Event()
    honest = ingest._segments

    def noticed(*arguments: Any) -> Any:
        begun.set()
        return honest(*arguments)

    async with serving(both) as wire:
        await filled(wire)
        monkeypatch.setattr(ingest, "_segments", noticed)

        async def messages() -> AsyncIterator[pb.IngestRequest]:
            yield pb.IngestRequest(header=pb.IngestHeader(item=pb.Item(item_id="late"), media=wire.frame_header()))
            first, second = wire.chunks(1, 2)
            yield pb.IngestRequest(chunk=first)
            await go_on.wait()
            yield pb.IngestRequest(chunk=second)
            yield pb.IngestRequest(end=pb.IngestEnd())

        late = wire.catalog.Ingest(messages())
        assert await asyncio.to_thread(begun.wait, 30)
        await switch(wire, force=True)
        go_on.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late
        assert Wire.told(caught.value)[:2] == ("UNAVAILABLE", "ENCODER_SWITCHED")
        assert "late" not in {item.item_id for item in (await wire.catalog.ListItems(pb.ListItemsRequest())).items}
        await wire.ingest("late", [1, 2])
        assert "late" in {match.item.item_id for match in (await wire.clip(1)).matches}
