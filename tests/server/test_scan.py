"""A running server ranks by the native scan, says so, and shows it to whoever watches."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from matchcut.kernels import cpu
from matchcut.kernels.native.shared_library import Absent, Library, load
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.v1 import catalog_pb2, common_pb2, recommender_pb2
from support.wire import Wire

ITEMS = 30


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[tuple[App, Wire]]:
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield app, Wire(channel)


async def fill(wire: Wire, items: Iterable[int] = range(ITEMS)) -> None:
    """Items of two segments each."""
    for at in items:
        await wire.ingest(f"i{at}", [at] * 8 + [1000 + at] * 8, tags=[f"t{at % 3}"])


def rank_stage(reply: recommender_pb2.RecommendResponse) -> common_pb2.Stage:
    return next(stage for stage in reply.times.stages if stage.name == "rank")


def answer(reply: recommender_pb2.RecommendResponse) -> list[tuple[Any, ...]]:
    """All of it, save the times."""
    return [(one.item.item_id, one.score, one.item_range.start_us, one.query_range.start_us) for one in reply.matches]


async def ranked_by(wire: Wire, variant: str) -> common_pb2.Stage:
    """Asks until that variant ranks."""
    async with asyncio.timeout(20):
        while (stage := rank_stage(await wire.clip(1, 2))).variant != variant:
            await asyncio.sleep(0.01)
    return stage


async def answers(wire: Wire) -> list[list[tuple[Any, ...]]]:
    tags = catalog_pb2.TagFilter(all_of=["t1"])
    items = recommender_pb2.Query(items=recommender_pb2.ItemsQuery(item_ids=["i3", "i4"]))
    asked = [
        await wire.clip(5, 5, 1009, limit=7),
        await wire.clip(77, 78, limit=100),
        await wire.clip(77, limit=5, tags=tags),
        await wire.clip(77, limit=5, exclude_item_ids=["i1", "i2", "i3"]),
        await wire.clip(77, limit=5, minimum_score=0.5),
        await wire.recommender.Recommend(recommender_pb2.RecommendRequest(query=items)),
    ]
    return [answer(one) for one in asked]


def scraped(text: str) -> dict[str, float]:
    """{name with labels: value} of Prometheus' text format."""
    return {found[1]: float(found[2]) for found in re.finditer(r"^([a-z]\S*) (\S+)$", text, flags=re.M)}


async def scrape(address: str) -> dict[str, float]:
    def get() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
            return str(reply.read(), "utf-8")

    return scraped(await asyncio.to_thread(get))


async def test_the_native_scan_answers_as_numpy_does(config: Config) -> None:
    library = load()
    assert isinstance(library, Library)
    async with serving(replace(config, scan="numpy", scan_from=20)) as (_, wire):
        await fill(wire)
        expected = await answers(wire)
        stage = await ranked_by(wire, "cpu-numpy")
        assert stage.counts["rows"] == 2 * ITEMS
    assert [len(one) for one in expected] == [7, ITEMS, 5, 5, len(expected[4]), 10]
    async with serving(replace(config, scan_from=20)) as (_, wire):  # after a restart, that is
        stage = await ranked_by(wire, f"cpu-{library.best.name}")
        assert stage.counts["rows"] == 2 * ITEMS
        assert 0 < stage.counts["survivors"] <= 2 * 2 * ITEMS
        assert 0 < stage.counts["rescored"] <= stage.counts["survivors"]
        assert set(stage.counts) == {"rows", "survivors", "pieces", "rescored"}
        assert await answers(wire) == expected
        await wire.catalog.RemoveItem(catalog_pb2.RemoveItemRequest(item_id="i9"))
        assert "i9" not in [one[0] for one in answer(await wire.clip(9, 1009, limit=100))]
        await fill(wire, [100])
        reply = await wire.clip(100)
        assert reply.matches[0].item.item_id == "i100"
        assert rank_stage(reply).variant == f"cpu-{library.best.name}"


async def test_few_rows_are_ranked_as_they_are(config: Config) -> None:
    async with serving(config) as (_, wire):
        await fill(wire, range(3))
        assert rank_stage(await wire.clip(1)).variant == "cpu-numpy"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]


@pytest.mark.parametrize("scan", ["scalar", "numpy"])
async def test_the_scan_that_is_asked_for_ranks(config: Config, scan: str) -> None:
    async with serving(replace(config, scan=scan, scan_from=1, scan_threads=1)) as (_, wire):
        await fill(wire, range(4))
        await ranked_by(wire, f"cpu-{scan}")


async def test_a_scan_that_cannot_be_had_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "load", lambda: Absent("it was not built"))
    with pytest.raises(InvalidInput, match=r"--scan .*'avx2': it was not built; choose another, or auto") as caught:
        await App(replace(config, scan="avx2")).__aenter__()
    assert (caught.value.reason, caught.value.field) == ("INVALID_OPTION", "scan")
    async with serving(replace(config, scan_from=1)) as (_, wire):  # auto does without
        await fill(wire, range(2))
        assert rank_stage(await wire.clip(1)).variant == "cpu-numpy"


async def test_metrics_show_what_ranked_and_what_is_there(config: Config) -> None:
    async with serving(replace(config, metrics="127.0.0.1:0", scan="scalar", scan_from=20)) as (app, wire):
        seen = await scrape(app.metrics)
        assert seen["matchcut_catalog_segments"] == seen["matchcut_catalog_coded_segments"] == 0
        assert not [name for name in seen if name.startswith("matchcut_rank_rows_total")]
        await fill(wire, range(5))
        await wire.clip(1)
        seen = await scrape(app.metrics)
        assert seen['matchcut_rank_rows_total{variant="cpu-numpy"}'] == 10
        assert seen["matchcut_catalog_segments"] == 10
        await fill(wire)
        await ranked_by(wire, "cpu-scalar")
        before = await scrape(app.metrics)
        stage = rank_stage(await wire.clip(1, 2))
        after = await scrape(app.metrics)
        for name in ("rows", "survivors", "pieces", "rescored"):
            counter = f'matchcut_rank_{name}_total{{variant="cpu-scalar"}}'
            assert after[counter] - before[counter] == stage.counts[name]
        count, total = (f'matchcut_rank_seconds_{what}{{variant="cpu-scalar"}}' for what in ("count", "sum"))
        assert after[count] - before[count] == 1
        assert 0 < after[total] - before[total] < 1
        assert after["matchcut_catalog_segments"] == after["matchcut_catalog_coded_segments"] == 2 * ITEMS
        assert 0 <= after["matchcut_scan_epoch_age_rows"] <= 2 * ITEMS - 20
        address = app.metrics
    host, port = address.split(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)


async def test_two_servers_count_apart(config: Config) -> None:
    one = replace(config, metrics="127.0.0.1:0")
    async with serving(one) as (first, wire), serving(replace(one, data=config.data / "other")) as (second, _):
        await fill(wire, range(2))
        assert (await scrape(first.metrics))["matchcut_catalog_segments"] == 4
        assert (await scrape(second.metrics))["matchcut_catalog_segments"] == 0


async def test_metrics_are_off_by_default(app: App) -> None:
    assert app.metrics == ""


async def test_a_taken_metrics_port_is_told(app: App, config: Config) -> None:
    other = replace(config, data=config.data / "other", metrics=app.address)
    with pytest.raises(InvalidInput, match=r"cannot serve metrics on .*; choose another with --metrics") as caught:
        await App(other).__aenter__()
    assert (caught.value.reason, caught.value.field) == ("ADDRESS_UNAVAILABLE", "metrics")
    async with App(replace(other, metrics="")):
        pass  # nothing was left open


@pytest.mark.parametrize("address", ["9464", "localhost:http", ":", "127.0.0.1:99999"])
async def test_a_malformed_metrics_address_is_told(config: Config, address: str) -> None:
    with pytest.raises(InvalidInput, match=r"--metrics .* is not HOST:PORT") as caught:
        await App(replace(config, metrics=address)).__aenter__()
    assert caught.value.field == "metrics"


async def test_metrics_on_an_address_of_another_machine(config: Config) -> None:
    with pytest.raises(InvalidInput, match=r"cannot serve metrics on 192\.0\.2\.1:9464"):
        await App(replace(config, metrics="192.0.2.1:9464")).__aenter__()
