"""The load generator: callers that ask one server again and again, each waiting for its answer before it asks again.

It is the same for every server of the protocol, and knows only bytes: a request is serialised once, before anything is
timed, and an answer is read in full but not parsed. What is left is the transport, which all clients pay.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import common
import grpc.aio
import numpy as np
from serving_models import WIDTH

from matchcut.inference import grpc_service_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
# Each caller has a connection of its own, as clients on different machines have.
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def infer(model: str, array: Any, *, name: str = "x", datatype: str = "FP32", **parameters: int | bool) -> bytes:
    """A request for one tensor, serialised; parameters are whole numbers or yes and no."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    if datatype == "BYTES":
        request.raw_input_contents.append(b"".join(len(one).to_bytes(4, "little") + one for one in array.flat))
    else:
        request.raw_input_contents.append(array.tobytes())
    for key, value in parameters.items():
        if isinstance(value, bool):
            request.parameters[key].bool_param = value
        else:
            request.parameters[key].int64_param = value
    return request.SerializeToString()


def as_json(frame: Any) -> bytes:
    """The body of an HTTP request with a frame as text."""
    return b'{"x": "' + base64.b64encode(frame.tobytes()) + b'"}'


def pixels() -> Any:
    """A frame as the encoders take it: (1, 3, 224, 224) float32, 602,112 bytes."""
    return np.random.default_rng(3).normal(size=(1, 3, WIDTH, WIDTH)).astype(np.float32)


def picture() -> bytes:
    """A photograph as JPEG of high quality, 224 by 224: what a client sends that has not preprocessed it."""
    path = common.MEDIA / "cheetah.jpg"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: python clients/demo/media.py build/media")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).reformat(WIDTH, WIDTH, "yuvj420p")
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = WIDTH, WIDTH, "yuvj420p", Fraction(1, 25)
    codec.options = {"qmin": "2", "qmax": "2"}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode()])


class Caller(Protocol):
    """One client."""

    async def call(self) -> bytes:
        """One request; its answer."""
        ...


class Refused(Exception):
    """A stream answered with an error."""


@dataclass(slots=True)
class Unary:
    """Calls of ModelInfer."""

    channel: grpc.aio.Channel
    request: bytes

    async def call(self) -> bytes:
        """See Caller."""
        return await self.ask(self.request)

    async def ask(self, request: bytes, *, timeout: float | None = None) -> bytes:
        """Another request than its own; timeout: its deadline, in seconds."""
        answer: bytes = await self.channel.unary_unary(SERVICE + "ModelInfer")(request, timeout=timeout)
        return answer


class Stream:
    """Requests on one stream of ModelStreamInfer."""

    def __init__(self, channel: grpc.aio.Channel, request: bytes) -> None:
        self._stream = channel.stream_stream(SERVICE + "ModelStreamInfer")()
        self._request = request

    async def call(self) -> bytes:
        """See Caller."""
        return await self.ask(self._request)

    async def ask(self, request: bytes) -> bytes:
        """Another request than its own. Raises Refused where the answer is an error."""
        await self._stream.write(request)
        answer: bytes = await self._stream.read()
        if len(answer) < 512 and (told := pb.ModelStreamInferResponse.FromString(answer).error_message):
            raise Refused(told)
        return answer

    async def close(self) -> None:
        """Ends it in good order."""
        await self._stream.done_writing()
        while await self._stream.read() is not grpc.aio.EOF:
            pass


@dataclass(slots=True)
class Http:
    """Posts of HTTP/1.1 on one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: str
    body: bytes

    async def call(self) -> bytes:
        """See Caller."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(self.body)}\r\n"
        self.writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n")
        self.writer.write(self.body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length"))
        answer = await self.reader.readexactly(length)
        if " 200 " not in lines[0]:
            raise Refused(answer.decode())
        return answer


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A connection."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        yield channel


async def unary(stack: AsyncExitStack, address: str, request: bytes) -> Unary:
    """A caller on a connection of its own."""
    return Unary(await stack.enter_async_context(connected(address)), request)


async def stream(stack: AsyncExitStack, address: str, request: bytes) -> Stream:
    """The same with a stream."""
    made = Stream(await stack.enter_async_context(connected(address)), request)
    stack.push_async_callback(made.close)
    return made


async def http(stack: AsyncExitStack, address: str, path: str, body: bytes) -> Http:
    """The same with HTTP."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    return Http(reader, writer, path, body)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a while of calls took: seconds of each, of all together, and of the client's own CPU."""

    calls: Sequence[float]
    seconds: float
    client: float

    def ms(self, percent: float) -> float:
        """A percentile of the calls."""
        return float(np.percentile(self.calls, percent)) * 1e3

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.calls) / self.seconds


async def load(callers: Sequence[Caller], seconds: float) -> Taken:
    """Lets callers ask for so long, all at once."""
    calls: list[float] = []

    async def ask(caller: Caller, until: float) -> None:
        while (began := time.perf_counter()) < until:
            await caller.call()
            calls.append(time.perf_counter() - began)

    gc.collect()
    gc.disable()
    try:
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(ask(caller, began + seconds) for caller in callers))
        return Taken(calls, time.perf_counter() - began, time.process_time() - spent)
    finally:
        gc.enable()
