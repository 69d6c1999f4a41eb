"""What must not be left of users, told of few of them, or mixed up, and what must not stop a list."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matchcut.client import AsyncClient, InvalidInput
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import Unavailable
from matchcut.server.events import LogSizes, read_exposures
from matchcut.server.personal import Personal
from matchcut.server.personal.interest import Interest
from matchcut.server.personal.shortlist import Popular
from matchcut.server.personal.wants import wanted
from matchcut.server.records import EncoderIdentity, Receipt, SessionIdentity
from matchcut.server.users import Taste, Users, UserSizes
from support.user_lists import filled, liked, vector

ENCODER = EncoderIdentity("layout", "1", "a" * 64, 4)
SESSION = SessionIdentity("mean", "1", "b" * 64, 4)
WRITTEN_S = 0.6  # after which lists that were shown are on the disk


async def test_a_list_asked_for_while_its_user_is_forgotten_leaves_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, go_on = threading.Event(), threading.Event()
    forget = Users.forget

    def slow(users: Users, tenant: str, user_id: str) -> Receipt:
        receipt = forget(users, tenant, user_id)
        deleted.set()
        assert go_on.wait(20)
        return receipt

    monkeypatch.setattr(Users, "forget", slow)
    async with App(config) as app, AsyncClient(app.address) as client:
        await filled(client, 1)
        await client.record(liked("ana", "cats0"))
        forgetting = asyncio.create_task(client.forget("ana"))
        assert await asyncio.to_thread(deleted.wait, 20)
        assert (await client.recommend_for("ana")).matches  # begins and ends before the deletion does
        assert (await client.recommend_for("bob")).matches
        go_on.set()
        assert (await forgetting).events == 1
        await asyncio.sleep(WRITTEN_S)
        shown = [user for _, user, _ in read_exposures(config.data / "events.sqlite")]
        assert (await client.forget("ana")).exposures == 0
        assert (await client.forget("bob")).exposures == 1, "others' lists are kept meanwhile"
    assert len(set(shown)) == 2, "nobody's, while the catalogue was filled, and bob's"


async def test_asking_for_lists_of_tenants_that_are_not_there_leaves_nothing(config: Config) -> None:
    async with App(config) as app:
        for n in range(20):
            async with AsyncClient(app.address, tenant=f"nowhere{n}") as client:
                assert not (await client.recommend_for("ana")).matches
        await asyncio.sleep(WRITTEN_S)
    with closing(sqlite3.connect(config.data / "events.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM tenants").fetchone() == (0,)


def test_nothing_is_remembered_of_tenants_without_popular_items() -> None:
    popular = Popular(10)
    assert popular.of("nowhere", {}) == ()
    assert popular._kept == {}
    assert popular.of("here", {"a": 10, "b": 20}) == ("b", "a")
    assert set(popular._kept) == {"here"}


class Sized:
    """A log, or states in memory, of so many users."""

    def __init__(self, sizes: LogSizes | UserSizes) -> None:
        self._sizes = sizes

    def sizes(self) -> LogSizes | UserSizes:
        return self._sizes

    def using(self) -> AbstractContextManager[Any]:
        return nullcontext(SimpleNamespace(model=SimpleNamespace(identity=SESSION), ready=True))


@pytest.mark.parametrize(
    ("users", "told"), [(0, (0, 0, 0, 0, 0)), (9, (0, 0, 0, 0, 0)), (37, (3700, 30, 1110, 30, 1400 * 30))]
)
def test_no_number_tells_how_many_users_there_are_where_they_are_few(users: int, told: tuple[int, ...]) -> None:
    log: Any = Sized(LogSizes(events=100 * users, users=users, exposures=30 * users, bytes=4096))
    held: Any = Sized(UserSizes(users=users, bytes=1400 * users))
    unused: Any = None
    numbers = Personal(unused, held, log, unused, unused, candidates=10, threshold=10).numbers()
    assert (numbers.events, numbers.users, numbers.exposures, numbers.states, numbers.state_bytes) == told


def test_an_interest_of_the_encoder_before_is_not_taken_for_one_of_the_encoder_now() -> None:
    """A live list holds what it saw last, also while another encoder, of as many dimensions, takes over."""
    galleries: Any = SimpleNamespace(model=SimpleNamespace(encoder=ENCODER), project=lambda content: content)
    gallery: Any = SimpleNamespace(vectors=lambda item_ids: ([], np.zeros((0, 4), np.float32)))
    taste = Taste(None, frozenset(), (), (), 0, SESSION)
    seen = Interest(np.array([1, 0, 0, 0], np.float32), ENCODER)
    found = wanted(taste, seen, gallery, galleries, current_weight=0.5)
    assert found.current is not None
    assert found.current.tolist() == [1, 0, 0, 0]
    before = replace(seen, encoder=replace(ENCODER, digest="c" * 64))
    with pytest.raises(Unavailable, match="another encoder"):
        wanted(taste, before, gallery, galleries, current_weight=0.5)


@pytest.mark.parametrize("option", ["freshness", "popularity"])
async def test_an_option_out_of_bounds_is_refused_before_media_is_looked_at(app: App, option: str) -> None:
    async with AsyncClient(app.address) as client:
        with pytest.raises(InvalidInput, match=f"{option} is 1001; it must be 0 to 1000"):
            await client.recommend_for("ana", clip=b"no video", **{option: 1001.0})  # type: ignore[arg-type]


async def test_items_that_cancel_out_are_an_interest_all_the_same(app: App) -> None:
    async with AsyncClient(app.address) as client:
        await filled(client, 2)
        opposite = (-vector("cats", 0)).tolist()
        await client.ingest_vectors("opposite", [((0.0, 1.0), opposite)])
        ranking = await client.recommend_for("ana", items=["cats0", "opposite"], limit=1, freshness=0)
        assert ranking.matches[0].item.id == "cats1"
