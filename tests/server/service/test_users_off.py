"""A server that keeps nothing of users: histories that callers send are all it works with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.v1 import catalog_pb2, events_pb2, events_pb2_grpc
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

SECRET = "ann-of-green-gables"


@pytest.fixture
def config(config: Config) -> Config:
    return replace(config, users="off")


@pytest_asyncio.fixture
async def channel(app: App) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


def event(item_id: str, **more: Any) -> events_pb2.Event:
    return events_pb2.Event(item_id=item_id, kind=events_pb2.EVENT_KIND_LIKE, time_us=1, **more)


async def test_what_would_have_to_be_kept_is_not_allowed(channel: grpc.aio.Channel) -> None:
    events, recommender = events_pb2_grpc.EventsStub(channel), Wire(channel).recommender
    header = pb.RecommendForUserLiveRequest(header=pb.RecommendForUserLiveHeader(user_id=SECRET))
    happened = pb.RecommendForUserLiveRequest(event=event("film"))
    calls = [
        events.RecordEvents(events_pb2.RecordEventsRequest(events=[event("film", user_id=SECRET)])),
        events.ForgetUser(events_pb2.ForgetUserRequest(user_id=SECRET)),
        events.CountEvents(events_pb2.CountEventsRequest()),
        recommender.RecommendForUser(pb.RecommendForUserRequest(user_id=SECRET)),
        recommender.RecommendForUserLive(iter([header, happened])).read(),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert Wire.told(refused.value)[:2] == ("PERMISSION_DENIED", "USERS_OFF")
        assert SECRET not in str(refused.value.details())


async def test_a_history_makes_a_list_and_leaves_nothing(channel: grpc.aio.Channel, config: Config) -> None:
    wire = Wire(channel)
    for number, item in enumerate(("a", "b", "c")):
        vector = [0.1] * 48
        vector[number % 2] = 1.0
        request = catalog_pb2.IngestVectorsRequest(
            item=catalog_pb2.Item(item_id=item), segments=[catalog_pb2.Segment(vector=vector)]
        )
        await wire.catalog.IngestVectors(request)
    history = [event("a", user_id=SECRET)]
    reply = await wire.recommender.RecommendForUser(pb.RecommendForUserRequest(user_id=SECRET, history=history))
    assert [match.item.item_id for match in reply.matches] == ["c", "b"]
    assert (reply.matches[0].reason.nearest_item_id, reply.events, reply.cold) == ("a", 1, False)
    files = [path for path in Path(config.data).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
