"""A caller that sends and does not read: what waits for it is bounded, and comes in full once it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput
from matchcut.server.oip.framing import Received
from matchcut.server.oip.owners import Owner
from matchcut.server.oip.streams import Stream

COUNT, MOST = 200, 4


class Caller:
    """Sends COUNT requests. read: how many were taken. reads: set, it reads. got: what it has read, by id."""

    def __init__(self) -> None:
        self.read = 0
        self.reads = asyncio.Event()
        self.got: list[str] = []

    async def requests(self) -> AsyncIterator[Received]:
        for at in range(COUNT):
            self.read += 1
            await asyncio.sleep(0)
            yield Received(pb.ModelInferRequest(model_name="m", id=str(at)), (), 0)

    async def write(self, answer: pb.ModelStreamInferResponse) -> None:
        await self.reads.wait()
        self.got.append(answer.infer_response.id)


async def infer(request: Received, _: Owner) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(id=request.message.id)


@pytest.mark.parametrize("slow", [(), (0,), (0, 1, 5), (3,), (COUNT - 1,)])
@pytest.mark.parametrize("fails", [False, True])
async def test_answers_that_nobody_reads_hold_up_the_requests(slow: tuple[int, ...], fails: bool) -> None:
    """slow: requests that cannot be answered at once, whose tasks write for all while they do."""
    caller = Caller()

    def at_once(request: Received, _: Owner) -> pb.ModelInferResponse | None:
        if int(request.message.id) in slow:
            return None
        if fails:
            raise InvalidInput("on purpose")
        return pb.ModelInferResponse(id=request.message.id)

    stream = Stream(infer, at_once, caller.write, most=MOST, strict=False)
    running = asyncio.create_task(stream.run(caller.requests()))
    for _ in range(20 * COUNT):
        await asyncio.sleep(0)
    assert 1 <= caller.read <= MOST + 1
    caller.reads.set()
    await asyncio.wait_for(running, 30)
    assert sorted(map(int, caller.got)) == list(range(COUNT))
