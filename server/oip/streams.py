"""Many requests on one stream: some at once, those of a sequence one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import MatchcutError
from matchcut.server.oip import replies
from matchcut.server.oip.framing import Received
from matchcut.server.oip.owners import Owner

__all__ = ["Stream"]

Infer = Callable[[Received, Owner], Awaitable[pb.ModelInferResponse]]
Write = Callable[[pb.ModelStreamInferResponse], Awaitable[None]]
log = logging.getLogger("matchcut.oip")


class Stream:
    """One stream of requests. All methods run on the event loop.

    Args:
        infer: answers a request.
        most: requests under way at once; the next one is read when an answer has been written.
        strict: an error ends the stream instead of being told in an answer.
    """

    def __init__(self, infer: Infer, *, most: int, strict: bool) -> None:
        self._infer = infer
        self._strict = strict
        self._room = asyncio.Semaphore(most)
        self._answers: asyncio.Queue[pb.ModelStreamInferResponse | Exception | None] = asyncio.Queue()
        self._owner = Owner()
        self._running: set[asyncio.Task[None]] = set()
        self._last: dict[object, asyncio.Task[None]] = {}  # by sequence, the request that was read last

    async def run(self, requests: AsyncIterator[Received], write: Write) -> None:
        """Answers all requests. However it ends, the state of its sequences is freed at once.

        Raises:
            MatchcutError: of the first request that failed, where the stream is strict.
        """
        reading = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                await write(answer)
                self._room.release()
        finally:
            self._owner.end()
            for task in (reading, *self._running):
                task.cancel()

    async def _read(self, requests: AsyncIterator[Received]) -> None:
        try:
            await self._room.acquire()
            async for request in requests:
                key = sequence(request.message)
                task = asyncio.create_task(self._answer(request, self._last.get(key)))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                if key is not None:
                    self._last[key] = task
                    task.add_done_callback(partial(self._forget, key))
                await self._room.acquire()
            if self._running:
                await asyncio.wait(self._running)
            self._answers.put_nowait(None)
        except Exception as error:  # what breaks the stream ends it
            self._answers.put_nowait(error)

    async def _answer(self, request: Received, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            response = await self._infer(request, self._owner)
            self._answers.put_nowait(pb.ModelStreamInferResponse(infer_response=response))
        except Exception as error:
            self._answers.put_nowait(error if self._strict else replies.failed(request.message, told(error)))

    def _forget(self, key: object, done: asyncio.Task[None]) -> None:
        if self._last.get(key) is done:
            del self._last[key]


def sequence(request: pb.ModelInferRequest) -> object:
    """What tells a request's sequence from others of the stream; None where it belongs to none."""
    if "sequence_id" not in request.parameters:
        return None
    parameter: Any = request.parameters["sequence_id"]
    kind = parameter.WhichOneof("parameter_choice")
    return (request.model_name, getattr(parameter, kind)) if kind else None


def told(error: Exception) -> str:
    """The words for an error; what is not a MatchcutError is logged."""
    if isinstance(error, MatchcutError):
        return error.message
    log.error("unexpected error in a stream", exc_info=error)
    return "an unexpected error in the server; its log says more"
