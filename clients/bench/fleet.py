"""Starts the generator's processes at the same instant and adds up what they counted."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self

from matchcut.bench.errors import LoadError, WorkerDied
from matchcut.bench.tally import Tally
from matchcut.bench.worker import Job

__all__ = ["run"]

HEAD_START = 0.05  # seconds from the word to the plan's beginning: time for all processes to hear it
KILL_AFTER = 10.0  # seconds that a process that was told to stop may take


def run(jobs: Sequence[Job]) -> Tally:
    """Runs each job in a process of its own; Ctrl-C gives what was counted so far, marked partial.

    Raises:
        WorkerDied: a process ended without its tally.
        LoadError: one says why it could not do its job.
        KeyboardInterrupt: a second Ctrl-C, or the first before anything was sent.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker()) for _ in jobs]
        for worker, job in zip(workers, jobs, strict=True):
            worker.tell(pickle.dumps(job))
        for worker in workers:
            worker.hear("ready")
        # time.monotonic() is the clock of asyncio's loops and the same in all processes of a machine.
        start = time.monotonic() + HEAD_START
        for worker in workers:
            worker.tell(f"{start!r}\n".encode())
        try:
            return _gathered(workers)
        except KeyboardInterrupt:
            for worker in workers:
                worker.tell(b"stop\n")
            return _gathered(workers)


def _gathered(workers: Sequence[_Worker]) -> Tally:
    return Tally.merged([Tally.decoded(worker.hear("tally")) for worker in workers])


class _Worker:
    """A process; leaving the block ends it."""

    def __init__(self) -> None:
        # In a session of its own, so that a terminal's Ctrl-C comes to this process alone.
        command = [sys.executable, "-m", "matchcut.bench.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._buffer = b""
        self._said: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._in.close()  # which stops it, where it still runs
        try:
            self._process.wait(KILL_AFTER)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def tell(self, what: bytes) -> None:
        """Sends it something."""
        left = memoryview(what)
        with suppress(BrokenPipeError):  # it has died, which the answer that is missing tells
            while left:
                left = left[os.write(self._in.fileno(), left) :]

    def hear(self, key: str) -> Any:
        """What it says under this key, once it does. What was heard is kept, so that Ctrl-C between two loses nothing.

        Raises:
            WorkerDied, LoadError: it cannot say it any more.
        """
        while key not in self._said:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._said |= json.loads(line)
                self._buffer = rest
            elif more := os.read(self._out.fileno(), 1 << 16):
                self._buffer += more
            else:
                code = self._process.wait()
                how = f"by signal {-code}" if code < 0 else f"with exit code {code}; the reason is above"
                raise WorkerDied(f"a process of the load generator ended {how}")
            if "failed" in self._said:
                raise LoadError(self._said["failed"])
        return self._said[key]
