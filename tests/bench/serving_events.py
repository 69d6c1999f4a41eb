"""What the serving benchmark measures besides speed: deadlines that pass, callers that are lost, models replaced."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc.aio
import numpy as np
from serving_load import SERVICE, Refused, Stream, Unary, connected, infer, pixels, unary
from serving_models import FRAME, HELD, HIDDEN, SIDE, SLOW, SLOW_MODEL, next_version
from serving_peers import FOLDERS, OURS, Server
from serving_rows import Bench

from matchcut.inference import grpc_service_pb2 as pb

AT_ONCE, DEADLINE = 16, 0.5  # calls, and seconds that each has
LOST = Path(__file__).parent / "peers" / "lost.py"
PAUSE = 0.001  # seconds between two tries of a sequence that is refused
GIVEN_UP = 20.0  # seconds after which a place counts as not freed
FEWEST = 100  # calls before a model is replaced
AROUND = 0.25  # seconds of calls before and after a model is replaced that belong to it


async def deadlines(bench: Bench) -> None:
    """Calls at once on one worker, most of which cannot be answered in time: how many runs nobody waits for."""
    request = infer(SLOW_MODEL, np.ones((1, SIDE), np.float32))
    for server in bench.servers.values():
        async with AsyncExitStack() as stack:
            caller = await unary(stack, server.address, request)
            for _ in range(bench.rounds):
                before, spent = await runs(caller, server), server.cpu()
                await caller.call()
                of_one = server.cpu() - spent
                before, spent = await runs(caller, server), server.cpu()
                calls = [caller.ask(request, timeout=DEADLINE) for _ in range(AT_ONCE)]
                ended = await asyncio.gather(*calls, return_exceptions=True)
                failed = [one for one in ended if isinstance(one, BaseException)]
                other = [one for one in failed if not isinstance(one, grpc.aio.AioRpcError)]
                if other:
                    raise other[0]
                after = await settled(caller, server)
                answered = AT_ONCE - len(failed)
                # The model's own count, and beside it what the CPU's says, which no counter can hide.
                by_cpu = (server.cpu() - spent) / of_one - answered
                bench.note("deadline", server.name, "", wasted=after - before - answered, wasted_by_cpu=by_cpu)
                bench.note("deadline", server.name, "", answered=answered)


async def runs(caller: Unary, server: Server) -> int:
    """How often the slow model has run."""
    asked = pb.ModelStatisticsRequest(name=SLOW_MODEL).SerializeToString()
    answer: bytes = await caller.channel.unary_unary(SERVICE + "ModelStatistics")(asked)
    return sum(one.execution_count for one in pb.ModelStatisticsResponse.FromString(answer).model_stats)


async def settled(caller: Unary, server: Server) -> int:
    """The same, once no run is under way any more: the server's CPU rests."""
    while True:
        spent = server.cpu()
        await asyncio.sleep(2 * SLOW)
        if server.cpu() - spent < SLOW / 4:
            return await runs(caller, server)


async def slots(bench: Bench) -> None:
    """The only place for a sequence is held by a caller that is killed: after how long another one has its answer."""
    x = np.random.default_rng(5).normal(size=(1, HIDDEN)).astype(np.float32)
    for at in range(bench.rounds):
        for server in bench.servers.values():
            for model in HELD:
                taken = await freed(server, model, x, number=2 * at + 1)
                bench.note(f"slot {model}", server.name, "s", freed=taken)


async def freed(server: Server, model: str, x: np.ndarray, number: int) -> float:
    """Seconds from the caller's end to the first answer of a new sequence."""
    first = infer(model, x, sequence_id=number, sequence_start=True)
    other = infer(model, x, sequence_id=number + 1, sequence_start=True, sequence_end=True)
    async with connected(server.address) as channel:
        with subprocess.Popen([sys.executable, LOST, server.address, first.hex()], stdout=subprocess.PIPE) as held:
            assert held.stdout is not None
            try:
                await asyncio.to_thread(held.stdout.readline)
                if server.name == OURS and not await refused(channel, other):
                    raise SystemExit("a sequence found a place although the only one is held")
            finally:
                held.kill()
                began = time.perf_counter()
            while True:
                with suppress(Refused):
                    await asyncio.wait_for(Stream(channel, other).call(), GIVEN_UP)
                    return time.perf_counter() - began
                await asyncio.sleep(PAUSE)


async def refused(channel: grpc.aio.Channel, request: bytes) -> bool:
    """Whether a request on a stream of its own is. Triton lets it wait instead."""
    try:
        await asyncio.wait_for(Stream(channel, request).call(), GIVEN_UP)
    except Refused:
        return True
    return False


async def reloads(bench: Bench) -> None:
    """One client asks for frames while the model is replaced by a new version: the worst call, and failed ones."""
    request = infer(FRAME, pixels())
    for at in range(bench.rounds):
        for server in bench.servers.values():
            next_version(bench.models / FOLDERS[server.name], at + 2)
            async with AsyncExitStack() as stack:
                caller = await unary(stack, server.address, request)
                control = await stack.enter_async_context(connected(server.address))
                await replaced(bench, server, caller, control)
                version = pb.ModelInferResponse.FromString(await caller.call()).model_version
                if version != str(at + 2):
                    raise SystemExit(f"{server.name} answers with version {version} after {at + 2} was loaded")


async def replaced(bench: Bench, server: Server, caller: Unary, control: grpc.aio.Channel) -> None:
    """One replacement."""
    calls: list[tuple[float, float]] = []  # when each ended, and how long it took
    failed = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal failed
        while not stop.is_set():
            began = time.perf_counter()
            try:
                await caller.call()
            except grpc.aio.AioRpcError:
                failed += 1
            ended = time.perf_counter()
            calls.append((ended, ended - began))

    asking = asyncio.create_task(ask())
    while len(calls) < FEWEST:
        await asyncio.sleep(bench.seconds)
    began = time.perf_counter()
    wish = pb.RepositoryModelLoadRequest(model_name=FRAME).SerializeToString()
    try:
        await control.unary_unary(SERVICE + "RepositoryModelLoad")(wish)
    except grpc.aio.AioRpcError as error:
        raise SystemExit(f"{server.name} loads no new version: {error.details()}; {server.state()}") from error
    loaded = time.perf_counter() - began
    await asyncio.sleep(AROUND)
    stop.set()
    await asking
    before = [took for ended, took in calls if ended < began]
    during = [took for ended, took in calls if ended >= began]
    last = before[-len(during) :]  # what is the worst of as many calls in which nothing is replaced
    p99 = float(np.percentile(before, 99)) * 1e3
    bench.note("reload", server.name, "ms", worst=max(during) * 1e3, p99_before=p99, worst_before=max(last) * 1e3)
    bench.note("reload", server.name, "", worst_to_p99=max(during) * 1e3 / p99)
    bench.note("reload", server.name, "s", load=loaded)
    bench.note("reload", server.name, "", failed=failed)
