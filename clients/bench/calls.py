"""Requests on the wire: what is prepared goes out, what comes of it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from matchcut.bench.drive import Call
from matchcut.bench.plan import Send
from matchcut.bench.prepared import Followed, Live, Prepared, Streamed, Unary, Upload
from matchcut.bench.stages import Stages, in_seconds
from matchcut.bench.streams import Conversation, infer_stream, live_list
from matchcut.bench.tally import Outcome, Sample
from matchcut.v1 import catalog_pb2, media_pb2, recommender_pb2

__all__ = ["Callers"]

MOST_FOLLOWED = 50  # live lists on one connection: a server may allow a hundred calls on it, and there may be others
INGEST = "/matchcut.v1.Catalog/Ingest"
LIVE = "/matchcut.v1.Recommender/RecommendLive"


class Callers:
    """Makes the prepared requests, on several channels in turns.

    Args:
        channels: connections to the server.
        prepared: by Send.kind.
        metadata: goes with each call.
        timeout: the deadline of each request in seconds; of a live stream, from its last frame on.
        process, processes: which of the generator's processes this is: its requests are every so manyeth of the plan.

    `start` has to be set to the plan's beginning, by the loop's clock, before the first request.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        prepared: Sequence[Prepared],
        *,
        metadata: tuple[tuple[str, str], ...],
        timeout: float,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.created: list[str] = []
        self.start = 0.0
        self._options: dict[str, Any] = {"timeout": timeout, "metadata": metadata}
        self._channels = channels
        self._process, self._processes = process, processes
        self._shared: list[Conversation] = []
        self._calls = [self._of(each) for each in prepared]

    async def __call__(self, send: Send, due: float) -> Outcome:
        """See drive.Call."""
        calls = self._calls[send.kind]
        return await calls[send.number // self._processes % len(calls)](send, due)

    async def open(self) -> None:
        """Opens the streams that requests share, so that no request waits for that; what fails is told by requests."""
        await asyncio.gather(*(conversation.open() for conversation in self._shared))

    async def close(self) -> None:
        """Ends those streams."""
        await asyncio.gather(*(conversation.close() for conversation in self._shared))

    def _of(self, prepared: Prepared) -> list[Call]:
        match prepared:
            case Unary():
                return [self._unary(prepared, channel) for channel in self._channels]
            case Upload():
                return [self._upload(prepared, channel) for channel in self._channels]
            case Live():
                return [self._live(prepared, channel) for channel in self._channels]
            case Streamed():
                made = [infer_stream(prepared, channel, **self._options) for channel in self._channels]
            case Followed():
                mine = prepared.headers[self._process :: self._processes] or prepared.headers
                made = [
                    live_list(prepared, header, self._channels[number % len(self._channels)], **self._options)
                    for number, header in enumerate(mine[: MOST_FOLLOWED * len(self._channels)])
                ]
        self._shared += (conversation for conversation, _ in made)
        return [call for _, call in made]

    def _unary(self, prepared: Unary, channel: grpc.aio.Channel) -> Call:
        method = channel.unary_unary(prepared.method)
        stages = Stages(prepared.reply)

        async def call(send: Send, due: float) -> Outcome:
            request = prepared.requests[send.number % len(prepared.requests)]
            return await _once(due, stages, lambda: method(request, **self._options))

        return call

    def _upload(self, prepared: Upload, channel: grpc.aio.Channel) -> Call:
        method = channel.stream_unary(INGEST)
        stages = Stages("IngestResponse")
        end = catalog_pb2.IngestRequest(end=catalog_pb2.IngestEnd()).SerializeToString()

        async def messages(item_id: str, clip: Sequence[bytes]) -> AsyncIterator[bytes]:
            header = catalog_pb2.IngestHeader(tenant=prepared.tenant, item=catalog_pb2.Item(item_id=item_id))
            yield catalog_pb2.IngestRequest(header=header).SerializeToString()
            for message in clip:
                yield message
            yield end

        async def call(send: Send, due: float) -> Outcome:
            item_id = f"{prepared.prefix}{send.number}"
            clip = prepared.clips[send.number % len(prepared.clips)]
            self.created.append(item_id)  # at once, as one that fails or is cancelled may be there all the same
            return await _once(due, stages, lambda: method(messages(item_id, clip), **self._options))

        return call

    def _live(self, prepared: Live, channel: grpc.aio.Channel) -> Call:
        method = channel.stream_stream(LIVE)

        async def call(send: Send, due: float) -> Outcome:
            lasts = send.frames[-1] - send.at
            options = {**self._options, "timeout": self._options["timeout"] + lasts}
            return await _Stream(method(**options), prepared, send, self.start).outcome()

        return call


async def _once(due: float, stages: Stages, start: Callable[[], Any]) -> Outcome:
    """A call with one answer."""
    time = asyncio.get_running_loop().time
    sent = time()
    try:
        answer: bytes = await start()
    except grpc.aio.AioRpcError as error:
        return Outcome(error.code().name, [Sample(due, sent, time())], why=error.details() or "")
    arrived = time()
    return Outcome("OK", [Sample(due, sent, arrived)], stages.of(answer, sent, arrived))


class _Stream:
    """A live query: frames go out at the camera's times, and each list that comes is of the newest frame seen."""

    def __init__(self, call: Any, prepared: Live, send: Send, start: float) -> None:
        self._call = call
        self._prepared = prepared
        self._send = send
        self._due = [start + at for at in send.frames]
        self._sent: list[float] = []
        self._time = asyncio.get_running_loop().time

    async def outcome(self) -> Outcome:
        """Runs to the end of the stream."""
        writing = asyncio.ensure_future(self._write())
        outcome = Outcome("OK")
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self._take(recommender_pb2.RecommendResponse.FromString(answer), self._time(), outcome)
            outcome.status = (await self._call.code()).name
        except grpc.aio.AioRpcError as error:
            outcome.status, outcome.why = error.code().name, error.details() or ""
        finally:
            writing.cancel()
            self._call.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        outcome.frames = len(self._sent)
        if outcome.status != "OK":
            # Of a stream that failed, what counts is when it was to begin and that it did not last.
            outcome.samples = [Sample(self._due[0], self._sent[0] if self._sent else self._due[0], self._time())]
        return outcome

    def _take(self, reply: recommender_pb2.RecommendResponse, arrived: float, outcome: Outcome) -> None:
        outcome.dropped = reply.report.frames_dropped
        if reply.final:
            frames = max(1, len(self._sent))  # the times are of the whole stream; this list answers no frame of its own
            outcome.stages = {name: seconds / frames for name, seconds in in_seconds(reply.times).items()}
            return
        newest = min(reply.report.frames_seen + reply.report.frames_dropped, len(self._sent)) - 1
        if newest >= 0:
            outcome.samples.append(Sample(self._due[newest], self._sent[newest], arrived))

    async def _write(self) -> None:
        try:
            await self._call.write(self._prepared.header)
            for number, due in enumerate(self._due):
                wait = due - self._time()
                if wait > 0:
                    await asyncio.sleep(wait)
                message = self._frame(number)
                self._sent.append(self._time())
                await self._call.write(message)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended; the reading side says how. Where grpc.aio notices the failed write before the status
            # has come, that is INTERNAL, whatever the server said: it is a failure all the same.
            return

    def _frame(self, number: int) -> bytes:
        pixels = self._prepared.frames[number % len(self._prepared.frames)]
        # The camera's clock: the planned time, which grows by at least a microsecond from frame to frame.
        time_us = round((self._due[number] - self._due[0]) * 1e6) + number
        chunk = media_pb2.MediaChunk(frame=media_pb2.Frame(pixels=pixels, time_us=time_us))
        return recommender_pb2.RecommendLiveRequest(chunk=chunk).SerializeToString()
