"""The health service: whether the server can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

NAME: str = health.SERVICE_NAME


class Health:
    """Answers for the server as a whole and for each service. All methods but `fail` run on the event loop.

    Args:
        services: their full names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = ("", *services)
        self._servicer = health.aio.HealthServicer()
        self._loop = asyncio.get_running_loop()
        self._failed = False
        self._setting: set[asyncio.Task[None]] = set()  # kept, as the loop keeps no task alive

    def add_to(self, server: Any) -> None:
        """Makes it a service of a grpc.aio.Server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serve(self) -> None:
        """SERVING from now on, unless something failed before."""
        await self._set(health_pb2.HealthCheckResponse.SERVING)
        if self._failed:  # before, or meanwhile
            await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    def fail(self) -> None:
        """NOT_SERVING from now on, to the end; on any thread."""
        self._loop.call_soon_threadsafe(self._fail)

    async def end(self) -> None:
        """NOT_SERVING, as the server ends."""
        await self._servicer.enter_graceful_shutdown()

    def _fail(self) -> None:
        self._failed = True
        task = self._loop.create_task(self._set(health_pb2.HealthCheckResponse.NOT_SERVING))
        self._setting.add(task)
        task.add_done_callback(self._setting.discard)

    async def _set(self, status: Any) -> None:
        for service in self._services:
            await self._servicer.set(service, status)
