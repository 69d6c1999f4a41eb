"""The open loop: each request goes out at its planned time, whatever has become of those before it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from matchcut.bench.plan import Send
from matchcut.bench.tally import Generator, Kind, Outcome, Tally

__all__ = ["Bounds", "Call", "drive"]

# Makes one request whose planned time, by the loop's clock, is given, and says what became of it.
Call = Callable[[Send, float], Awaitable[Outcome]]
LOOK = 0.01  # seconds between two looks at how late the event loop wakes up
TURN = 100  # requests that are too late which are counted before the loop has a turn: some tenths of a millisecond


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a run ends and what it gives up.

    seconds: how long is planned for. warmup: seconds at the beginning that are not measured. late: seconds after its
    planned time from which on a request is not sent any more but counted as missed. in_flight: how many may be under
    way at once; one that would be more is counted as missed. drain: seconds to wait for answers after the last planned
    time.
    """

    seconds: float
    warmup: float = 0.0
    late: float = 0.1
    in_flight: int = 1000
    drain: float = 11.0


async def drive(
    sends: Iterable[Send], names: Sequence[str], call: Call, *, start: float, bounds: Bounds, stop: asyncio.Event
) -> Tally:
    """Sends what is planned, counts what comes of it.

    Args:
        sends: sorted by time.
        names: of the kinds, by Send.kind.
        call: makes a request.
        start: the plan's beginning by the loop's clock.
        bounds: when to give up.
        stop: once set, nothing more is sent, what is under way is cancelled, and the tally is marked partial.

    Raises:
        Exception: what `call` raises, which is a defect: failures of requests are outcomes.
    """
    run = _Run(names, call, start, bounds)
    watch = asyncio.ensure_future(_watch_lag(run.generator))
    stopped: asyncio.Task[Any] = asyncio.ensure_future(stop.wait())
    cpu, thread, began = time.process_time(), time.thread_time(), time.perf_counter()
    # A collection of everything that was imported would stop the loop for longer than many a request takes.
    gc.collect()
    gc.freeze()
    try:
        await run.send_all(sends, stopped)
        await run.drain(stopped)
    finally:
        gc.unfreeze()
        watch.cancel()
        stopped.cancel()
        run.cancel()
        await asyncio.gather(watch, stopped, *run.tasks, return_exceptions=True)
    took = max(time.perf_counter() - began, 1e-9)
    run.generator.cpu = (time.process_time() - cpu) / took
    run.generator.thread = (time.thread_time() - thread) / took
    if run.defect is not None:
        raise run.defect
    run.end(stopped=stop.is_set())
    return run.tally


class _Run:
    """A run under way."""

    def __init__(self, names: Sequence[str], call: Call, start: float, bounds: Bounds) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._start = start
        self._bounds = bounds
        self._names = names
        self.generator = Generator()
        self.tally = Tally(kinds={name: Kind() for name in names}, generators=[self.generator])
        self.tasks: set[asyncio.Task[None]] = set()
        self.defect: BaseException | None = None
        self._last = start

    async def send_all(self, sends: Iterable[Send], stopped: asyncio.Task[Any]) -> None:
        """Starts each request when it is due."""
        behind = 0
        for send in sends:
            due = self._start + send.at
            # What is too late already needs no turn of the loop, or a plan beyond all means would take many times as
            # long as it says.
            behind = behind + 1 if self._late(due) else 0
            if behind % TURN == 0:
                await self._until(due, stopped)
            if stopped.done() or self.defect is not None:
                return
            kind = self._planned(send)
            if self._late(due):
                self._missed(send, kind, "late")
            elif len(self.tasks) >= self._bounds.in_flight:
                self._missed(send, kind, "full")
            else:
                if kind is not None:
                    kind.sent += 1
                task = self._loop.create_task(self._one(send, due, kind))
                self.tasks.add(task)
                task.add_done_callback(self._ended)

    async def drain(self, stopped: asyncio.Task[Any]) -> None:
        """Waits for the answers that are still out."""
        until = self._loop.time() + self._bounds.drain
        while self.tasks and not stopped.done() and (left := until - self._loop.time()) > 0:
            waiting: set[asyncio.Task[Any]] = {*self.tasks, stopped}
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def cancel(self) -> None:
        """Gives up what is under way."""
        for task in self.tasks:
            task.cancel()

    def _late(self, due: float) -> bool:
        return self._loop.time() - due > self._bounds.late

    async def _until(self, due: float, stopped: asyncio.Task[Any]) -> None:
        wait = due - self._loop.time()
        if wait <= 0:
            await asyncio.sleep(0)  # answers have to be taken in even where sending is behind
        elif wait < 1:
            await asyncio.sleep(wait)
        else:
            await asyncio.wait({stopped}, timeout=wait)

    async def _one(self, send: Send, due: float, kind: Kind | None) -> None:
        try:
            outcome = await self._call(send, due)
        except asyncio.CancelledError:
            if kind is not None:
                kind.unfinished += 1
                self.tally.mark(int(send.at), 1)
            else:
                self.tally.warmup["unfinished"] += 1
            raise
        if kind is None:
            self.tally.warmup[outcome.status] += 1
            return
        begin = self._start + self._bounds.warmup
        outcome.samples = [sample for sample in outcome.samples if sample.due >= begin]
        kind.add(outcome)
        self.tally.mark(int(send.at), 0 if outcome.ok else 1)
        if outcome.samples:
            self.generator.lateness.add(outcome.samples[0].sent - outcome.samples[0].due)
        if outcome.ok:
            self._last = self._loop.time()

    def end(self, *, stopped: bool) -> None:
        """Notes how long was measured for: to the end of the plan, or to the last success where that came later."""
        planned = self._start + self._bounds.seconds
        end = min(planned, self._loop.time()) if stopped else planned
        self.tally.seconds = max(0.0, max(end, self._last) - self._start - self._bounds.warmup)
        self.tally.partial = stopped

    def _planned(self, send: Send) -> Kind | None:
        """Where to count a request; nowhere in the warm-up, which a stream may outlast."""
        if (send.frames[-1] if send.frames else send.at) < self._bounds.warmup:
            return None
        kind = self.tally.kinds[self._names[send.kind]]
        kind.planned += 1
        return kind

    def _missed(self, send: Send, kind: Kind | None, why: str) -> None:
        if kind is None:
            self.tally.warmup[f"missed: {why}"] += 1
            return
        setattr(kind, why, getattr(kind, why) + 1)
        self.tally.mark(int(send.at), 2)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self.defect is None:
            self.defect = error


async def _watch_lag(generator: Generator) -> None:
    """Notes by how much the loop wakes up late, until it is cancelled."""
    loop = asyncio.get_running_loop()
    with suppress(asyncio.CancelledError):
        while True:
            before = loop.time()
            await asyncio.sleep(LOOK)
            generator.lag.add(loop.time() - before - LOOK)
