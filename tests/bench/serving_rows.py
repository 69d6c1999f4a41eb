"""The speeds that the serving benchmark measures: each row asks servers in turns, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from serving_answers import check, expected
from serving_load import Caller, Taken, as_json, http, infer, load, picture, pixels, stream, unary
from serving_models import FRAME, HIDDEN, LIGHT, STEP
from serving_peers import BARE, LITSERVE, MLSERVER, OURS, TRITON, Server

CLIENTS = 8
SINGLE = (MLSERVER, LITSERVE)  # they have no sequences, and no streams on which one waits for each answer
WARM = 0.3  # seconds of each connection before anything counts

Connect = Callable[[AsyncExitStack, Server], Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement of one round; times of the CPU are those of one call."""

    row: str
    server: str
    metric: str
    value: float
    unit: str


@dataclass(slots=True)
class Bench:
    """What every row needs.

    servers: by name. models: what serving_models.build() made. seconds: that each server is asked for in each round.
    figures: what was measured so far, in the order of the rounds.
    """

    servers: dict[str, Server]
    models: Path
    rounds: int
    seconds: float
    figures: list[Figure] = field(default_factory=list)

    def note(self, row: str, server: str, unit: str, **metrics: float) -> None:
        """Keeps figures."""
        self.figures += [Figure(row, server, metric, value, unit) for metric, value in metrics.items()]

    def timed(self, row: str, server: str, taken: Taken, cpu: float) -> None:
        """Keeps what a while of calls took; cpu: of the server, in seconds."""
        own, client = (seconds / len(taken.calls) * 1e3 for seconds in (cpu, taken.client))
        self.note(row, server, "ms", p50=taken.ms(50), p99=taken.ms(99), server_cpu=own, client_cpu=client)
        self.note(row, server, "1/s", rate=taken.rate)

    def series(self, row: str, server: str, metric: str) -> list[float]:
        """One measurement, round by round; empty where it was not made."""
        return [one.value for one in self.figures if (one.row, one.server, one.metric) == (row, server, metric)]

    def ratio(self, row: str, server: str, metric: str, *, to: tuple[str, str]) -> float | None:
        """The median of the rounds' ratios to another row and server; None where one of them was not measured."""
        pairs = list(zip(self.series(row, server, metric), self.series(*to, metric), strict=False))
        return statistics.median(one / other for one, other in pairs) if pairs and all(b for _, b in pairs) else None


async def in_turns(
    bench: Bench, row: str, kinds: Sequence[tuple[Sequence[Server], str, Connect]], *, clients: int = 1
) -> None:
    """Asks servers one after the other, each round beginning with another one; the row's name has the kind after it."""
    async with AsyncExitStack() as stack:
        ready = [
            (server, f"{row} {kind}".strip(), [await connect(stack, server) for _ in range(clients)])
            for servers, kind, connect in kinds
            for server in servers
        ]
        for _, _, callers in ready:
            await load(callers, WARM)
        for at in range(bench.rounds):
            first = at % len(ready)
            for server, name, callers in (*ready[first:], *ready[:first]):
                spent = server.cpu()
                taken = await load(callers, bench.seconds)
                bench.timed(name, server.name, taken, server.cpu() - spent)


def frames(bench: Bench) -> Connect:
    """Callers that send a frame by unary calls."""
    x = pixels()
    request, body, wanted = infer(FRAME, x), as_json(x), expected(bench.models, FRAME, x)

    async def connect(stack: AsyncExitStack, server: Server) -> Caller:
        over_http = server.name == LITSERVE
        made = http(stack, server.address, "/predict", body) if over_http else unary(stack, server.address, request)
        caller = await made
        check(server.name, await caller.call(), wanted)
        return caller

    return connect


def streams(bench: Bench) -> Connect:
    """Callers that send frames on a stream."""
    x = pixels()
    request, wanted = infer(FRAME, x), expected(bench.models, FRAME, x)

    async def connect(stack: AsyncExitStack, server: Server) -> Caller:
        caller = await stream(stack, server.address, request)
        check(server.name, await caller.call(), wanted, streamed=True)
        return caller

    return connect


def steps(bench: Bench, *, streamed: bool) -> Connect:
    """Callers with a sequence of their own each, which ends with the connection."""
    x = np.random.default_rng(4).normal(size=(1, HIDDEN)).astype(np.float32)
    wanted, numbers = expected(bench.models, STEP, x), count(1)

    async def connect(stack: AsyncExitStack, server: Server) -> Caller:
        sequence = next(numbers)
        first, last = (
            infer(STEP, x, sequence_id=sequence, sequence_start=start, sequence_end=not start)
            for start in (True, False)
        )
        request = infer(STEP, x, sequence_id=sequence)
        caller = await (stream if streamed else unary)(stack, server.address, request)
        stack.push_async_callback(caller.ask, last)
        check(server.name, await caller.ask(first), wanted, streamed=streamed)
        return caller

    return connect


def sending(request: bytes) -> Connect:
    """Callers that send this."""

    async def connect(stack: AsyncExitStack, server: Server) -> Caller:
        return await unary(stack, server.address, request)

    return connect


async def one(bench: Bench) -> None:
    """One client: unary calls of every server, and streams of those that have them; all in the same rounds."""
    every = list(bench.servers.values())
    have = [server for server in every if server.name not in SINGLE]
    await in_turns(bench, "frame", [(every, "unary", frames(bench)), (have, "stream", streams(bench))])


async def recurrent(bench: Bench) -> None:
    """Steps of a sequence, 512 bytes each; a server is held by one sequence at a time, as Triton has one place."""
    have = list(bench.servers.values())
    await in_turns(bench, "step", [(have, "stream", steps(bench, streamed=True))])
    apart = [server for server in have if server.name != BARE]
    await in_turns(bench, "step", [(apart, "unary", steps(bench, streamed=False))])


async def many(bench: Bench) -> None:
    """Eight clients at once, each with a connection of its own."""
    await in_turns(bench, "frame", [(list(bench.servers.values()), f"c={CLIENTS}", frames(bench))], clients=CLIENTS)


async def jpeg(bench: Bench) -> None:
    """The same content as tensors and as JPEG: to the light encoder, of which hardly more than serving is left."""
    server = bench.servers[OURS]
    file = np.array([[picture()]], np.object_)
    requests = {"raw": infer(LIGHT, pixels()), "jpeg": infer(f"{LIGHT}-media", file, name="media", datatype="BYTES")}
    for clients in (1, CLIENTS):
        kinds = [([server], kind, sending(request)) for kind, request in requests.items()]
        others = [bench.servers[TRITON]] if TRITON in bench.servers else []
        await in_turns(bench, f"jpeg c={clients}", [*kinds, (others, "raw", frames(bench))], clients=clients)
