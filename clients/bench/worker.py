"""One process of the generator: `python -m matchcut.bench.worker`, which takes a job and gives a tally.

It reads one pickled Job, says {"ready": true}, reads a line with the start time, and at last says {"tally": ...} or
{"failed": ...}; one line of JSON each. Another line, or the end of its input, stops it: a parent that is gone leaves
nobody to measure for. The jobs are its parent's own; it listens to nobody else.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import selectors
import signal
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from matchcut.bench import plan as plans
from matchcut.bench.calls import Callers
from matchcut.bench.drive import Bounds, drive
from matchcut.bench.errors import LoadError
from matchcut.bench.plan import Plan
from matchcut.bench.prepared import Prepared
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target

__all__ = ["Job", "loop", "main", "work"]

CONNECT = 10.0  # seconds that a channel may take to be ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process does: its share of a plan.

    channels: connections of this process. timeout: the deadline of each request. connect: how long to wait for the
    connections before all begins; in seconds.
    """

    target: Target
    prepared: tuple[Prepared, ...]
    plan: Plan
    bounds: Bounds
    timeout: float
    process: int = 0
    processes: int = 1
    channels: int = 1
    connect: float = CONNECT


def loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes up on time.

    The usual one waits in whole milliseconds, rounded up, which would add half of one to each latency; select() takes
    microseconds. That it knows no file descriptors above 1024 does no harm: gRPC gives it only one.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def work(job: Job, start: asyncio.Future[float], stop: asyncio.Event, ready: Any) -> Tally:
    """Connects, tells that it is ready, and drives its share from `start` on, by the loop's clock."""
    sends = plans.share(plans.make(job.plan), job.process, job.processes)
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(job.target.channel()) for _ in range(job.channels)]
        try:
            async with asyncio.timeout(job.connect):
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
        except TimeoutError:
            pass  # each request then says so, and is counted
        callers = Callers(
            channels,
            job.prepared,
            metadata=job.target.metadata,
            timeout=job.timeout,
            process=job.process,
            processes=job.processes,
        )
        try:
            await callers.open()
            ready()
            begins = callers.start = await start
            tally = await drive(sends, job.plan.mix.names, callers, start=begins, bounds=job.bounds, stop=stop)
        finally:
            await callers.close()
        tally.created = callers.created
        return tally


def main() -> int:
    """See the module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which asks for what there is
    # What a garbage collector of short generations would do to latencies is worse than the memory that it saves.
    gc.set_threshold(50_000, 20, 50)
    source, out = sys.stdin.buffer, sys.stdout.fileno()
    try:
        job: Job = pickle.load(source)
    except (EOFError, pickle.UnpicklingError):  # the parent was interrupted before it had told
        return 0
    with asyncio.Runner(loop_factory=loop) as runner:
        try:
            tally = runner.run(_served(job, source, out))
        except LoadError as error:
            _say(out, {"failed": error.message})
        else:
            if tally is not None:
                _say(out, {"tally": tally.encoded()})
    return 0


async def _served(job: Job, source: IO[bytes], out: int) -> Tally | None:
    """The tally; None where the parent was gone, or told to stop, before it had said when to start."""
    running = asyncio.get_running_loop()
    start: asyncio.Future[float] = running.create_future()
    stop = asyncio.Event()
    working = asyncio.ensure_future(work(job, start, stop, lambda: _say(out, {"ready": True})))

    def heard() -> None:
        # Past the buffer, which might keep a second line that nothing would then wake us for.
        lines = os.read(source.fileno(), 4096).split(b"\n")[:-1]
        if lines and not start.done():
            start.set_result(float(lines.pop(0)))
            if not lines:
                return
        running.remove_reader(source)
        stop.set()
        if not start.done():
            working.cancel()

    running.add_reader(source, heard)
    try:
        return await working
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        return None
    finally:
        running.remove_reader(source)


def _say(out: int, what: dict[str, Any]) -> None:
    left = memoryview(json.dumps(what).encode() + b"\n")
    with suppress(BrokenPipeError):  # nobody hears it any more
        while left:
            left = left[os.write(out, left) :]


if __name__ == "__main__":
    sys.exit(main())
