"""Callers that ask one system, and what that took: CPU of its processes, waits, clips a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import numpy as np
from compare_systems import System


@dataclass(slots=True)
class Load:
    """What so many callers at once took. waits: seconds of each clip. cpu, client_cpu: seconds of all clips together.

    firsts: what was answered first, by clip. seconds: from the first question to the last answer.
    """

    callers: int
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    client_cpu: float = 0.0
    firsts: dict[str, str] = field(default_factory=dict)

    @property
    def cpu_per_clip(self) -> float:
        """Seconds of the system's processes for each clip."""
        return self.cpu / len(self.waits)


def load(system: System, callers: int, clips: Sequence[str]) -> Load:
    """Asks with the clips, each caller with the next one as soon as it has its answer.

    Raises:
        SystemExit: a caller failed, or a clip was not answered with itself first.
    """
    taken, failed = Load(callers), []
    left, lock, start = iter(clips), threading.Lock(), threading.Barrier(callers + 1)

    def work() -> None:
        try:
            with system.caller() as ask:
                start.wait()
                while (clip := take()) is not None:
                    began = time.perf_counter()
                    names = ask(clip)
                    wait = time.perf_counter() - began
                    with lock:
                        taken.waits.append(wait)
                        taken.firsts[clip] = names[0]
        except BaseException as error:
            failed.append(error)
            start.abort()

    def take() -> str | None:
        with lock:
            return next(left, None)

    with ExitStack() as stack:
        for _ in range(callers):
            thread = threading.Thread(target=work)
            thread.start()
            stack.callback(thread.join)
        with suppress(threading.BrokenBarrierError):
            start.wait()
        cpu, client, began = system.cpu(), time.process_time(), time.perf_counter()
    taken.seconds = time.perf_counter() - began
    taken.cpu, taken.client_cpu = system.cpu() - cpu, time.process_time() - client
    if failed:
        raise SystemExit(f"{system.name} failed: {failed[0]!r}")
    if wrong := {clip: first for clip, first in taken.firsts.items() if first != clip}:
        raise SystemExit(f"{system.name} answers {wrong} first, not the clips themselves")
    return taken


def one_by_one(systems: Sequence[System], clips: Sequence[str]) -> list[Load]:
    """Each clip to one system after the other, one caller: so near in time that they meet the same noise.

    Returns what all clips together took, by system; see `load`.
    """
    whole = [Load(1) for _ in systems]
    for clip in clips:
        for system, taken in zip(systems, whole, strict=True):
            one = load(system, 1, [clip])
            taken.waits += one.waits
            taken.firsts |= one.firsts
            taken.seconds += one.seconds
            taken.cpu += one.cpu
            taken.client_cpu += one.client_cpu
    return whole


def percentiles(loads: Sequence[Load]) -> tuple[float, float, float]:
    """p50, p95 and p99 of all waits, in milliseconds."""
    waits = [wait for each in loads for wait in each.waits]
    p50, p95, p99 = np.percentile(waits, (50, 95, 99)) * 1e3
    return float(p50), float(p95), float(p99)
