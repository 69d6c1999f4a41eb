"""Starts the generator's processes at the same instant and adds up what they counted."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
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
        _heard(workers, "ready")
        # time.monotonic() is the clock of asyncio's loops and the same in all processes of a machine.
        start = time.monotonic() + HEAD_START
        for worker in workers:
            worker.tell(f"{start!r}\n".encode())
        try:
            found = _heard(workers, "tally")
        except KeyboardInterrupt:
            for worker in workers:
                worker.tell(b"stop\n")
            found = _heard(workers, "tally")
        return Tally.merged(map(Tally.decoded, found))


def _heard(workers: Sequence[_Worker], key: str) -> list[Any]:
    """What each says under this key, once all have. One that has died is noticed at once, whoever else still works.

    What was heard is kept, so that Ctrl-C meanwhile loses nothing.

    Raises:
        WorkerDied, LoadError: one cannot say it any more.
    """
    with selectors.DefaultSelector() as ready:
        for worker in workers:
            if key not in worker.said:
                ready.register(worker.output, selectors.EVENT_READ, worker)
        while any(key not in worker.said for worker in workers):
            for entry, _ in ready.select():
                entry.data.listen()
                if key in entry.data.said:
                    ready.unregister(entry.fd)
    return [worker.said[key] for worker in workers]


class _Worker:
    """A process; leaving the block ends it."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self._buffer = b""
        # In a session of its own, so that a terminal's Ctrl-C comes to this process alone; one that is sent to the
        # worker is blocked from its first instruction on. Here it waits until the process is known.
        command = [sys.executable, "-m", "matchcut.bench.worker"]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    @property
    def output(self) -> int:
        """The file descriptor that it writes to."""
        return self._out.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._in.close()  # which stops it, where it still runs
        self._out.close()  # which lets it end, whatever it still had to say
        try:
            self._process.wait(KILL_AFTER)
        except BaseException as error:  # it takes too long, or Ctrl-C says that it does
            self._process.kill()
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def tell(self, what: bytes) -> None:
        """Sends it something."""
        left = memoryview(what)
        with suppress(BrokenPipeError):  # it has died, which the answer that is missing tells
            while left:
                left = left[os.write(self._in.fileno(), left) :]

    def listen(self) -> None:
        """Takes in what it has written, and waits where that is nothing yet.

        Raises:
            WorkerDied: it has ended.
            LoadError: it says that it cannot do its job.
        """
        more = os.read(self.output, 1 << 16)
        if not more:
            code = self._process.wait()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}; the reason is above"
            raise WorkerDied(f"a process of the load generator ended {how}")
        *lines, self._buffer = (self._buffer + more).split(b"\n")
        for line in lines:
            self.said |= json.loads(line)
        if "failed" in self.said:
            raise LoadError(self.said["failed"])
