"""Puts the server together and takes it down again: encoder, engine, catalogue, services, health, limits, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from matchcut.kernels.device import open_device
from matchcut.server import engines, models
from matchcut.server.catalog import open_catalog
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.errors import InvalidInput
from matchcut.server.ingest import Ingest
from matchcut.server.pipeline import Pipeline
from matchcut.server.segments import SegmentBounds
from matchcut.server.service import SERVICES, add_services
from matchcut.server.service.access import credentials, interceptors, warn_of_clear_text

log = logging.getLogger("matchcut")


class App:
    """A matchcut server. Use as an async context manager: serving inside, stopped in good order outside.

    Raises on entering:
        MatchcutError: the encoder, the catalogue or the address cannot be used; the message says what to do.
    """

    def __init__(self, config: Config, *, progress: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._progress = progress
        self.address = ""

    async def __aenter__(self) -> App:
        config, began = self._config, time.perf_counter()
        path = config.encoder
        if path == NOT_GIVEN:
            path = models.default_encoder(config.cache, self._progress)
        self._engine = engines.load(models.load(path), engine=config.engine, threads=config.threads, cache=config.cache)
        try:
            self._catalog = open_catalog(None if config.data == Path(":memory:") else config.data)
        except BaseException:
            self._engine.close()
            raise
        pipeline = Pipeline(
            self._engine,
            open_device(),
            self._catalog,
            batch=config.batch,
            still=config.still,
            bounds=self._bounds(config.max_query_segments),
        )
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=channel_options(config), interceptors=interceptors(config))
        self._calls = add_services(
            self._server, pipeline, Ingest(pipeline, bounds=self._bounds(config.max_segments)), config
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            self.address = self._bind()
            await self._server.start()
        except BaseException:
            await self._close()
            raise
        await self._tell(health_pb2.HealthCheckResponse.SERVING)
        warn_of_clear_text(config)
        log.info("serving on %s, %.2f s after the start", self.address, time.perf_counter() - began)
        return self

    async def __aexit__(self, *_: object) -> None:
        """NOT_SERVING, no new calls, those under way get the grace period, then everything is closed."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._config.grace)
        await self._close()
        log.info("stopped")

    async def _close(self) -> None:
        await self._calls.close()
        self._catalog.close()
        self._engine.close()

    async def _tell(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    def _bounds(self, count: int) -> SegmentBounds:
        config = self._config
        return SegmentBounds(
            minimum_us=round(config.min_segment * 1e6), maximum_us=round(config.max_segment * 1e6), count=count
        )

    def _bind(self) -> str:
        """Takes the address; returns it with the real port."""
        host, _, port = self._config.listen.rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidInput(f"--listen {self._config.listen!r} is not HOST:PORT", field="listen")
        try:
            secure = credentials(self._config)
            if secure is None:
                taken = self._server.add_insecure_port(self._config.listen)
            else:
                taken = self._server.add_secure_port(self._config.listen, secure)
        except RuntimeError:
            taken = 0
        if not taken:
            raise InvalidInput(
                f"cannot listen on {self._config.listen}: the port is taken or the address is not this machine's; "
                "choose another with --listen",
                reason="ADDRESS_UNAVAILABLE",
                field="listen",
            )
        return f"{host}:{taken}"


def channel_options(config: Config) -> list[tuple[str, int]]:
    """The transport's limits."""
    return [
        ("grpc.max_receive_message_length", config.max_message),
        ("grpc.max_send_message_length", config.max_message),
        ("grpc.max_metadata_size", config.max_metadata),
        ("grpc.max_concurrent_streams", config.max_streams),
        ("grpc.http2.min_ping_interval_without_data_ms", round(config.min_ping_interval * 1000)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.so_reuseport", 0),
    ]


async def serve(config: Config, *, progress: Callable[[str], None] | None = None, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is told the address once calls are taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with App(config, progress=progress) as app:
        ready(app.address)
        await stop.wait()
