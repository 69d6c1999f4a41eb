"""Lists for users from both Python clients: once, and live with events, with media, and with both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from matchcut.client import Encoder, Event, InvalidInput, NotFound, ServerError
from matchcut.v1 import media_pb2, recommender_pb2

Status = grpc.StatusCode


class Driven:
    """An AsyncLiveList with the methods of a LiveList; see conftest.Driven."""

    def __init__(self, live: Any, runner: Any) -> None:
        self._live = live
        self._run = runner

    def __iter__(self) -> Driven:
        return self

    def __next__(self) -> Any:
        ranking = self._run(self._step())
        if ranking is None:
            raise StopIteration
        return ranking

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._live, name)
        return (lambda *args, **more: self._run(found(*args, **more))) if callable(found) else found

    async def _step(self) -> Any:
        return await anext(self._live, None)


@contextmanager
def following(client: Any, user: str = "ann", **options: Any) -> Iterator[Any]:
    """The live list of either client."""
    live = client.recommend_live_for(user, **options)
    if hasattr(live, "__enter__"):
        with live:
            yield live
        return
    driven = Driven(live, client._run)
    driven.__aenter__()
    try:
        yield driven
    finally:
        driven.close()


def ids(ranking: Any) -> list[str]:
    return [match.item.id for match in ranking]


def test_a_list_is_told_whole(client: Any, server: Any) -> None:
    ranking = client.recommend_for("ann", limit=5)
    assert ids(ranking) == ["a", "ann"]
    best = ranking.matches[0]
    assert (best.score, best.propensity) == (0.5, 0.25)
    assert (best.reason.nearest, best.reason.similarity, dict(best.reason.shares)) == ("near", 0.75, {"history": 1.0})
    assert (ranking.recommendation_id, ranking.model.name, ranking.encoder.name) == ("list", "mean", "lite")
    assert (ranking.variant, ranking.report, ranking.cold) == (None, None, False)
    assert (ranking.events, ranking.revision, ranking.final, len(ranking)) == (2, 1, True, 2)
    (request,) = server.call().requests
    assert (request.tenant, request.user_id, request.options.limit) == ("films", "ann", 5)
    assert not request.HasField("current")
    assert request.user_options == recommender_pb2.UserOptions()


def test_a_variant_and_a_report(client: Any, server: Any) -> None:
    reply = server.user_ranking(1, "a")
    reply.variant.CopyFrom(recommender_pb2.Variant(experiment="mmr", name="more"))
    reply.report.frames_used = 3
    server.on("RecommendForUser", lambda r, s, c: [reply])
    ranking = client.recommend_for("ann")
    assert (ranking.variant.experiment, ranking.variant.name, ranking.report.frames_used) == ("mmr", "more", 3)


def test_how_a_list_is_made(client: Any, server: Any) -> None:
    client.recommend_for(
        "ann",
        include_seen=False,
        mmr_lambda=0.0,
        current_weight=0.25,
        freshness=1.5,
        freshness_half_life=3600.0,
        popularity=None,
        cap=2,
        cap_attribute="studio",
        exploration=0.125,
        exclude=["x"],
        all_of=["drama"],
        minimum_score=0.0,
    )
    (request,) = server.call().requests
    assert request.user_options == recommender_pb2.UserOptions(
        include_seen=False,
        mmr_lambda=0.0,
        current_weight=0.25,
        freshness=1.5,
        freshness_half_life_us=3_600_000_000,
        cap=2,
        cap_attribute="studio",
        exploration=0.125,
    )
    assert list(request.options.exclude_item_ids) == ["x"]
    assert list(request.options.tags.all_of) == ["drama"]
    assert request.options.HasField("minimum_score")


def test_what_is_of_interest_now(client: Any, server: Any) -> None:
    client.recommend_for("ann", items=["a", "b"], include_themselves=True)
    client.recommend_for("ann", vector=[1.0, 0.5], encoder=Encoder("lite", "1", "ab", 2))
    client.recommend_for("ann", clip=b"film", format="mpegts", rate=2.0, temporal="gru")
    client.recommend_for("ann", clip=iter([b"fi", b"lm"]))
    items, vector, clip, pieces = (server.call(number).requests[0].current for number in range(4))
    assert (list(items.items.item_ids), items.items.include_themselves) == (["a", "b"], True)
    assert (list(vector.vector.values), vector.vector.encoder.digest) == ([1.0, 0.5], "ab")
    assert [chunk.data for chunk in clip.clip.chunks] == [b"film"]
    assert (clip.clip.media.container.format, clip.clip.temporal) == ("mpegts", recommender_pb2.TEMPORAL_GRU)
    assert clip.clip.media.sampling.frames_per_second == 2.0
    assert [chunk.data for chunk in pieces.clip.chunks] == [b"fi", b"lm"]
    assert server.call(2).requests[0].user_id == "ann"
    with pytest.raises(TypeError, match="at most one of"):
        client.recommend_for("ann", items=["a"], vector=[1.0])


def test_a_history_in_place_of_what_is_kept(client: Any, server: Any) -> None:
    client.recommend_for(history=[Event("", "a", "like", 1.0), {"item": "b", "kind": "skip"}])
    (request,) = server.call().requests
    assert request.user_id == ""
    assert [(event.item_id, event.user_id) for event in request.history] == [("a", ""), ("b", "")]
    client.recommend_for(history={"item": "c", "kind": "like"})
    assert [event.item_id for event in server.call(1).requests[0].history] == ["c"]


def test_a_list_is_asked_for_again_where_that_may_help(client: Any, server: Any) -> None:
    unavailable = server.fails(Status.UNAVAILABLE, "Not now.")
    server.on("RecommendForUser", unavailable, lambda r, s, c: [server.user_ranking(1, "a")])
    assert ids(client.recommend_for("ann")) == ["a"]
    server.on("RecommendForUser", server.fails(Status.NOT_FOUND, "there is no item 'b'"))
    with pytest.raises(NotFound):
        client.recommend_for("ann", items=["b"])
    assert len(server.calls) == 3


def test_each_event_is_answered(client: Any, server: Any) -> None:
    with following(client, limit=7, cap=1, timeout=30) as live:
        assert (live.ranking.revision, ids(live.ranking)) == (1, [])
        assert ids(live.event("a")) == ["a"]
        assert ids(live.event("b", "watch", fraction=0.5, time=2.0, id="mine")) == ["a", "b"]
        assert live.ranking.revision == 3
        last = live.end()
        assert (last.final, ids(last), live.ranking) == (True, ["a", "b"], last)
        assert list(live) == []
        with pytest.raises(ServerError, match="no more lists"):
            live.event("c")
    header, first, second = server.call().requests
    assert (header.header.tenant, header.header.user_id, header.header.options.limit) == ("films", "ann", 7)
    assert header.header.user_options.cap == 1
    assert not header.header.HasField("media")
    assert (first.event.user_id, first.event.item_id, len(first.event.event_id)) == ("", "a", 32)
    assert (second.event.event_id, second.event.time_us, second.event.fraction) == ("mine", 2_000_000, 0.5)
    assert server.call().ended.wait(10)


def test_leaving_ends_the_call(client: Any, server: Any) -> None:
    with following(client) as live:
        live.event("a")
    assert server.call().gone.wait(10) or server.call().ended.wait(10)
    with pytest.raises(ServerError):
        live.event("b")


def test_a_list_that_was_not_entered_says_so_and_one_is_not_entered_twice(client: Any, server: Any) -> None:
    live = client.recommend_live_for("ann")
    if not hasattr(live, "__enter__"):
        live = Driven(live, client._run)
    with pytest.raises(RuntimeError, match=r"use a live list in an? `(async )?with` statement"):
        live.event("a")
    with pytest.raises(RuntimeError, match=r"use a live list in an? `(async )?with` statement"):
        live.end()
    enter = type(live).__enter__ if hasattr(type(live), "__enter__") else lambda live: live.__aenter__()
    enter(live)
    live.event("a")
    live.close()
    with pytest.raises(RuntimeError, match="ask for another one"):
        enter(live)


def test_live_media_gives_lists_until_it_ends(client: Any, server: Any) -> None:
    frames = ((float(n), np.full((4, 6, 3), n, np.uint8)) for n in range(3))
    with following(client, frames=frames, rate=2.0, frames_per_update=1) as live:
        lists = list(live)
    assert [ranking.revision for ranking in lists] == [1, 2, 3, 4, 5]
    assert [ranking.final for ranking in lists] == [False] * 4 + [True]
    assert ids(lists[-1]) == ["seen"] * 3
    header = server.call().requests[0].header
    assert (header.media.frames.width, header.media.frames.height) == (6, 4)
    assert header.media.sampling.frames_per_second == 2.0
    assert header.options.frames_per_update == 1
    assert len(server.call().chunks) == 3


@pytest.mark.parametrize("form", ["clip", "pictures"])
def test_other_media(client: Any, server: Any, form: str) -> None:
    media: Any = {"clip": {"clip": b"film", "format": "mpegts"}, "pictures": {"pictures": [(0.5, b"jpeg")]}}[form]
    with following(client, **media) as live:
        assert ids(list(live)[-1]) == ["seen"]
    header = server.call().requests[0].header
    assert header.media.WhichOneof("form") == {"clip": "container", "pictures": "pictures"}[form]
    (chunk,) = server.call().chunks
    whole = {
        "clip": media_pb2.MediaChunk(data=b"film"),
        "pictures": media_pb2.MediaChunk(picture=media_pb2.Picture(data=b"jpeg", time_us=500_000)),
    }
    assert chunk == whole[form]


def test_events_while_media_is_live(client: Any, server: Any) -> None:
    more = threading.Event()

    def frames() -> Iterator[tuple[float, Any]]:
        yield 0.0, np.zeros((4, 6, 3), np.uint8)
        assert more.wait(30)
        yield 1.0, np.zeros((4, 6, 3), np.uint8)

    with following(client, frames=frames()) as live:
        lists = iter(live)
        assert ids(next(lists)) == []
        assert ids(next(lists)) == ["seen"]
        assert ids(live.event("a", "like")) == ["seen", "a"]  # the camera waits all the while
        more.set()
        assert ids(next(lists)) == ["seen", "a", "seen"]
        assert next(lists).final
        assert list(lists) == []


def test_an_event_gets_through_although_nobody_takes_the_lists(client: Any, server: Any) -> None:
    """The server takes no media while its lists are not taken; so neither may an event wait for media to leave."""

    def talks(requests: Any, seen: Any, context: Any) -> Any:
        next(requests)
        for revision in range(1, 200):
            yield server.user_ranking(revision, *("x" * 200 for _ in range(100)))
        for request in requests:
            if request.HasField("event"):
                reply = server.user_ranking(200, "answer")
                reply.event_id = request.event.event_id
                yield reply
                return

    shown = 0

    def frames() -> Iterator[tuple[float, Any]]:
        nonlocal shown
        while True:
            yield float(shown), np.zeros((200, 200, 3), np.uint8)
            shown += 1

    server.on("RecommendForUserLive", talks)
    with following(client, frames=frames(), timeout=60) as live:
        before = -1
        while shown != before:  # all are stuck
            before = shown
            time.sleep(0.3)
        assert ids(live.event("a")) == ["answer"]


def test_an_event_is_answered_by_its_own_list(client: Any, server: Any) -> None:
    def looks_first(requests: Any, seen: Any, context: Any) -> Any:
        revision = 0
        for request in requests:
            for number in range(3 if request.HasField("event") else 0):  # the camera's, made before the event came
                revision += 1
                yield server.user_ranking(revision, f"look {number}")
            revision += 1
            reply = server.user_ranking(revision, request.event.item_id)
            reply.event_id = request.event.event_id
            yield reply
        yield server.user_ranking(revision + 1, "last", final=True)

    server.on("RecommendForUserLive", looks_first)
    with following(client) as live:
        answer = live.event("a", id="mine")
        assert (ids(answer), answer.event_id, answer.revision) == (["a"], "mine", 5)
        assert [ids(next(live)) for _ in range(3)] == [["look 0"], ["look 1"], ["look 2"]]
        for number in range(10):  # of many that nobody takes the newest are kept
            assert ids(live.event(f"item {number}")) == [f"item {number}"]
        assert ids(live.end()) == ["last"]


def test_a_refusal_is_raised_where_the_list_was_awaited(client: Any, server: Any) -> None:
    def refuses(requests: Any, seen: Any, context: Any) -> Any:
        next(requests)
        yield server.user_ranking(1)
        next(requests)
        context.abort(Status.INVALID_ARGUMENT, "event.item_id is required")

    server.on("RecommendForUserLive", refuses)
    with following(client) as live:
        with pytest.raises(InvalidInput, match="item_id is required"):
            live.event("")
        for _ in range(40):  # more than wait to be sent
            with pytest.raises(ServerError, match="no more lists"):
                live.event("a")


def test_a_refused_header_is_raised_at_once(client: Any, server: Any) -> None:
    server.on("RecommendForUserLive", server.fails(Status.INVALID_ARGUMENT, "user_id is required"))
    with pytest.raises(InvalidInput, match="user_id"), following(client, ""):
        pytest.fail("it was let in")


def test_a_camera_that_fails_is_told(client: Any, server: Any) -> None:
    def frames() -> Iterator[tuple[float, Any]]:
        yield 0.0, np.zeros((4, 6, 3), np.uint8)
        raise RuntimeError("the camera fell down")

    with pytest.raises(RuntimeError, match="fell down"), following(client, frames=frames()) as live:
        for _ in live:
            pass


def test_one_kind_of_media_at_a_time(client: Any) -> None:
    with pytest.raises(TypeError, match="at most one of"):
        client.recommend_live_for("ann", clip=b"x", pictures=[])
