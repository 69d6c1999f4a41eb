"""Both Python clients against the real server: they give identical answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from matchcut.client import AsyncClient, Client, InvalidInput, NotFound, Outcome, Ranking

if TYPE_CHECKING:
    from matchcut.server.app import App


def gist(ranking: Ranking) -> list[tuple[Any, ...]]:
    """What must be the same whichever client asks."""
    return [(match.item.id, round(match.score, 6), match.item_range, match.query_range) for match in ranking]


@pytest.fixture
async def client(app: App) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of a real server with an empty catalogue."""
    async with AsyncClient(app.address, timeout=60) as client:
        yield client


def ask_all(target: str, clip: Path, frames: list[tuple[float, Any]]) -> list[Any]:
    """Answers of the ordinary client."""
    with Client(target, timeout=60) as client:
        return [
            client.ingest("bikes", clip, tags=["street"]).outcome,
            gist(client.recommend(clip=clip)),
            gist(client.recommend(clip=io.BytesIO(clip.read_bytes()))),
            gist(client.recommend(items=["bikes"], include_themselves=True)),
            gist(list(client.live(clip))[-1]),
            gist(list(client.live_frames(iter(frames)))[-1]),
            [item.id for item in client.items(page_size=1)],
            client.health(),
        ]


async def test_both_clients_get_the_same_answers(client: AsyncClient, app: App, media: Path) -> None:
    clip = media / "bikes.mp4"
    rng = np.random.default_rng(7)
    frames = [(i / 2, rng.integers(0, 256, (48, 64, 3), np.uint8)) for i in range(4)]
    sent: list[tuple[int, int | None]] = []
    created = await client.ingest("bikes", clip, tags=["street"], progress=lambda *told: sent.append(told))
    assert created.outcome is Outcome.CREATED
    assert created.report is not None
    assert created.report.bytes == sent[-1][0] == clip.stat().st_size
    await client.ingest_frames("noise", iter(frames))
    answers: list[Any] = [
        (await client.ingest("bikes", clip, tags=["street"])).outcome,
        gist(await client.recommend(clip=clip)),
        gist(await client.recommend(clip=clip.read_bytes())),
        gist(await client.recommend(items=["bikes"], include_themselves=True)),
        gist([ranking async for ranking in client.live(clip)][-1]),
        gist([ranking async for ranking in client.live_frames(iter(frames))][-1]),
        [item.id async for item in client.items(page_size=1)],
        await client.health(),
    ]
    assert answers[0] is Outcome.UNCHANGED
    assert answers[1][0][0] == "bikes"
    assert answers[5][0][0] == "noise"
    assert answers[6] == ["bikes", "noise"]
    assert answers[7] == "SERVING"
    assert answers[2] == answers[1]
    assert await asyncio.to_thread(ask_all, client.target, clip, frames) == answers


async def test_the_servers_errors_arrive_whole(client: AsyncClient) -> None:
    with pytest.raises(NotFound) as missing:
        await client.get("nobody")
    assert missing.value.reason == "ITEM_NOT_FOUND"
    with pytest.raises(InvalidInput) as unreadable:
        await client.ingest("garbage", b"this is no video" * 100)
    assert unreadable.value.reason == "UNREADABLE_MEDIA"
    with pytest.raises(InvalidInput) as unnamed:
        await client.ingest("", b"x")
    assert unnamed.value.field
    with pytest.raises(InvalidInput) as empty:
        await client.ingest_frames("empty", [])
    assert empty.value.reason == "EMPTY_MEDIA"
    assert await client.remove("nobody", missing_ok=True) is False


async def test_media_that_breaks_off_leaves_nothing_behind(client: AsyncClient, app: App) -> None:
    def broken() -> Iterator[tuple[float, Any]]:
        for number in range(3):
            yield float(number), np.full((8, 8, 3), 40 * number, np.uint8)
        raise RuntimeError("the camera fell down")

    def plainly(item: str) -> None:
        with Client(app.address, timeout=60) as plain:
            plain.ingest_frames(item, broken())

    for number in range(20):
        with pytest.raises(RuntimeError, match="fell down"):
            await client.ingest_frames(f"async {number}", broken())
        with pytest.raises(RuntimeError, match="fell down"):
            await asyncio.to_thread(plainly, f"sync {number}")
    await asyncio.sleep(0.1)
    assert [item.id async for item in client.items()] == []
