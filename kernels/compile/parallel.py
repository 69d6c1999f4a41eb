"""Many compilations at a time, each in a process of its own choosing to die in."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from matchcut.kernels.compile.one import Fault, Made, complaint, make, what_it_said
from matchcut.kernels.compile.targets import Gpu


@dataclass(frozen=True, slots=True)
class Task:
    """One kernel for one GPU. key: of the kernel as it is to be compiled."""

    module: str
    name: str
    key: str
    gpu: Gpu

    def __str__(self) -> str:
        return f"{self.name} for sm_{self.gpu.capability}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: files by target, or why there are none; and the seconds that it took."""

    task: Task
    made: dict[str, Made]
    seconds: float = 0.0
    fault: str = ""


class Crew:
    """Processes that compile, each started when there is work for it, and anew after the compiler has crashed.

    Each thread has a process of its own: so it is known which kernel a crash belongs to, and no other suffers.
    """

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._own = threading.local()
        self._all: list[ProcessPoolExecutor] = []

    def run(self, task: Task) -> Outcome:
        """Compiles it, and waits until that is done."""
        if getattr(self._own, "process", None) is None:
            # "spawn": a fork of a process with threads can hang, and a compiler is to start with nothing of ours.
            self._own.process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._all.append(self._own.process)
        said = what_it_said(self._cache, task.name, task.gpu)
        job = task.module, task.name, task.key, task.gpu, self._cache
        try:
            made, seconds = self._own.process.submit(make, *job).result()
        except BrokenProcessPool:
            self._own.process = None
            return Outcome(task, {}, fault=f"the compiler crashed{complaint(said)}")
        except Fault as fault:
            return Outcome(task, {}, fault=str(fault))
        return Outcome(task, made, seconds)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._all:
            process.shutdown(wait=True, cancel_futures=True)


def outcomes(tasks: Sequence[Task], jobs: int) -> Iterator[Outcome]:
    """All of them, in the order in which they are done."""
    with tempfile.TemporaryDirectory(prefix="matchcut-triton-") as cache:
        crew = Crew(cache)
        threads = ThreadPoolExecutor(jobs)
        try:
            waiting: list[Future[Outcome]] = [threads.submit(crew.run, task) for task in tasks]
            for future in as_completed(waiting):
                yield future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            crew.close()
