"""Media that goes in while rankings, or an early answer, come out of both Python clients."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from matchcut.client import (
    FailedPrecondition,
    InvalidInput,
    Outcome,
)
from matchcut.v1 import catalog_pb2, media_pb2, recommender_pb2

Status = grpc.StatusCode
DATA = bytes(range(256)) * 4096  # 1 MiB


def test_live_container(client: Any, server: Any) -> None:
    rankings = list(client.live(iter([b"ab", b"cd"]), format="mpegts", frames_per_update=2, limit=5))
    assert [(r.revision, r.final) for r in rankings] == [(1, False), (2, False), (3, True)]
    header = server.call().requests[0].header
    assert (header.tenant, header.media.container.format) == ("films", "mpegts")
    assert (header.options.frames_per_update, header.options.limit) == (2, 5)
    assert server.call().data == b"abcd"


def test_live_of_a_state(client: Any, server: Any) -> None:
    timed = [(0.0, np.zeros((4, 6, 3), np.uint8))]
    assert list(client.live_frames(timed, temporal="gru", resume=b"before", latest_only=True))
    header = server.call().requests[0].header
    assert header.temporal == recommender_pb2.TEMPORAL_GRU
    assert (header.resume, header.latest_only) == (b"before", True)


def test_what_a_query_is_made_of_is_one_of_two(client: Any) -> None:
    with pytest.raises(ValueError, match='temporal is "segments" or "gru", not \'lstm\''):
        client.recommend(clip=b"ab", temporal="lstm")


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
    call = server.call()
    header = call.requests[0]
    assert call.sealed == method.startswith("ingest")
    form = header.header.media.frames
    assert (form.width, form.height) == size
    assert media_pb2.PixelFormat.Name(form.pixel_format) == f"PIXEL_FORMAT_{pixel_format.upper()}"
    assert [(c.frame.time_us, c.frame.pixels) for c in call.chunks] == [
        (i * 500_000, frame.tobytes()) for i, frame in enumerate(frames)
    ]


@pytest.mark.parametrize("method", ["live_frames", "ingest_frames"])
def test_no_frames_are_told(client: Any, server: Any, method: str) -> None:
    with pytest.raises(InvalidInput, match="there is no frame") as caught:
        list(client.live_frames([])) if method == "live_frames" else client.ingest_frames("film", [])
    assert caught.value.reason == "EMPTY_MEDIA"


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
    call = server.call()
    header = call.requests[0]
    assert call.sealed == method.startswith("ingest")
    assert header.header.media.WhichOneof("form") == "pictures"
    assert [(c.picture.time_us, c.picture.data) for c in call.chunks] == [(0, b"jpeg"), (1_500_000, b"png")]


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
