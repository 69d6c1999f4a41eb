"""Requests on the wire, against a scripted server: what goes out, what is counted of what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from matchcut.bench.arrivals import Arrivals, Camera
from matchcut.bench.calls import Callers
from matchcut.bench.drive import Bounds
from matchcut.bench.errors import BadInput
from matchcut.bench.pixels import frames
from matchcut.bench.plan import Mix, Plan, make, share
from matchcut.bench.prepared import Unary
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target
from matchcut.bench.worker import Job, loop, work
from matchcut.bench.workloads import LIVE, OWN, Own, Settings, fresh
from matchcut.client import Client
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2
from support.fake_server import ENCODER, FakeServer, ranking

ALL = tuple(OWN)
SECONDS = 0.3


def measure(server: FakeServer, *names: str, settings: Settings = Settings(), **options: Any) -> Tally:  # noqa: B008
    """One process's work, here: some tenths of a second of these requests."""
    plan = Plan(
        Arrivals("constant", camera=Camera(fps=20, jitter=0)),
        Mix(dict.fromkeys(names, 1.0)),
        rate=options.get("rate", 40.0),
        seconds=SECONDS,
        live=LIVE,
        live_seconds=0.2,
    )
    with Client(server.target, tenant="films") as client:
        own = Own(client, settings)
        prepared = fresh(own.prepare(names), 0)
        job = Job(
            target=Target(address=server.target, tenant="films", token="secret"),
            prepared=prepared,
            plan=plan,
            bounds=Bounds(seconds=SECONDS, late=30, drain=20),
            timeout=options.get("timeout", 20.0),
            channels=2,
        )

        async def run() -> Tally:
            start: asyncio.Future[float] = asyncio.get_running_loop().create_future()

            def ready() -> None:
                start.set_result(asyncio.get_running_loop().time())

            return await work(job, start, asyncio.Event(), ready)

        with asyncio.Runner(loop_factory=loop) as runner:
            tally = runner.run(run())
        own.clean(tally.created)
    return tally


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(range(256)) * 6000)
    return path


def test_every_workload_is_sent_and_answered(server: FakeServer, clip: Path) -> None:
    tally = measure(server, *ALL, settings=Settings(clips=(clip,), fps=20, size=(8, 6), users=3), rate=100.0)
    assert set(tally.kinds) == set(ALL)
    for name, kind in tally.kinds.items():
        assert kind.planned == kind.sent == kind.ok > 0, name
        assert kind.latency.count >= (0 if name == "live" else kind.ok)
        assert not kind.bad
    methods = {call.method for call in server.calls if call.metadata.get("authorization") == "Bearer secret"}
    methods -= {"Recommend", "Ingest", "RecommendLive", "RecordEvents", "RecommendForUser"}
    assert methods == {"RecommendForUserLive"}


def test_requests_are_what_they_are_called(server: FakeServer, clip: Path) -> None:
    measure(server, "query", "vector", "clip", settings=Settings(clips=(clip,), limit=7))
    asked = [call.requests[0] for call in server.calls if call.metadata.get("authorization")]
    kinds = {request.query.WhichOneof("source") for request in asked}
    assert kinds == {"items", "vector", "clip"}
    for request in asked:
        assert request.tenant == "films"
        assert request.options.limit == 7
    vectors = [tuple(request.query.vector.values) for request in asked if request.query.HasField("vector")]
    assert {len(values) for values in vectors} == {ENCODER.dimensions}
    assert len(set(vectors)) == len(vectors)  # or a cache would answer
    sent = next(request.query.clip for request in asked if request.query.HasField("clip"))
    assert b"".join(chunk.data for chunk in sent.chunks) == clip.read_bytes()


def test_uploads_have_ids_of_their_own_and_are_removed(server: FakeServer, clip: Path) -> None:
    removed: list[str] = []

    def remove(requests: Iterator[Any], seen: Any, context: Any) -> Any:
        request = next(requests)
        assert request.allow_missing
        removed.append(request.item_id)
        return [catalog_pb2.RemoveItemResponse(removed=True)]

    server.on("RemoveItem", remove)
    tally = measure(server, "ingest", settings=Settings(clips=(clip,)))
    uploads = [call for call in server.calls if call.method == "Ingest"]
    ids = [call.requests[0].header.item.item_id for call in uploads]
    assert len(ids) == len(set(ids)) == tally.kinds["ingest"].ok > 0
    assert sorted(removed) == sorted(ids) == sorted(tally.created)
    assert all(item_id.startswith("bench-") for item_id in ids)
    assert all(call.data == clip.read_bytes() and call.sealed for call in uploads)


def test_uploads_of_a_run_that_could_not_tell_them_are_searched_for(server: FakeServer) -> None:
    removed: list[str] = []

    def remove(requests: Iterator[Any], seen: Any, context: Any) -> Any:
        removed.append(next(requests).item_id)
        return [catalog_pb2.RemoveItemResponse(removed=True)]

    def listed(requests: Iterator[Any], seen: Any, context: Any) -> Any:
        items = [catalog_pb2.Item(item_id=item_id) for item_id in ("film", "bench-other-0-1", f"{own.prefix}0-7")]
        return [catalog_pb2.ListItemsResponse(items=items)]

    server.on("RemoveItem", remove)
    server.on("ListItems", listed)
    with Client(server.target) as client:
        own = Own(client, Settings())
        assert own.clean([f"{own.prefix}1-0"], search=True) == 2
        assert removed == [f"{own.prefix}0-7", f"{own.prefix}1-0"]
        removed.clear()
        assert own.clean([]) == 0
        assert not removed


def test_events_are_of_made_up_users_who_are_forgotten(server: FakeServer) -> None:
    measure(server, "events", "user", settings=Settings(per_call=3, users=5))
    recorded = [call.requests[0] for call in server.calls if call.method == "RecordEvents"]
    assert {len(request.events) for request in recorded} >= {3}
    users = {event.user_id for request in recorded for event in request.events}
    forgotten = {call.requests[0].user_id for call in server.calls if call.method == "ForgetUser"}
    assert users <= forgotten
    assert len(forgotten) == 5
    assert all(user.startswith("bench-") for user in forgotten)


def seen(requests: Iterator[Any], drops: int = 0) -> Iterator[recommender_pb2.RecommendResponse]:
    """A list for each frame, which says how many were seen; the first `drops` are dropped."""
    frame = 0
    for request in requests:
        if not request.HasField("chunk"):
            continue
        frame += 1
        if frame <= drops:
            continue
        reply = ranking(frame - drops, "a")
        reply.report.CopyFrom(media_pb2.MediaReport(frames_seen=frame - drops, frames_dropped=drops))
        yield reply
    last = ranking(frame + 1, "a", final=True)
    last.report.CopyFrom(media_pb2.MediaReport(frames_seen=frame - drops, frames_dropped=drops))
    last.times.CopyFrom(common_pb2.StageTimes(stages=[common_pb2.Stage(name="rank", wall_us=8000)], total_us=16000))
    yield last


def test_each_list_of_a_live_query_is_of_the_newest_frame(server: FakeServer) -> None:
    server.on("RecommendLive", lambda requests, call, context: seen(requests, drops=1))
    tally = measure(server, "live", settings=Settings(size=(8, 6), fps=20), rate=10.0)
    kind = tally.kinds["live"]
    assert kind.ok == 3
    assert kind.frames == 12  # 0.2 s at 20 a second, three times
    assert kind.dropped == 3
    assert kind.latency.count == kind.service.count == 9
    assert kind.stages["rank"].at(50) == pytest.approx(0.002, rel=0.01)  # of a frame
    stream = next(call for call in server.calls if call.method == "RecommendLive")
    header = stream.requests[0].header
    assert header.latest_only
    assert header.options.frames_per_update == 1
    assert (header.media.frames.width, header.media.frames.height) == (8, 6)
    pictures = [chunk.frame.pixels for chunk in stream.chunks]
    assert len(set(pictures)) == len(pictures) == 4
    times = [chunk.frame.time_us for chunk in stream.chunks]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(150_000, abs=10)


def test_a_live_query_that_fails_is_an_error_whatever_it_had_answered(server: FakeServer) -> None:
    def failing(requests: Iterator[Any], call: Any, context: Any) -> Iterator[Any]:
        # All is read: into a call that has ended grpc.aio may fail to write, and then says INTERNAL of it.
        yield from list(seen(requests))[:2]
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")

    server.on("RecommendLive", failing)
    kind = measure(server, "live", settings=Settings(size=(8, 6), fps=20), rate=10.0).kinds["live"]
    assert kind.errors == {"RESOURCE_EXHAUSTED": 3}, kind.why
    assert kind.why == {"RESOURCE_EXHAUSTED": "too many"}
    assert kind.latency.count == 0
    assert kind.failed.count == 3


def test_stage_times_are_read_and_the_rest_is_elsewhere(server: FakeServer) -> None:
    def slow(requests: Iterator[Any], call: Any, context: Any) -> Any:
        next(requests)
        reply = ranking(1, "a", final=True)
        reply.times.CopyFrom(common_pb2.StageTimes(stages=[common_pb2.Stage(name="rank", wall_us=40)], total_us=50))
        return [reply]

    server.on("Recommend", slow)
    stages = measure(server, "query").kinds["query"].stages
    assert list(stages) == ["rank", "total", "elsewhere"]
    assert stages["rank"].at(99) == pytest.approx(40e-6, rel=0.02)
    assert stages["elsewhere"].mean > 0


def test_failures_are_told_by_status(server: FakeServer) -> None:
    answers = [server.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"), server.fails(grpc.StatusCode.INTERNAL, "oh")]
    server.on("Recommend", *answers)
    kind = measure(server, "query").kinds["query"]
    assert kind.errors == {"RESOURCE_EXHAUSTED": 1, "INTERNAL": kind.planned - 1}
    assert kind.why == {"RESOURCE_EXHAUSTED": "busy", "INTERNAL": "oh"}
    assert kind.ok == kind.latency.count == 0


def test_a_deadline_that_passes_is_a_failure(server: FakeServer) -> None:
    def asleep(requests: Iterator[Any], call: Any, context: Any) -> Any:
        next(requests)
        call.gone.wait(20)
        return []

    server.on("Recommend", asleep)
    kind = measure(server, "query", timeout=0.05).kinds["query"]
    assert kind.errors["DEADLINE_EXCEEDED"] == kind.planned


def test_a_server_that_is_away_is_counted(server: FakeServer) -> None:
    plan = Plan(Arrivals("constant"), Mix({"query": 1.0}), rate=20, seconds=SECONDS)
    with Client(server.target) as client:
        prepared = Own(client, Settings()).prepare(["query"])
    bounds = Bounds(seconds=SECONDS, late=30)
    job = Job(target=Target(address="127.0.0.1:1"), prepared=prepared, plan=plan, bounds=bounds, timeout=5.0)

    async def run(job: Job) -> Tally:
        start: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        start.set_result(asyncio.get_running_loop().time())
        return await work(job, start, asyncio.Event(), lambda: None)

    tally = asyncio.run(run(replace(job, connect=0.05)))
    assert tally.kinds["query"].errors == {"UNAVAILABLE": 6}


@pytest.mark.parametrize("name", ["clip", "ingest"])
def test_workloads_that_need_clips_say_so(server: FakeServer, name: str) -> None:
    with Client(server.target) as client, pytest.raises(BadInput, match=f"the workload {name} needs clips"):
        Own(client, Settings()).prepare([name])


def test_an_empty_catalogue_says_what_to_do(server: FakeServer) -> None:
    server.on("ListItems", lambda requests, call, context: [catalog_pb2.ListItemsResponse()])
    with (
        Client(server.target, tenant="films") as client,
        pytest.raises(BadInput, match=r"catalogue of tenant 'films' is empty; put clips in"),
    ):
        Own(client, Settings()).prepare(["query"])


def test_a_clip_too_large_for_one_message(server: FakeServer, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.bench.workloads.MOST_CLIP", 1 << 20)
    with Client(server.target) as client, pytest.raises(BadInput, match="too many for one message"):
        Own(client, Settings(clips=(clip,))).prepare(["clip"])


@pytest.mark.parametrize("process", [0, 1])
def test_all_connections_are_used_whichever_process_it_is(process: int) -> None:
    """A process has every second number of the plan, which must not leave it every second connection only."""
    used: list[int] = []

    class Channel:
        def __init__(self, number: int) -> None:
            self._number = number

        def unary_unary(self, method: str) -> Any:
            async def call(request: bytes, **options: Any) -> bytes:
                used.append(self._number)
                return b""

            return call

    plan = Plan(Arrivals("constant"), Mix({"query": 1.0}), rate=8, seconds=1)
    sends = share(make(plan), process, 2)
    channels: Any = [Channel(0), Channel(1)]
    prepared = [Unary("query", "/x", (b"",))]

    async def run() -> None:
        callers = Callers(channels, prepared, metadata=(), timeout=1, process=process, processes=2)
        for send in sends:
            assert (await callers(send, 0.0)).ok

    asyncio.run(run())
    assert used == [0, 1, 0, 1]


def test_frames_are_of_their_size_and_no_two_alike() -> None:
    made = frames(13, 7, 5)
    assert {len(frame) for frame in made} == {13 * 7 * 3}
    assert len(set(made)) == 5
    assert made == frames(13, 7, 5)
    assert all(max(frame) - min(frame) > 100 for frame in made)
