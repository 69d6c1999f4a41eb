"""Which session model a running server makes lists with, and what it tells of them."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from matchcut.client import AsyncClient
from matchcut.server import models
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.personal.following import Choosing
from matchcut.server.records import EncoderIdentity
from matchcut.server.session import deploy
from support import session_models
from support.user_lists import NOW, filled, ids, liked, shown

PATIENCE_S = 20


@pytest.fixture
def encoder(small_encoder: Path) -> EncoderIdentity:
    return models.load(small_encoder).identity


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def version(folder: Path, encoder: EncoderIdentity, seed: int) -> Path:
    """A session model that is ready to be deployed."""
    session_models.write(folder / f"made-{seed}", encoder, seed=seed, ids=["cats0", "dogs1"])
    return folder / f"made-{seed}"


async def served(client: AsyncClient, version: str) -> None:
    """Waits until lists are made with that version."""
    for _ in range(PATIENCE_S * 20):
        if (await client.recommend_for("ana")).model.version == version:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{version} is not served")


async def test_a_deployed_model_takes_over_while_lists_are_made_and_a_broken_one_does_not(
    config: Config, sessions: Path, encoder: EncoderIdentity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with App(replace(config, session=sessions)) as app, AsyncClient(app.address) as client:
        await filled(client)
        await client.record(liked("ana", "cats0", "dogs1"))
        assert (await client.recommend_for("ana")).model.name == "decaying-mean"
        asking = asyncio.create_task(_ask(client))
        deploy(sessions, version(tmp_path, encoder, 1), encoder)
        await served(client, "1")
        trained = await client.recommend_for("ana")
        assert (trained.events, trained.model.dimensions, len(trained.matches)) == (2, 4, 10)
        deploy(sessions, version(tmp_path, encoder, 2), encoder)
        await served(client, "2")
        (sessions / "3").mkdir()
        (sessions / "3" / "session.toml").write_text("nonsense")
        (sessions / "CURRENT").write_text("3\n")
        with caplog.at_level(logging.ERROR):
            for _ in range(PATIENCE_S * 20):
                if "is not replaced" in caplog.text:
                    break
                await asyncio.sleep(0.05)
        assert "the session model is not replaced" in caplog.text
        assert (await client.recommend_for("ana")).model.version == "2"
        asking.cancel()
        failed = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(failed[0], asyncio.CancelledError), "no list failed meanwhile"


async def _ask(client: AsyncClient) -> None:
    while True:
        assert len((await client.recommend_for("ana")).matches) == 10
        await asyncio.sleep(0.01)


async def test_a_restart_with_a_trained_model_gives_the_same_list(
    config: Config, sessions: Path, encoder: EncoderIdentity, tmp_path: Path
) -> None:
    config = replace(config, session=sessions)
    deploy(sessions, version(tmp_path, encoder, 1), encoder)
    async with App(config) as app, AsyncClient(app.address) as client:
        await filled(client)
        for event in liked("ana", "cats0", "dogs1", "cars2"):  # one step at a time
            await client.record([event])
            before = await client.recommend_for("ana", freshness=0)
    async with App(config) as app, AsyncClient(app.address) as client:
        await shown(client, 24)
        after = await client.recommend_for("ana", freshness=0)  # all of them at once
    assert after.model == before.model
    assert ids(after) == ids(before)


async def test_a_model_of_another_encoder_is_told_and_not_used(
    config: Config, sessions: Path, encoder: EncoderIdentity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(encoder, name="other", digest="0" * 64)
    deploy(sessions, version(tmp_path, other, 1), other)
    with caplog.at_level(logging.WARNING):
        async with App(replace(config, session=sessions)) as app, AsyncClient(app.address) as client:
            assert (await client.recommend_for("ana")).model.name == "decaying-mean"
    assert "takes vectors of 'other', not of 'layout'" in caplog.text


async def test_a_broken_model_stops_the_start(config: Config, sessions: Path) -> None:
    (sessions / "1").mkdir(parents=True)
    (sessions / "CURRENT").write_text("1\n")
    with pytest.raises(EngineFailed, match=r"session\.toml"):
        async with App(replace(config, session=sessions)):
            raise AssertionError("it started")


async def test_an_operator_sees_how_much_there_is_but_not_how_many_few_users(config: Config) -> None:
    async with App(replace(config, metrics="127.0.0.1:0")) as app, AsyncClient(app.address) as client:
        await filled(client, 2)
        await client.record([event for n in range(37) for event in liked(f"user{n}", "cats0", at=NOW - n)])
        await client.recommend_for("user1")
        await client.recommend_for("nobody")
        told = await asyncio.to_thread(_scrape, app.metrics)
    assert told["matchcut_event_users"] == 30
    assert told["matchcut_events"] == 30
    assert told["matchcut_user_states"] == 0
    assert told["matchcut_user_lists_total"] >= 2
    assert told["matchcut_user_lists_cold_total"] >= 1
    assert told['matchcut_session_model{model="decaying-mean",version="4"}'] == 1
    assert told["matchcut_session_model_fault"] == 0
    assert told["matchcut_items_ready"] == 1


def _scrape(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        lines = [line for line in str(reply.read(), "utf-8").splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize(("said", "what"), [("1\n", "`matchcut train rollback {}`"), ("new", "{}/CURRENT holds 'new'")])
def test_what_is_broken_is_told_with_its_place_and_a_remedy(
    sessions: Path, encoder: EncoderIdentity, said: str, what: str
) -> None:
    (sessions / "1").mkdir(parents=True)
    (sessions / "CURRENT").write_text(said)
    with pytest.raises(EngineFailed) as caught:
        Choosing(sessions, 10).first(encoder)
    for part in ("--session", what.format(sessions), "or leave --session out"):
        assert part in caught.value.message
    assert (caught.value.reason, caught.value.field) == ("MODEL_INVALID", "session")


def test_what_is_no_folder_of_session_models_is_refused(tmp_path: Path, encoder: EncoderIdentity) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"--session .*/file is a file"):
        Choosing(tmp_path / "file", 10).first(encoder)
    with pytest.raises(InvalidInput, match=r"--session .* cannot be read: File name too long"):
        Choosing(tmp_path / ("x" * 300), 10).first(encoder)
    made = version(tmp_path, encoder, 1)
    with pytest.raises(InvalidInput, match=f"own folder; give the folder of versions that it lies in: {tmp_path}"):
        Choosing(made, 10).first(encoder)
    assert Choosing(tmp_path / "later", 10).first(encoder).identity.name == "decaying-mean"
