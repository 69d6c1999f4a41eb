"""A real server whose engine stands still until it is let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from matchcut.server import sight
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.device import Guarded
from matchcut.server.engines import Engine
from matchcut.server.models import Encoder
from matchcut.server.records import Floats
from matchcut.v1 import recommender_pb2 as pb
from support.batching import PATIENCE, Record
from support.wire import Wire


class Held:
    """An engine whose runs wait while it is shut."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.encoder, self.variant = engine.encoder, engine.variant
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.sizes: list[int] = []

    def shut(self) -> None:
        """What ran so far is forgotten, and further runs wait."""
        self.sizes.clear()
        while self.begun.acquire(blocking=False):
            pass
        self.go.clear()

    def run(self, batch: Floats) -> Floats:
        self.sizes.append(len(batch))
        self.begun.release()
        assert self.go.wait(PATIENCE), "the engine was never let go"
        return self._engine.run(batch)

    def close(self) -> None:
        self._engine.close()


class Watched(Record):
    """Tells the test what it tells the metrics."""

    def __init__(self, metrics: Any) -> None:
        super().__init__()
        self._metrics = metrics

    def dropped(self, model: str, reason: str) -> None:
        super().dropped(model, reason)
        self._metrics.dropped(model, reason)


class Sharing:
    """A server, its engine, and what its batcher says."""

    def __init__(self, wire: Wire, engine: Held, record: Record) -> None:
        self.wire, self.engine, self.record = wire, engine, record

    async def busy(self, seed: int = 100) -> asyncio.Task[pb.RecommendResponse]:
        """A request that is in the engine, which stands still from now on."""
        self.engine.shut()
        first = asyncio.create_task(self.wire.clip(seed))
        assert await asyncio.to_thread(self.engine.begun.acquire, timeout=PATIENCE)
        return first

    async def waiting(self, rows: int) -> None:
        """Waits until so many frames wait for the engine."""
        await asyncio.to_thread(self.record.waiting, rows)


@asynccontextmanager
async def sharing(config: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sharing]:
    held: list[Held] = []
    records: list[Record] = []

    class HeldApp(App):
        def _engine(self, encoder: Encoder, processor: Guarded) -> Engine:
            held.append(Held(super()._engine(encoder, processor)))
            return held[0]

    shared: Callable[..., Any] = sight.shared

    def recorded(engine: Engine, *, watcher: Any, **options: Any) -> Any:
        records.append(Watched(watcher))
        return shared(engine, watcher=records[0], **options)

    monkeypatch.setattr(sight, "shared", recorded)
    async with (
        HeldApp(replace(config, metrics="127.0.0.1:0", threads=0)) as app,  # one run takes all cores
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        try:
            yield Sharing(Wire(channel), held[0], records[0])
        finally:
            held[0].go.set()
