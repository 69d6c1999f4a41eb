"""Both Python clients against the real server, about users: they get the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from matchcut.client import AsyncClient, Client, Event, InvalidInput, Recorded, UserRanking
from matchcut.server.config import Config

if TYPE_CHECKING:
    from matchcut.server.app import App

ITEMS = [f"item {number}" for number in range(8)]
STEADY: dict[str, Any] = {"freshness": 0.0, "exploration": 0.0}  # so that a list depends on nothing but events
EVENTS = [Event("ann", item, "like", 100.0 + at) for at, item in enumerate(ITEMS[:3])]


@pytest.fixture
def config(config: Config) -> Config:
    """Numbers of few users leave the server, and old events are kept."""
    return replace(config, anonymity=5, event_days=0)


def gist(ranking: UserRanking) -> list[tuple[Any, ...]]:
    """What must be the same whichever client asks."""
    return [(match.item.id, round(match.score, 6), match.reason.nearest, match.propensity) for match in ranking]


def vector(number: int) -> list[float]:
    made = np.full(48, 0.1)
    made[number] = 1.0
    return made.tolist()


def frames(count: int) -> Iterator[tuple[float, Any]]:
    for number in range(count):
        yield float(number), np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


def ask_all(target: str, user: str) -> list[Any]:
    """Answers of the ordinary client."""
    with Client(target, timeout=60) as client:
        answers: list[Any] = [
            replace(client.record(replace(event, user=user) for event in EVENTS), seconds=0.0),
            replace(client.record(replace(event, user=user) for event in EVENTS), seconds=0.0),
            gist(client.recommend_for(user, limit=4, **STEADY)),
            gist(client.recommend_for(user, items=[ITEMS[6]], current_weight=1.0, **STEADY)),
            gist(client.recommend_for(history=[replace(event, user="") for event in EVENTS], **STEADY)),
        ]
        with client.recommend_live_for(user, timeout=60, **STEADY) as live:
            answers.append(gist(live.event(ITEMS[3], "purchase", time=200.0)))
            answers.append((gist(live.end()), live.ranking is not None and live.ranking.final))
        with client.recommend_live_for(user, frames=frames(3), timeout=60, **STEADY) as live:
            lists = list(live)
            answers.append((gist(lists[-1]), lists[-1].final, lists[-1].report is not None))
        receipt = client.forget(user)
        answers.append((receipt.events, len(receipt.digest)))
        answers.append(client.recommend_for(user).cold)
        return answers


async def ask_all_async(target: str, user: str) -> list[Any]:
    """The same of the asynchronous one."""
    async with AsyncClient(target, timeout=60) as client:
        answers: list[Any] = [
            replace(await client.record(replace(event, user=user) for event in EVENTS), seconds=0.0),
            replace(await client.record(replace(event, user=user) for event in EVENTS), seconds=0.0),
            gist(await client.recommend_for(user, limit=4, **STEADY)),
            gist(await client.recommend_for(user, items=[ITEMS[6]], current_weight=1.0, **STEADY)),
            gist(await client.recommend_for(history=[replace(event, user="") for event in EVENTS], **STEADY)),
        ]
        async with client.recommend_live_for(user, timeout=60, **STEADY) as live:
            answers.append(gist(await live.event(ITEMS[3], "purchase", time=200.0)))
            answers.append((gist(await live.end()), live.ranking is not None and live.ranking.final))
        async with client.recommend_live_for(user, frames=frames(3), timeout=60, **STEADY) as live:
            lists = [ranking async for ranking in live]
            answers.append((gist(lists[-1]), lists[-1].final, lists[-1].report is not None))
        receipt = await client.forget(user)
        answers.append((receipt.events, len(receipt.digest)))
        answers.append((await client.recommend_for(user)).cold)
        return answers


async def test_both_clients_get_the_same_answers(app: App) -> None:
    async with AsyncClient(app.address, timeout=60) as client:
        for number, item in enumerate(ITEMS):
            await client.ingest_vectors(item, [(None, vector(number))])
    ours = await ask_all_async(app.address, "ann")
    theirs = await asyncio.to_thread(ask_all, app.address, "bob")
    assert ours == theirs
    assert ours[0] == Recorded(recorded=3)
    assert ours[1] == Recorded(duplicates=3)
    assert len(ours[2]) == 4
    assert not {item for item, *_ in ours[2]} & set(ITEMS[:3])
    assert ours[3][0][0] not in ITEMS[:3]
    assert ours[6][1] is True
    assert ours[7][1:] == (True, True)
    assert ours[8] == (4, 64)
    assert ours[9] is True


async def test_counts_are_of_enough_users(app: App) -> None:
    async with AsyncClient(app.address, timeout=60) as client:
        await client.ingest_vectors(ITEMS[0], [(None, vector(0))])
        await client.record(Event(f"user {n}", ITEMS[0], "like", 1.0) for n in range(4))
        (few,) = (await client.count_events([ITEMS[0]])).items
        await client.record([Event("ann", ITEMS[0], "like", 1.0), Event("ann", ITEMS[0], "click", 2.0)])
        counts = await client.count_events([ITEMS[0]])
    assert (few.users, few.kinds) == (0, {})
    assert (counts.items[0].users, dict(counts.items[0].kinds), counts.threshold) == (5, {"like": 5}, 5)


async def test_the_servers_errors_arrive_whole(app: App) -> None:
    async with AsyncClient(app.address, timeout=60) as client:
        with pytest.raises(InvalidInput) as wrong:
            await client.record([Event("ann", "a", "like", 1.0), Event("ann", "a", "like", -1.0)])
        assert wrong.value.field == "events[1].time_us"
        with pytest.raises(InvalidInput) as nobody:
            await client.recommend_for()
        assert nobody.value.field == "user_id"
