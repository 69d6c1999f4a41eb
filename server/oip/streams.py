"""Many requests on one stream: some at once, those of a sequence one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
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
AtOnce = Callable[[Received, Owner], pb.ModelInferResponse | None]
Write = Callable[[pb.ModelStreamInferResponse], Awaitable[None]]
log = logging.getLogger("matchcut.oip")


class Stream:
    """One stream of requests. All methods run on the event loop.

    Args:
        infer: answers a request.
        at_once: the same for one that can be answered without waiting; None for others.
        most: requests under way at once, answers that wait to be written included; the next one is read when an answer
            has been written.
        strict: an error ends the stream instead of being told in an answer.
    """

    def __init__(self, infer: Infer, at_once: AtOnce, write: Write, *, most: int, strict: bool) -> None:
        self._infer = infer
        self._at_once = at_once
        self._write = write
        self._strict = strict
        self._room = asyncio.Semaphore(most)
        self._answers: deque[tuple[pb.ModelStreamInferResponse, bool]] = deque()  # each with whether it took room
        self._writing = False
        self._owner = Owner()
        self._running: set[asyncio.Task[None]] = set()
        self._last: dict[object, asyncio.Task[None]] = {}  # by sequence, the request that was read last
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, requests: AsyncIterator[Received]) -> None:
        """Answers all requests. However it ends, the state of its sequences is freed at once.

        Raises:
            MatchcutError: of the first request that failed, where the stream is strict.
        """
        reading = asyncio.create_task(self._read(requests))
        try:
            await self._over
        finally:
            self._owner.end()
            for task in (reading, *self._running):
                task.cancel()

    async def _read(self, requests: AsyncIterator[Received]) -> None:
        try:
            await self._room.acquire()
            async for request in requests:
                key = sequence(request.message)
                before = self._last.get(key)
                if before is None and await self._answered(request):
                    continue
                task = asyncio.create_task(self._answer(request, before))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                if key is not None:
                    self._last[key] = task
                    task.add_done_callback(partial(self._forget, key))
                await self._room.acquire()
            if self._running:
                await asyncio.wait(self._running)
            self._end(None)
        except Exception as error:  # what breaks the stream ends it
            self._end(error)

    async def _answered(self, request: Received) -> bool:
        """Whether a request could be answered at once.

        Such an answer takes room only where it has to wait until others are written: for a caller that does not read.
        """
        waits = self._writing
        try:
            response = self._at_once(request, self._owner)
        except Exception as error:
            await self._failed(request, error, took_room=waits)
        else:
            if response is None:
                return False
            await self._send(pb.ModelStreamInferResponse(infer_response=response), took_room=waits)
        if waits:
            await self._room.acquire()
        return True

    async def _answer(self, request: Received, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            try:
                response = await self._infer(request, self._owner)
            except Exception as error:
                await self._failed(request, error, took_room=True)
            else:
                await self._send(pb.ModelStreamInferResponse(infer_response=response), took_room=True)
        except Exception as error:  # it could not be written
            self._end(error)

    async def _failed(self, request: Received, error: Exception, *, took_room: bool) -> None:
        if self._strict:
            self._end(error)
        else:
            await self._send(replies.failed(request.message, told(error)), took_room=took_room)

    async def _send(self, answer: pb.ModelStreamInferResponse, *, took_room: bool) -> None:
        """Writes an answer, or leaves it to whoever writes at present, who writes them all."""
        self._answers.append((answer, took_room))
        if self._writing:
            return
        self._writing = True
        try:
            while self._answers:
                answer, took_room = self._answers.popleft()
                await self._write(answer)
                if took_room:
                    self._room.release()
        finally:
            self._writing = False

    def _end(self, error: Exception | None) -> None:
        """The stream is over; the first reason counts."""
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

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
