"""What batchers tell Prometheus."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import grpc.aio
import pytest

from matchcut.server.app import App
from matchcut.server.batcher import Batcher
from matchcut.server.catalog import Sizes
from matchcut.server.config import Config
from matchcut.server.errors import DeadlineExceeded
from matchcut.server.feed import Caller
from matchcut.server.metrics import Metrics
from support.batching import Asking, Gated, Record, rows
from support.wire import Wire


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    served = Metrics("127.0.0.1", 0, sizes=lambda: Sizes(0, 0, 0))
    yield served
    served.close()


def scraped(address: str) -> dict[str, float]:
    """{name with labels: value} of all that is about batches."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        text = str(reply.read(), "utf-8")
    return {found[1]: float(found[2]) for found in re.finditer(r"^(matchcut_batch\S*) (\S+)$", text, flags=re.M)}


class Both(Record):
    """Tells the metrics, and writes down for the test."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._batches = metrics.batches

    def ran(self, model: str, rows: int, seconds: float, *, wasted: bool) -> None:
        self._batches.ran(model, rows, seconds, wasted=wasted)

    def waited(self, model: str, seconds: float) -> None:
        self._batches.waited(model, seconds)

    def dropped(self, model: str, reason: str) -> None:
        self._batches.dropped(model, reason)

    def queued(self, model: str, rows: int) -> None:
        self._batches.queued(model, rows)
        super().queued(model, rows)


def test_runs_waits_and_drops_are_counted_for_each_model(metrics: Metrics) -> None:
    run, record = Gated(), Both(metrics)
    one = Batcher(run, name="one", most=8, queue=8, watcher=record)
    first = Asking(one, rows(1))
    run.begun()
    others = [Asking(one, rows(2, 3))]
    record.waiting(2)
    others.append(Asking(one, rows(4)))
    record.waiting(3)
    with pytest.raises(DeadlineExceeded):
        one.submit(rows(5), caller=Caller(deadline=0))
    assert scraped(metrics.address)['matchcut_batch_waiting_rows{model="one"}'] == 3
    first.caller.leave()
    run.open()
    for asking in (first, *others):
        asking.over()
    Batcher(Gated(open=True), name="two", most=8, queue=8, watcher=metrics.batches).submit(rows(1), caller=Caller())
    found = scraped(metrics.address)
    assert found['matchcut_batch_waiting_rows{model="one"}'] == 0
    assert found['matchcut_batch_rows_count{model="one"}'] == 2
    assert found['matchcut_batch_rows_sum{model="one"}'] == 4
    assert found['matchcut_batch_rows_bucket{le="1.0",model="one"}'] == 1
    assert found['matchcut_batch_rows_bucket{le="3.0",model="one"}'] == 2
    assert found['matchcut_batch_seconds_count{model="one"}'] == 2
    assert found['matchcut_batch_wait_seconds_count{model="one"}'] == 3
    assert found['matchcut_batch_wasted_total{model="one"}'] == 1
    assert found['matchcut_batch_dropped_total{model="one",reason="DEADLINE_EXCEEDED"}'] == 1
    assert found['matchcut_batch_rows_sum{model="two"}'] == 1
    assert found['matchcut_batch_wasted_total{model="two"}'] == 0


async def test_a_server_counts_the_runs_of_its_encoder(config: Config) -> None:
    async with (
        App(replace(config, metrics="127.0.0.1:0")) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        ranking = await Wire(channel).clip(1, 2, 3)
        encode = Wire.stages(ranking)["encode"]
        found = scraped(app.metrics)
    assert encode.counts["frames"] == 3
    assert found['matchcut_batch_rows_sum{model="layout"}'] == 3
    assert found['matchcut_batch_rows_count{model="layout"}'] == encode.counts["runs"]
    assert found['matchcut_batch_waiting_rows{model="layout"}'] == 0
