"""Lists for users through a running server and the Python client: recall, rank, arrange, explain, expose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from matchcut.client import AsyncClient, Error, Event, InvalidInput, NotFound
from matchcut.server.app import App
from matchcut.server.config import Config
from support.user_lists import NOW, filled, ids, liked, shown, vector


@pytest_asyncio.fixture
async def client(app: App) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(app.address) as made:
        await filled(made)
        yield made


async def test_a_users_list_is_of_what_the_user_liked_and_has_not_seen(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "cats1"))
    ranking = await client.recommend_for("ana", limit=5)
    assert [item.rstrip("0123456789") for item in ids(ranking)] == ["cats"] * 5
    assert not {"cats0", "cats1"} & set(ids(ranking))
    assert not ranking.cold
    assert ranking.events == 2
    assert ranking.model.name == "decaying-mean"
    for match in ranking.matches:
        assert match.reason.nearest in ("cats0", "cats1")
        assert match.reason.similarity > 0.8
        assert sum(match.reason.shares.values()) == pytest.approx(1)
        assert match.reason.shares["history"] > 0.5
        assert match.propensity == 1
    stages = {stage.name: stage for stage in ranking.times.stages}
    assert stages["recall"].counts["events"] == 2
    assert stages["rank"].counts["rows"] > 0
    assert stages["arrange"].counts["candidates"] > 0


async def test_what_was_seen_comes_back_only_if_it_is_wanted(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "cats1"))
    again = await client.recommend_for("ana", limit=8, include_seen=True, mmr_lambda=1.0, freshness=0, popularity=0)
    assert {"cats0", "cats1"} < set(ids(again))
    await client.record(liked("ana", "cats2", kind="impression"))
    assert "cats2" in ids(await client.recommend_for("ana", limit=8))


async def test_a_user_of_whom_nothing_is_known_gets_what_is_popular_and_new(client: AsyncClient) -> None:
    popular = [event for n in range(20) for event in liked(f"user{n}", "dogs3")]
    await client.record(popular)
    for _ in range(300):
        ranking = await client.recommend_for("nobody", limit=3, popularity=2.0, freshness=0.1)
        if ids(ranking)[0] == "dogs3":
            break
        await asyncio.sleep(0.02)
    assert ids(ranking)[0] == "dogs3"
    assert ranking.cold
    assert ranking.events == 0
    assert ranking.matches[0].reason.shares["popularity"] > 0.5
    assert ranking.matches[0].reason.nearest == ""


async def test_too_few_users_make_nothing_popular(client: AsyncClient) -> None:
    await client.record([event for n in range(9) for event in liked(f"user{n}", "dogs3")])
    counted = await client.count_events(["dogs3", "dogs4"])
    assert counted.threshold == 10
    assert [(one.item, one.users, dict(one.kinds)) for one in counted] == [("dogs3", 0, {}), ("dogs4", 0, {})]
    ranking = await client.recommend_for("nobody", limit=24, popularity=2.0)
    assert all(match.reason.shares.get("popularity", 0) == 0 for match in ranking.matches)


async def test_the_current_interest_is_blended_in_and_is_not_recommended_itself(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "cats1"))
    ranking = await client.recommend_for("ana", items=["cars0"], current_weight=0.9, limit=5)
    assert [item.rstrip("0123456789") for item in ids(ranking)] == ["cars"] * 5
    assert "cars0" not in ids(ranking)
    assert ranking.matches[0].reason.shares["current"] > ranking.matches[0].reason.shares["history"]
    by_vector = await client.recommend_for("ana", vector=vector("dogs", 99).tolist(), current_weight=1.0, limit=3)
    assert [item.rstrip("0123456789") for item in ids(by_vector)] == ["dogs"] * 3
    both = await client.recommend_for("ana", items=["cars0"], current_weight=0.5, limit=8, mmr_lambda=1.0)
    assert {item.rstrip("0123456789") for item in ids(both)} >= {"cats", "cars"}


async def test_a_clip_can_be_the_current_interest(client: AsyncClient, media: Path) -> None:
    ranking = await client.recommend_for("nobody", clip=media / "bikes.mp4", limit=4)
    assert len(ranking.matches) == 4
    assert not ranking.cold
    assert ranking.report is not None
    assert ranking.report.frames_used > 0


async def test_dislikes_speak_against_what_is_like_them(client: AsyncClient) -> None:
    await client.record([*liked("ana", "cats0", "dogs0"), *liked("ana", "dogs1", "dogs2", kind="dislike", at=NOW - 60)])
    ranking = await client.recommend_for("ana", limit=4, mmr_lambda=1.0, freshness=0)
    assert [item.rstrip("0123456789") for item in ids(ranking)] == ["cats"] * 4
    assert not {"dogs1", "dogs2"} & set(ids(await client.recommend_for("ana", limit=24)))


async def test_filters_exclusions_caps_and_the_least_score_hold(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0"))
    dogs = await client.recommend_for("ana", all_of=["dogs"], exclude=["dogs0"], limit=24)
    assert set(ids(dogs)) == {f"dogs{n}" for n in range(1, 8)}
    capped = await client.recommend_for("ana", cap=2, limit=24)
    assert len(capped.matches) == 4  # two of each creator
    least = await client.recommend_for("ana", limit=24, minimum_score=0.9)
    assert 0 < len(least.matches) < 23
    assert all(match.score >= 0.9 for match in least.matches)


async def test_the_list_is_the_same_after_a_restart(config: Config) -> None:
    asked = {"limit": 10, "freshness": 0.0, "popularity": 0.0}
    async with App(config) as app, AsyncClient(app.address) as client:
        await filled(client)
        await client.record([*liked("ana", "cats0", "dogs1", "cats3"), *liked("ana", "cars1", kind="skip")])
        before = await client.recommend_for("ana", **asked)  # type: ignore[arg-type]
    async with App(config) as app, AsyncClient(app.address) as client:
        await shown(client, 24)
        after = await client.recommend_for("ana", **asked)  # type: ignore[arg-type]
    assert ids(after) == ids(before)
    assert [match.score for match in after.matches] == pytest.approx([match.score for match in before.matches])


async def test_events_in_any_order_and_twice_give_the_same_list(client: AsyncClient) -> None:
    events = [replace(event, id=f"e{n}") for n, event in enumerate(liked("ana", "cats0", "dogs1", "cars3", "cats4"))]
    await client.record(events)
    sorted_list = await client.recommend_for("ana", limit=10)
    mixed = [replace(event, user="bob", id=f"b{event.id}") for event in (events[2], events[0], events[3], events[1])]
    for event in mixed:
        await client.record([event])
        await client.recommend_for("bob", limit=1)  # so that a state is there that the next event comes too late for
    told = await client.record(mixed)
    assert (told.recorded, told.duplicates) == (0, 4)
    assert ids(await client.recommend_for("bob", limit=10)) == ids(sorted_list)


@pytest.mark.alone
async def test_a_new_item_is_recommended_from_its_content_alone_within_a_second(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "fresh"))  # of which nothing is known yet
    await client.ingest_vectors("fresh2", [((0.0, 1.0), vector("cats", 77).tolist())])
    began = time.monotonic()
    while "fresh2" not in ids(await client.recommend_for("ana", limit=10)):
        assert time.monotonic() - began < 1
    told = await client.record(liked("ana", "unheard"))
    assert told.unknown_items == 1
    before = (await client.recommend_for("ana")).events
    await client.ingest_vectors("unheard", [((0.0, 1.0), vector("dogs", 5).tolist())])
    for _ in range(100):
        if (await client.recommend_for("ana")).events == before + 1:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the event of the item that came later does not count")


async def test_tenants_never_meet(app: App, client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "cats1"))
    async with AsyncClient(app.address, tenant="other") as other:
        empty = await other.recommend_for("ana", limit=10)
        assert empty.matches == ()
        assert empty.cold
        await other.ingest_vectors("cats0", [((0.0, 1.0), vector("cars", 0).tolist())])
        await other.record(liked("ana", "cats0"))
        assert (await other.recommend_for("ana")).events <= 1
        assert (await other.forget("ana")).events == 1
    assert (await client.recommend_for("ana")).events == 2
    with pytest.raises(NotFound):
        await client.recommend_for("ana", items=["cats0", "not there"])


async def test_a_history_is_used_and_not_kept(client: AsyncClient, config: Config) -> None:
    history = [Event("", "dogs0", "like", time=NOW - 5), Event("", "dogs1", "watch", time=NOW - 4, fraction=0.9)]
    ranking = await client.recommend_for(history=history, limit=4)
    assert [item.rstrip("0123456789") for item in ids(ranking)] == ["dogs"] * 4
    assert ranking.events == 2
    await client.record(liked("ana", "cats0"))
    assert (await client.recommend_for("ana", history=history, limit=4)).events == 2
    assert (await client.recommend_for("ana")).events == 1
    assert (await client.forget("ana")).events == 1


async def test_a_server_that_keeps_nothing_says_so(config: Config) -> None:
    async with App(replace(config, users="off")) as app, AsyncClient(app.address) as client:
        await client.ingest_vectors("cats0", [((0.0, 1.0), vector("cats", 0).tolist())])
        for call in (
            client.record(liked("ana", "cats0")),
            client.forget("ana"),
            client.count_events(),
            client.recommend_for("ana"),
        ):
            with pytest.raises(Error, match="keeps nothing of users") as caught:
                await call
            assert caught.value.reason == "USERS_OFF"
        for _ in range(200):
            ranking = await client.recommend_for(history=[Event("", "cats0", "like", time=NOW)], include_seen=True)
            if ranking.matches:
                break
            await asyncio.sleep(0.01)
        assert ids(ranking) == ["cats0"]
    assert not (config.data / "events.sqlite").exists()


async def test_forgotten_users_are_strangers(client: AsyncClient) -> None:
    await client.record(liked("ana", "cats0", "cats1"))
    await client.recommend_for("ana")
    receipt = await client.forget("ana")
    assert receipt.events == 2
    assert receipt.exposures == 1
    assert len(receipt.digest) == 64
    ranking = await client.recommend_for("ana")
    assert ranking.cold
    assert ranking.events == 0


async def test_lists_follow_events_on_a_stream(client: AsyncClient) -> None:
    async with client.recommend_live_for("ana", limit=3, freshness=0) as lists:
        first = await lists.event("cats0", "like")
        assert [item.rstrip("0123456789") for item in ids(first)] == ["cats"] * 3
        for n in range(4):
            latest = await lists.event(f"cars{n}", "like")
        assert latest.events == 5
        assert [item.rstrip("0123456789") for item in ids(latest)] == ["cars"] * 3
        assert not {"cars0", "cars1", "cars2", "cars3"} & set(ids(latest))
    assert (await client.recommend_for("ana")).events == 5


async def test_nobody_is_no_user(client: AsyncClient) -> None:
    with pytest.raises(InvalidInput, match="user"):
        await client.recommend_for("")


async def test_events_that_are_too_old_are_told_and_not_kept(config: Config) -> None:
    async with App(replace(config, event_days=2)) as app, AsyncClient(app.address) as client:
        told = await client.record([*liked("ana", "cats0", at=NOW - 3 * 86_400), *liked("ana", "cats1")])
        assert (told.recorded, told.expired) == (1, 1)
        assert (await client.forget("ana")).events == 1


async def test_what_is_wrong_with_the_current_interest_is_said_of_that_field(client: AsyncClient) -> None:
    with pytest.raises(NotFound) as missing:
        await client.recommend_for("ana", items=["not there"])
    assert missing.value.field == "current.items.item_ids"
    with pytest.raises(Error, match=r"current\.vector\.values has 3 values") as short:
        await client.recommend_for("ana", vector=[1.0, 2.0, 3.0])
    assert short.value.field == "current.vector.values"
