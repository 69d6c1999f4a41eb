"""A catalogue of three tastes behind a running server, and users who like some of it."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from matchcut.client import AsyncClient, Event
from matchcut.server.records import Floats

DIMENSIONS = 48
TASTES = {"cats": 0, "dogs": 1, "cars": 2}
NOW = time.time()


def vector(taste: str, number: int) -> Floats:
    """(48,) of unit length, near its taste's axis."""
    made = np.random.default_rng([TASTES[taste], number]).standard_normal(DIMENSIONS).astype(np.float32) * 0.05
    made[TASTES[taste]] += 1
    direction: Floats = made / np.linalg.norm(made)
    return direction


def liked(user: str, *items: str, at: float = NOW - 3600, kind: str = "like") -> list[Event]:
    return [Event(user, item, kind, time=at + n) for n, item in enumerate(items)]  # type: ignore[arg-type]


async def filled(client: AsyncClient, number: int = 8) -> None:
    """So many items of each taste, called cats0 and so on; made by creators x and y in turn."""
    for taste in TASTES:
        for n in range(number):
            await client.ingest_vectors(
                f"{taste}{n}",
                [((0.0, 1.0), vector(taste, n).tolist())],
                tags=[taste],
                attributes={"creator": "xy"[n % 2]},
            )
    await shown(client, number * len(TASTES))


async def shown(client: AsyncClient, count: int) -> None:
    """Waits until so many items can be recommended."""
    for _ in range(500):
        if len((await client.recommend_for("nobody", limit=1000, freshness=1.0)).matches) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the items do not turn up")


def ids(ranking: object) -> list[str]:
    return [match.item.id for match in ranking.matches]  # type: ignore[attr-defined]
