"""Requests that share a stream: each is answered on it by a message that names the request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio

from matchcut.bench.drive import Call
from matchcut.bench.plan import Send
from matchcut.bench.prepared import Followed, Streamed
from matchcut.bench.stages import Stages
from matchcut.bench.tally import Outcome, Sample
from matchcut.inference import grpc_service_pb2
from matchcut.v1 import common_pb2, events_pb2, recommender_pb2

__all__ = ["Conversation", "infer_stream", "live_list"]

INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
FOLLOW = "/matchcut.v1.Recommender/RecommendForUserLive"
OPENING = 10.0  # seconds that a stream may take to be open before the run
Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one message of the server says.

    name: of the request that it answers; "" where it names none. error: why there is no answer; "" where there is.
    """

    name: str
    error: str = ""
    times: common_pb2.StageTimes | None = None


class Broken(Exception):
    """The stream ended without an answer."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Conversation:
    """A stream that many requests share. One that has broken is opened anew by the next request.

    Args:
        start: starts the call.
        read: understands a message of the server.
        timeout: seconds that an answer may take.
        header: the first message; it is answered, by a message that names no request. Empty: there is none.
    """

    def __init__(
        self, start: Callable[[], Any], read: Callable[[bytes], Reply], *, timeout: float, header: bytes = b""
    ) -> None:
        self._start = start
        self._read = read
        self._timeout = timeout
        self._header = header
        self._now: _Talk | None = None

    async def open(self) -> None:
        """Opens it, and waits until its header is answered; a failure is left for the requests to tell."""
        with suppress(Broken, TimeoutError):
            async with asyncio.timeout(OPENING):
                await self._talk().greeted

    async def ask(self, name: str, message: bytes) -> Reply:
        """Sends a request and waits for what answers it.

        Raises:
            Broken: the stream ended first, or the answer is that there is none.
            TimeoutError: it took too long; what comes later is not looked at.
        """
        talk = self._talk()
        answer = talk.send(name, message)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        finally:
            talk.forget(name)

    async def close(self) -> None:
        """Ends it."""
        if self._now is not None:
            await self._now.close()

    def _talk(self) -> _Talk:
        if self._now is None or self._now.over:
            self._now = _Talk(self._start(), self._read, self._header)
        return self._now


class _Talk:
    """One call, from its beginning to its end."""

    def __init__(self, call: Any, read: Callable[[bytes], Reply], header: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._call = call
        self._understand = read
        self._waiting: dict[str, asyncio.Future[Reply]] = {}  # in the order sent
        self._unsent: deque[tuple[str, bytes]] = deque()
        self._more = asyncio.Event()
        self.greeted: asyncio.Future[None] = loop.create_future()
        if not header:
            self.greeted.set_result(None)
        self.over = False
        self._tasks = [loop.create_task(self._write(header)), loop.create_task(self._listen())]

    def send(self, name: str, message: bytes) -> asyncio.Future[Reply]:
        """What will be answered, or fail with Broken."""
        self._waiting[name] = answer = asyncio.get_running_loop().create_future()
        self._unsent.append((name, message))
        self._more.set()
        return answer

    def forget(self, name: str) -> None:
        """Nobody waits for this answer any more; what was not sent yet need not be."""
        self._waiting.pop(name, None)

    async def close(self) -> None:
        """Ends the call, whatever is under way."""
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end("CANCELLED", "")

    async def _write(self, header: bytes) -> None:
        # A task of its own, as grpc.aio ends the call where whoever writes is cancelled, e.g. by a deadline.
        try:
            if header:
                await self._call.write(header)
            while True:
                while self._unsent:
                    name, message = self._unsent.popleft()
                    if name in self._waiting:
                        await self._call.write(message)
                self._more.clear()
                await self._more.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended; the reading side says how

    async def _listen(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._take(self._understand(message))
            status, why = (await self._call.code()).name, await self._call.details() or ""
        except grpc.aio.AioRpcError as error:
            status, why = error.code().name, error.details() or ""
        # One that ends well although requests are unanswered has failed them.
        self._end(*(("UNKNOWN", "the server has ended the stream") if status == "OK" else (status, why)))

    def _take(self, reply: Reply) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
        # An error without a name is of the oldest request, as far as can be known; other messages without one are none.
        name = reply.name or (next(iter(self._waiting), "") if reply.error else "")
        answer = self._waiting.pop(name, None)
        if answer is None or answer.done():
            return
        if reply.error:
            _fail(answer, Broken("UNKNOWN", reply.error))  # on a stream an error has no status of its own
        else:
            answer.set_result(reply)

    def _end(self, status: str, why: str) -> None:
        self.over = True
        broken: list[asyncio.Future[Any]] = [self.greeted, *self._waiting.values()]
        self._waiting.clear()
        for answer in broken:
            if not answer.done():
                _fail(answer, Broken(status, why))
        self._tasks[0].cancel()


def _fail(answer: asyncio.Future[Any], why: Broken) -> None:
    answer.set_exception(why)
    answer.exception()  # looked at, as it may be that nobody waits any more


def infer_stream(
    prepared: Streamed, channel: grpc.aio.Channel, *, timeout: float, metadata: Metadata
) -> tuple[Conversation, Call]:
    """ModelStreamInfer: requests of the open inference protocol, each with an id, which its answer has, too."""
    method = channel.stream_stream(INFER)
    conversation = Conversation(lambda: method(metadata=metadata), _inferred, timeout=timeout)
    stages = Stages("")

    async def call(send: Send, due: float) -> Outcome:
        name = str(send.number)
        request = prepared.requests[send.number % len(prepared.requests)]
        # A message followed by fields of the same message is that message with these fields.
        named = request + grpc_service_pb2.ModelInferRequest(id=name).SerializeToString()
        return await _asked(conversation, name, named, due, stages)

    return conversation, call


def live_list(
    prepared: Followed, header: bytes, channel: grpc.aio.Channel, *, timeout: float, metadata: Metadata
) -> tuple[Conversation, Call]:
    """RecommendForUserLive of one user: an event goes in, and the list that answers it comes out."""
    method = channel.stream_stream(FOLLOW)
    conversation = Conversation(lambda: method(metadata=metadata), _listed, timeout=timeout, header=header)
    stages = Stages("RecommendForUserResponse")

    async def call(send: Send, due: float) -> Outcome:
        name = f"{prepared.prefix}{send.number}"
        event = events_pb2.Event.FromString(prepared.events[send.number % len(prepared.events)])
        event.event_id = name  # as an event that is known already changes nothing
        message = recommender_pb2.RecommendForUserLiveRequest(event=event).SerializeToString()
        return await _asked(conversation, name, message, due, stages)

    return conversation, call


async def _asked(conversation: Conversation, name: str, message: bytes, due: float, stages: Stages) -> Outcome:
    time = asyncio.get_running_loop().time
    sent = time()
    try:
        reply = await conversation.ask(name, message)
    except TimeoutError:
        return Outcome("DEADLINE_EXCEEDED", [Sample(due, sent, time())], why="no answer on the stream in time")
    except Broken as error:
        return Outcome(error.status, [Sample(due, sent, time())], why=error.why)
    arrived = time()
    told = stages.told(reply.times, sent, arrived) if reply.times is not None else {}
    return Outcome("OK", [Sample(due, sent, arrived)], told)


def _inferred(message: bytes) -> Reply:
    answer = grpc_service_pb2.ModelStreamInferResponse.FromString(message)
    return Reply(answer.infer_response.id, answer.error_message)


def _listed(message: bytes) -> Reply:
    answer = recommender_pb2.RecommendForUserResponse.FromString(message)
    return Reply(answer.event_id, times=answer.times)
