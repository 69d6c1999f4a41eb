"""The health service: whether the server can do its work, and which models are ready (grpc/health/v1/health.proto)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from matchcut.server.serving import IndexEntry, ModelState

NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MODEL = "model/"
LOOK = 0.5  # seconds between two looks at the models, for those who watch one
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
log = logging.getLogger("matchcut")


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for the server as a whole, for each service, and for each model as `model/<name>`.

    All methods but `fail` run on the event loop.

    Args:
        services: their full names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._statuses: dict[str, int] = dict.fromkeys(("", *services), NOT_SERVING)
        self._services = tuple(self._statuses)
        self._changed = asyncio.Event()  # set, and replaced by a fresh one, at each change
        self._loop = asyncio.get_running_loop()
        self._index: Callable[[], Sequence[IndexEntry]] = tuple
        self._serving = self._failed = self._ended = False
        self._watchers = 0  # of models
        self._looking: asyncio.Task[None] | None = None

    def add_to(self, server: Any) -> None:
        """Makes it a service of a grpc.aio.Server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def follow(self, index: Callable[[], Sequence[IndexEntry]]) -> None:
        """Answers for models, too; to be called before serve().

        Args:
            index: the versions that are known; called in a thread. A model is ready if one of its versions is.
        """
        self._index = index

    @property
    def ready(self) -> bool:
        """Whether the server as a whole is SERVING."""
        return bool(self._statuses[""] == SERVING)

    async def serve(self) -> None:
        """SERVING from now on, unless something failed before."""
        self._serving = not self._failed
        self._set(dict.fromkeys(self._services, SERVING if self._serving else NOT_SERVING))
        await self._look()
        self._looking = self._loop.create_task(self._keep_looking())

    def fail(self) -> None:
        """NOT_SERVING from now on, to the end; on any thread."""
        self._loop.call_soon_threadsafe(self._fail)

    async def end(self) -> None:
        """NOT_SERVING, as the server ends."""
        self._set(dict.fromkeys(self._statuses, NOT_SERVING))
        self._ended = True
        if self._looking is not None:
            self._looking.cancel()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The status now; NOT_FOUND for a name that was never known."""
        if request.service.startswith(MODEL):
            await self._look()
        status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("there is no such service or model here; models are asked for as model/<name>")
            return None
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """The status now and at each change."""
        of_model = request.service.startswith(MODEL)
        if of_model:
            await self._look()
        self._watchers += of_model
        try:
            last: int | None = None
            while True:
                changed = self._changed
                status = self._statuses.get(request.service, UNKNOWN)
                if status != last:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    last = status
                await changed.wait()
        finally:
            self._watchers -= of_model

    def _fail(self) -> None:
        self._failed, self._serving = True, False
        self._set(dict.fromkeys(self._statuses, NOT_SERVING))

    def _set(self, statuses: Mapping[str, int]) -> None:
        if self._ended or statuses.items() <= self._statuses.items():
            return
        self._statuses.update(statuses)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _look(self) -> None:
        """Takes over what the models are; those that are gone are not served."""
        try:
            entries = await asyncio.to_thread(self._index)
        except Exception:  # a repository that cannot be read now may be readable the next time
            log.exception("cannot tell which models are ready")
            return
        statuses = {name: NOT_SERVING for name in self._statuses if name.startswith(MODEL)}
        statuses |= {MODEL + entry.name: NOT_SERVING for entry in entries}
        if self._serving:
            statuses |= {MODEL + entry.name: SERVING for entry in entries if entry.state is ModelState.READY}
        self._set(statuses)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self._watchers:  # a look may read a folder
                await self._look()
