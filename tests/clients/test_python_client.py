"""Both Python clients against a scripted server; `client` and `make` stand for each kind in turn."""

from __future__ import annotations

import array
import hashlib
import inspect
import io
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

import matchcut.client
from matchcut.client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Encoder,
    Error,
    FailedPrecondition,
    InvalidInput,
    MediaWarning,
    NotFound,
    Outcome,
    Overloaded,
    Retry,
    ServerError,
    TimeRange,
    Unauthenticated,
    Unavailable,
    recommender,
)
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2

Status = grpc.StatusCode
DATA = bytes(range(256)) * 4096  # 1 MiB


class Oops(Exception):
    """What the callers' own code raises here."""


# --- requests and replies ----------------------------------------------------------------------------------------


def sources(tmp_path: Path) -> Iterator[tuple[Any, bool]]:
    """DATA in every form that a container may have, and whether it can be read twice."""
    path = tmp_path / "film.mp4"
    path.write_bytes(DATA)
    yield path, True
    yield str(path), True
    yield DATA, True
    yield bytearray(DATA), True
    yield memoryview(DATA).cast("I"), True
    yield io.BytesIO(DATA), False
    yield [DATA[:700_000], b"", DATA[700_000:]], False
    yield (DATA[i : i + 99_999] for i in range(0, len(DATA), 99_999)), False


def test_ingest_sends_each_form_whole_in_small_chunks(client: Any, server: Any, tmp_path: Path) -> None:
    for number, (source, replayable) in enumerate(sources(tmp_path)):
        result = client.ingest("film", source, title="Film", tags=["b", "a"], attributes={"year": "1999"})
        assert (result.outcome, result.item.id, result.segment_count, result.report) == (
            Outcome.CREATED,
            "film",
            2,
            None,
        )
        seen = server.call(number)
        assert seen.ended.wait(10)
        assert seen.data == DATA
        assert max(len(request.chunk.data) for request in seen.requests) <= 256 * 1024
        header = seen.requests[0].header
        assert header.content_sha256 == (hashlib.sha256(DATA).digest() if replayable else b"")
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


def test_options_left_out_are_the_servers_defaults(client: Any, server: Any) -> None:
    client.ingest("film", [b"x"])
    client.recommend(items=["a"])
    header = server.call().requests[0].header
    assert header.media.sampling == media_pb2.Sampling()
    assert header.media.limits == media_pb2.MediaLimits()
    assert server.call(1).requests[0].options == recommender_pb2.RankOptions(tags=catalog_pb2.TagFilter())


FULL_REPORT = media_pb2.MediaReport(
    bytes=1,
    frames_seen=2,
    frames_used=3,
    frames_reused=4,
    duration_us=5_500_000,
    truncated=True,
    container="mp4",
    codec="h264",
    width=6,
    height=7,
    max_time_error_us=20_000,
    warnings=[media_pb2.MediaWarning(reason="TRUNCATED", message="Half is missing.")],
)
STAGE = common_pb2.Stage(name="decode", wall_us=1_500_000, cpu_us=250_000, variant="pyav", counts={"frames": 3})
TIMES = common_pb2.StageTimes(stages=[STAGE], total_us=2_000_000)


def test_every_field_of_a_ranking_is_read(client: Any, server: Any) -> None:
    item = catalog_pb2.Item(item_id="a", title="A", uri="u", tags=["t"], attributes={"k": "v"}, duration_us=9_000_000)
    match = recommender_pb2.Match(
        item=item,
        score=0.5,
        item_range=common_pb2.TimeRange(start_us=0, end_us=1_000_000),
        query_item_id="q",
    )
    encoder = common_pb2.Encoder(name="lite", version="1", digest="abc", dimensions=4)
    reply = recommender_pb2.RecommendResponse(
        matches=[match], revision=1, final=True, encoder=encoder, times=TIMES, report=FULL_REPORT
    )
    server.on("Recommend", lambda requests, seen, context: [reply])
    result = client.recommend(items=["q"])
    (found,) = result
    assert len(result) == 1
    assert (found.item.id, found.item.title, found.item.uri, found.item.tags) == ("a", "A", "u", ("t",))
    assert (found.item.attributes, found.item.duration) == ({"k": "v"}, 9.0)
    assert (found.score, found.query_item_id) == (0.5, "q")
    assert found.item_range == TimeRange(0.0, 1.0)
    assert found.query_range is None
    assert (result.revision, result.final, result.encoder) == (1, True, Encoder("lite", "1", "abc", 4))
    (stage,) = result.times.stages
    assert (stage.name, stage.wall, stage.cpu, stage.variant, stage.counts) == (
        "decode",
        1.5,
        0.25,
        "pyav",
        {"frames": 3},
    )
    assert result.times.total == 2.0
    report = result.report
    assert (report.bytes, report.frames_seen, report.frames_used, report.frames_reused) == (1, 2, 3, 4)
    assert (report.duration, report.truncated, report.container, report.codec) == (5.5, True, "mp4", "h264")
    assert (report.width, report.height, report.max_time_error) == (6, 7, 0.02)
    assert report.warnings == (MediaWarning("TRUNCATED", "Half is missing."),)


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


def test_recommend_by_items_and_vector(client: Any, server: Any) -> None:
    result = client.recommend(
        items=["q"], include_themselves=True, limit=3, exclude=["z"], any_of=["x"], minimum_score=0.0
    )
    assert [match.item.id for match in result] == ["a", "b"]
    assert server.call().requests[0] == recommender_pb2.RecommendRequest(
        tenant="films",
        query=recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=["q"], include_themselves=True)),
        options=recommender_pb2.RankOptions(
            limit=3, exclude_item_ids=["z"], tags=catalog_pb2.TagFilter(any_of=["x"]), minimum_score=0.0
        ),
    )
    client.recommend(vector=np.array([1.0, 2.0], np.float32))
    query = server.call(1).requests[0].query
    assert query == recommender_pb2.Query(vector=recommender_pb2.VectorQuery(values=[1.0, 2.0]))


def test_a_small_clip_goes_in_one_message(client: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(DATA)
    client.recommend(clip=path, format="mp4", rate=2, limit=4)
    request = server.call().requests[0]
    assert server.call().method == "Recommend"
    assert b"".join(chunk.data for chunk in request.query.clip.chunks) == DATA
    assert max(len(chunk.data) for chunk in request.query.clip.chunks) <= 2**20
    assert request.query.clip.media.container.format == "mp4"
    assert request.query.clip.media.sampling.frames_per_second == 2
    assert request.options.limit == 4


def test_a_large_or_endless_clip_goes_live_and_only_the_last_ranking_returns(
    client: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "ONE_MESSAGE", len(DATA) - 1)
    for number, (clip, _) in enumerate(sources(tmp_path)):
        result = client.recommend(clip=clip, limit=4, tolerance=0.5)
        assert (result.final, [match.item.id for match in result]) == (True, ["a", "b"])
        seen = server.call(number)
        assert (seen.method, seen.data) == ("RecommendLive", DATA)
        header = seen.requests[0].header
        assert (header.options.limit, header.media.sampling.tolerance_us) == (4, 500_000)
        assert header.options.frames_per_update == 2**31 - 1


def test_live_without_a_reply_is_the_servers_fault(client: Any, server: Any) -> None:
    server.on("RecommendLive", lambda requests, seen, context: iter(list(requests)[:0]))
    with pytest.raises(ServerError, match="without a reply"):
        client.recommend(clip=iter([b"x"]))


def test_health(client: Any, server: Any) -> None:
    assert client.health() == "SERVING"
    client.health("matchcut.v1.Catalog")
    assert server.call(1).requests[0].service == "matchcut.v1.Catalog"


def test_the_token_goes_with_each_call(make: Any, server: Any) -> None:
    client = make(server.target, token="secret")
    client.health()
    client.ingest("a", b"x")
    assert [call.metadata["authorization"] for call in server.calls] == ["Bearer secret", "Bearer secret"]


# --- live --------------------------------------------------------------------------------------------------------


def test_live_container(client: Any, server: Any) -> None:
    rankings = list(client.live(iter([b"ab", b"cd"]), format="mpegts", frames_per_update=2, limit=5))
    assert [(r.revision, r.final) for r in rankings] == [(1, False), (2, False), (3, True)]
    header = server.call().requests[0].header
    assert (header.tenant, header.media.container.format) == ("films", "mpegts")
    assert (header.options.frames_per_update, header.options.limit) == (2, 5)
    assert server.call().data == b"abcd"


@pytest.mark.parametrize(
    ("pixel_format", "shape", "size"),
    [
        ("rgb24", (4, 6, 3), (6, 4)),
        ("bgr24", (4, 6, 3), (6, 4)),
        ("gray8", (5, 7), (7, 5)),
        ("i420", (6, 6), (6, 4)),
        ("nv12", (6, 6), (6, 4)),
    ],
)
@pytest.mark.parametrize("method", ["live_frames", "ingest_frames"])
def test_frames(
    client: Any, server: Any, method: str, pixel_format: str, shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    frames = [np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) + i for i in range(3)]
    timed = ((i / 2, frame) for i, frame in enumerate(frames))
    if method == "live_frames":
        assert len(list(client.live_frames(timed, pixel_format=pixel_format))) == 4
    else:
        client.ingest_frames("film", timed, pixel_format=pixel_format)
    header, *chunks = server.call().requests
    form = header.header.media.frames
    assert (form.width, form.height) == size
    assert media_pb2.PixelFormat.Name(form.pixel_format) == f"PIXEL_FORMAT_{pixel_format.upper()}"
    assert [(c.chunk.frame.time_us, c.chunk.frame.pixels) for c in chunks] == [
        (i * 500_000, frame.tobytes()) for i, frame in enumerate(frames)
    ]


def test_frames_need_no_numpy_and_no_packing(client: Any, server: Any) -> None:
    class Tensor:
        def __array__(self) -> Any:
            return np.full((2, 2, 3), 7, np.uint8)

    whole = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    plain = memoryview(bytes(range(12))).cast("B", (2, 2, 3))
    list(client.live_frames([(0.0, whole[::2, ::2]), (0.1, plain), (0.2, Tensor())]))
    pixels = [request.chunk.frame.pixels for request in server.call().requests[1:]]
    assert pixels == [whole[::2, ::2].tobytes(), bytes(range(12)), bytes([7] * 12)]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)], "one size"),
        ([np.zeros((2, 2, 3), np.float32)], "uint8"),
        ([np.zeros((2, 2), np.uint8)], "no rgb24 frame"),
        ([np.zeros((2, 2, 4), np.uint8)], "no rgb24 frame"),
    ],
)
def test_frames_of_another_shape_are_refused(client: Any, server: Any, frames: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(client.live_frames((float(i), frame) for i, frame in enumerate(frames)))


@pytest.mark.parametrize("method", ["live_pictures", "ingest_pictures"])
def test_pictures(client: Any, server: Any, method: str) -> None:
    pictures = [(0.0, b"jpeg"), (1.5, b"png")]
    if method == "live_pictures":
        assert [r.final for r in client.live_pictures(pictures)] == [False, False, True]
    else:
        client.ingest_pictures("film", pictures)
    header, *chunks = server.call().requests
    assert header.header.media.WhichOneof("form") == "pictures"
    assert [(c.chunk.picture.time_us, c.chunk.picture.data) for c in chunks] == [(0, b"jpeg"), (1_500_000, b"png")]


def test_rankings_come_while_media_is_sent(client: Any, server: Any) -> None:
    seen_first = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"first"
        assert seen_first.wait(10)
        yield b"second"

    revisions = []
    for ranking in client.live(chunks()):
        revisions.append(ranking.revision)
        seen_first.set()
    assert revisions == [1, 2, 3]


def test_leaving_a_live_loop_cancels_the_call(client: Any, server: Any) -> None:
    server.patient = True
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            for number in itertools.count():
                yield bytes([number % 256])
        finally:
            closed.set()

    for ranking in client.live(endless()):
        assert ranking.revision == 1
        break
    assert server.call().gone.wait(10)
    assert not server.call().ended.is_set()
    assert closed.wait(10)


def test_leaving_a_live_loop_does_not_wait_for_the_callers_iterator(client: Any, server: Any) -> None:
    server.patient = True
    blocked, release, closed = threading.Event(), threading.Event(), threading.Event()

    def blocking() -> Iterator[bytes]:
        try:
            yield b"one"
            blocked.set()
            release.wait(10)
            yield b"two"
        finally:
            closed.set()

    rankings = client.live(blocking())
    assert next(rankings).revision == 1
    assert blocked.wait(10)
    rankings.close()
    assert server.call().gone.wait(10)
    assert not closed.is_set()
    release.set()
    assert closed.wait(10)


# --- early answers, progress -------------------------------------------------------------------------------------


def unchanged(requests: Iterator[Any], seen: Any, context: Any) -> Iterator[Message]:
    """Answers after the header, as for an item that is there already."""
    item = next(requests).header.item
    yield catalog_pb2.IngestResponse(item=item, outcome=catalog_pb2.INGEST_OUTCOME_UNCHANGED)


def test_an_early_answer_ends_the_upload(client: Any, server: Any) -> None:
    server.on("Ingest", unchanged)
    result = client.ingest("film", itertools.repeat(DATA))  # would never end by itself
    assert result.outcome is Outcome.UNCHANGED


def test_an_early_error_ends_the_upload(client: Any, server: Any) -> None:
    server.on("Ingest", server.fails(Status.INVALID_ARGUMENT, "No."))
    with pytest.raises(InvalidInput):
        client.ingest("film", itertools.repeat(DATA))


def test_an_early_answer_is_not_held_up_by_the_callers_iterator(client: Any, server: Any) -> None:
    release = threading.Event()

    def blocking() -> Iterator[bytes]:
        yield b"one"
        release.wait(10)

    server.on("Ingest", unchanged)
    assert client.ingest("film", blocking()).outcome is Outcome.UNCHANGED
    assert not release.is_set()
    release.set()


def test_early_errors_are_the_servers_own_each_time(client: Any, server: Any) -> None:
    """grpc.aio shows INTERNAL for some of these, by a race."""
    server.on("Ingest", server.fails(Status.FAILED_PRECONDITION, "Not so."))
    server.on("RecommendLive", server.fails(Status.FAILED_PRECONDITION, "Not so."))
    for _ in range(50):
        with pytest.raises(FailedPrecondition, match="Not so"):
            client.ingest("film", itertools.repeat(b"x" * 1000))
        with pytest.raises(FailedPrecondition, match="Not so"):
            list(client.live(itertools.repeat(b"x" * 1000)))


def test_an_early_end_of_a_live_call_is_no_error(client: Any, server: Any) -> None:
    server.on("RecommendLive", lambda requests, seen, context: [server.ranking(1, "a", final=bool(next(requests)))])
    for _ in range(50):
        assert [ranking.final for ranking in client.live(itertools.repeat(b"x" * 1000))] == [True]


@pytest.mark.parametrize(("whole", "total"), [(True, len(DATA)), (False, None)])
def test_progress_grows_to_the_total(client: Any, server: Any, whole: bool, total: int | None) -> None:
    told: list[tuple[int, int | None]] = []
    client.ingest("film", DATA if whole else iter([DATA]), progress=lambda sent, total: told.append((sent, total)))
    assert [sent for sent, _ in told] == [262_144, 524_288, 786_432, 1_048_576]
    assert {total for _, total in told} == {total}


def test_progress_does_not_go_back_when_sent_again(client: Any, server: Any) -> None:
    def half(requests: Iterator[Any], seen: Any, context: Any) -> list[Message]:
        list(itertools.islice(requests, 3))
        context.abort(Status.UNAVAILABLE, "Shutting down.")
        return []

    told: list[int] = []
    default = server._handlers["Ingest"]
    server.on("Ingest", half, default)
    client.ingest("film", DATA, progress=lambda sent, total: told.append(sent))
    assert len(server.calls) == 2
    assert told == sorted(set(told))
    assert told[-1] == len(DATA)


# --- errors ------------------------------------------------------------------------------------------------------


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
        (Status.PERMISSION_DENIED, Unauthenticated),
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
        (lambda c: c.get("a", colour="red"), "unexpected keyword 'colour'"),
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


# --- retries -----------------------------------------------------------------------------------------------------


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


# --- the package -------------------------------------------------------------------------------------------------


def test_names_are_sorted_and_there() -> None:
    assert list(matchcut.client.__all__) == sorted(matchcut.client.__all__)
    assert all(hasattr(matchcut.client, name) for name in matchcut.client.__all__)


def test_the_client_loads_neither_the_server_nor_numpy() -> None:
    code = "import sys, matchcut.client; print([m for m in sys.modules if m in ('numpy', 'matchcut.server', 'av')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_shows_what_a_method_returns(kind: Any) -> None:
    assert inspect.signature(kind.recommend).return_annotation == "Ranking"
    assert inspect.signature(kind.health).return_annotation == "str"
    prefix = "Async" if kind is AsyncClient else ""
    assert inspect.signature(kind.live).return_annotation == f"{prefix}Generator[Ranking]"
    assert inspect.signature(kind.items).return_annotation == f"{prefix}Iterator[Item]"
    assert list(inspect.signature(kind.get).parameters) == ["session", "item_id", "vectors", "options"]


def test_both_clients_have_the_same_methods() -> None:
    names = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert names[0] == names[1]
    assert {"ingest", "recommend", "live", "items", "remove", "close"} <= names[0]
