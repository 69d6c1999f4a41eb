"""Tenants never see each other: the same users, events and items under two names, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.v1 import catalog_pb2, events_pb2, events_pb2_grpc
from matchcut.v1 import recommender_pb2 as pb
from support.wire import Wire

D = 48
ANN = "ann-of-green-gables"


@pytest.fixture
def config(config: Config) -> Config:
    """Every number leaves the server, so that a test sees those that should not be there; the events are old."""
    return replace(config, anonymity=1, event_days=0)


class Shop:
    """One tenant's caller."""

    def __init__(self, app: App, channel: grpc.aio.Channel, tenant: str) -> None:
        self.app = app
        self.tenant = tenant
        self._wire = Wire(channel)
        self._events = events_pb2_grpc.EventsStub(channel)

    async def put(self, *items: str, base: int = 0) -> None:
        """Puts items in, each in a direction of its own."""
        for number, item_id in enumerate(items):
            vector = [0.1] * D
            vector[base + number] = 1.0
            item, segment = catalog_pb2.Item(item_id=item_id), catalog_pb2.Segment(vector=vector)
            request = catalog_pb2.IngestVectorsRequest(tenant=self.tenant, item=item, segments=[segment])
            await self._wire.catalog.IngestVectors(request)

    async def did(self, user: str, *items: str, **more: Any) -> events_pb2.RecordEventsResponse:
        """The user likes the items."""
        kind = events_pb2.EVENT_KIND_LIKE
        events = [
            events_pb2.Event(user_id=user, item_id=item, kind=kind, time_us=at + 1, **more)
            for at, item in enumerate(items)
        ]
        request = events_pb2.RecordEventsRequest(tenant=self.tenant, events=events)
        reply: events_pb2.RecordEventsResponse = await self._events.RecordEvents(request)
        return reply

    async def sees(self, user: str = ANN, **more: Any) -> pb.RecommendForUserResponse:
        """The user's list, what was seen among it."""
        request = pb.RecommendForUserRequest(tenant=self.tenant, user_id=user, **more)
        request.user_options.include_seen = True
        reply: pb.RecommendForUserResponse = await self._wire.recommender.RecommendForUser(request)
        return reply

    async def forgets(self, user: str = ANN) -> int:
        """Forgets the user; how many events there were."""
        reply = await self._events.ForgetUser(events_pb2.ForgetUserRequest(tenant=self.tenant, user_id=user))
        return int(reply.events)

    async def counts(self, *items: str) -> dict[str, int]:
        """Users of each item."""
        request = events_pb2.CountEventsRequest(tenant=self.tenant, item_ids=items)
        reply = await self._events.CountEvents(request)
        return {one.item_id: one.users for one in reply.items}


@pytest_asyncio.fixture
async def shops(app: App) -> AsyncIterator[tuple[Shop, Shop]]:
    """Two tenants of one server."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield Shop(app, channel, "north"), Shop(app, channel, "south")


def items(ranking: pb.RecommendForUserResponse) -> set[str]:
    return {match.item.item_id for match in ranking.matches}


def told(ranking: pb.RecommendForUserResponse) -> str:
    """All of a list that is not the same for everybody."""
    ranking.ClearField("times")
    return str(ranking)


async def test_a_user_of_the_same_name_is_another(shops: tuple[Shop, Shop]) -> None:
    north, south = shops
    await north.put("n1", "n2", "n3")
    await south.put("s1", "s2", "s3")
    await north.did(ANN, "n1", "n2")
    seen = await south.sees()
    assert (seen.cold, seen.events) == (True, 0)
    assert items(seen) == {"s1", "s2", "s3"}
    assert not any(match.reason.nearest_item_id for match in seen.matches)
    own = await north.sees()
    assert (own.cold, own.events) == (False, 2)
    assert items(own) == {"n1", "n2", "n3"}


async def test_an_event_of_the_same_id_is_another(shops: tuple[Shop, Shop]) -> None:
    north, south = shops
    for shop in shops:
        await shop.put("film")
        assert (await shop.did(ANN, "film", event_id="e")).recorded == 1
        assert (await shop.did(ANN, "film", event_id="e")).duplicates == 1
    assert [(await shop.sees()).events for shop in (north, south)] == [1, 1]


async def test_another_s_items_are_unknown_and_stay_unseen(shops: tuple[Shop, Shop]) -> None:
    north, south = shops
    await north.put("secret", base=1)
    await south.put("s1", "s2")
    reply = await south.did("spy", "secret", "s1")
    assert (reply.recorded, reply.unknown_items) == (2, 1)
    seen = await south.sees("spy")
    assert seen.events == 1
    assert items(seen) == {"s1", "s2"}
    assert "secret" not in told(seen)
    history = [events_pb2.Event(item_id="secret", kind=events_pb2.EVENT_KIND_LIKE, time_us=1)]
    stateless = await south.sees("", history=history)
    assert (stateless.cold, items(stateless)) == (True, {"s1", "s2"})
    assert "secret" not in told(stateless)
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await south.sees("spy", current=pb.Query(items=pb.ItemsQuery(item_ids=["secret"])))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_numbers_are_a_tenant_s_own(shops: tuple[Shop, Shop]) -> None:
    north, south = shops
    for shop in shops:
        await shop.put("film", "clip")
    for number in range(12):
        await north.did(f"user {number}", "film")
    assert await north.counts("film", "clip") == {"film": 12, "clip": 0}
    assert await south.counts("film", "clip") == {"film": 0, "clip": 0}
    assert await south.counts() == {}
    popular = await south.sees("nobody")
    assert all(
        share.signal != "popularity" or not share.share for one in popular.matches for share in one.reason.shares
    )


async def test_forgetting_is_for_one_tenant(shops: tuple[Shop, Shop]) -> None:
    north, south = shops
    for shop in shops:
        await shop.put("film", "clip")
        await shop.did(ANN, "film")
    assert await south.forgets() == 1
    assert await south.forgets() == 0
    assert (await north.sees()).events == 1
    assert (await south.sees()).cold


async def test_names_do_not_run_together(app: App) -> None:
    pairs = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", "x"),
        ("", "abcx"),
        ("a\0b", "c"),
        ("a", "b\0c"),
        ("a/b", "c"),
        ("A", "bc"),
    ]
    async with grpc.aio.insecure_channel(app.address) as channel:
        shops = [(Shop(app, channel, tenant), user) for tenant, user in pairs]
        for shop, user in shops:
            await shop.put("film")
            assert (await shop.did(user, "film", event_id="e" + user)).recorded == 1
        for at, (shop, user) in enumerate(shops):
            assert await shop.forgets(user) == 1
            for other, name in shops[at + 1 :]:
                assert (await other.sees(name)).events == 1


async def test_a_refused_message_leaves_no_trace(shops: tuple[Shop, Shop]) -> None:
    north, _ = shops
    await north.put("film", "clip")
    await north.did(ANN, "film")
    for bad in ({"weight": float("nan")}, {"time_us": 2**62}, {"time_us": -1}, {"kind": 0}):
        event = {"user_id": ANN, "item_id": "clip", "kind": events_pb2.EVENT_KIND_LIKE, "time_us": 9}
        events: list[Any] = [events_pb2.Event(**event), events_pb2.Event(**(event | bad))]  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await north._events.RecordEvents(events_pb2.RecordEventsRequest(tenant="north", events=events))
        assert Wire.told(refused.value)[2] == f"events[1].{next(iter(bad))}"
    assert (await north.sees()).events == 1
    assert await north.forgets() == 1


async def test_a_list_survives_a_restart(config: Config) -> None:
    lists = []
    for turn in range(2):
        async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
            shop = Shop(app, channel, "north")
            if not turn:
                await shop.put("a", "b", "c", "d")
                await shop.did(ANN, "a", "c")
            seen = await shop.sees(user_options=pb.UserOptions(freshness=0.0))
            lists.append(
                [(match.item.item_id, round(match.score, 6), match.reason.nearest_item_id) for match in seen.matches]
            )
    assert lists[0] == lists[1]
    assert len(lists[0]) == 4
