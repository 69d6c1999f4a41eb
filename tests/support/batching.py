"""What tests of the batcher share: a model that stands still until it is let go, a watcher, callers in threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from matchcut.server.batcher import Answer, Batcher
from matchcut.server.feed import Caller
from matchcut.server.tensors import Tensor

PATIENCE = 30.0  # seconds until a test that hangs fails

Arrays = dict[str, Tensor]


def rows(*values: float) -> Arrays:
    """Inputs of one number a row."""
    return {"x": np.array(values, np.float32)[:, None]}


class Gated:
    """A model that doubles its rows. Each run waits until it is let through, and fails on rows that are not finite.

    runs: the rows of each run that has begun. threads: which made it. during: called in each run, once it may go on.
    """

    def __init__(self, *, open: bool = False, during: Callable[[], None] = lambda: None) -> None:
        self.runs: list[list[float]] = []
        self.threads: list[threading.Thread] = []
        self.during = during
        self._open = open
        self._begun = threading.Semaphore(0)
        self._allowed = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        with self._lock:
            self.runs.append(x.reshape(len(x), -1)[:, 0].tolist())
            self.threads.append(threading.current_thread())
        self._begun.release()
        if not self._open:
            assert self._allowed.acquire(timeout=PATIENCE), "a run was never let through"
        self.during()
        if not np.isfinite(x).all():
            raise ValueError("not finite")
        return {"y": x * 2}

    def begun(self) -> None:
        """Waits until one more run has begun."""
        assert self._begun.acquire(timeout=PATIENCE), "no run began"

    def let(self, runs: int = 1) -> None:
        """Lets so many runs through, those that stand still first."""
        self._allowed.release(runs)

    def open(self) -> None:
        """Lets all runs through from now on."""
        self._open = True
        self.let(1000)


class Record:
    """A Watcher that writes everything down."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.wasted = 0
        self.waits: list[float] = []
        self.dropped_by: Counter[str] = Counter()
        self._rows = 0
        self._changed = threading.Condition()

    def ran(self, model: str, rows: int, seconds: float, *, wasted: bool) -> None:
        self.batches.append(rows)
        self.wasted += wasted

    def waited(self, model: str, seconds: float) -> None:
        self.waits.append(seconds)

    def dropped(self, model: str, reason: str) -> None:
        self.dropped_by[reason] += 1

    def queued(self, model: str, rows: int) -> None:
        with self._changed:
            self._rows = rows
            self._changed.notify_all()

    def waiting(self, rows: int) -> None:
        """Waits until so many rows wait."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._rows == rows, PATIENCE), f"{self._rows} rows wait, not {rows}"


def doubler(run: Gated, *, most: int = 8, queue: int = 64, workers: int = 1, record: Record | None = None) -> Batcher:
    """A batcher of that model."""
    return Batcher(run, name="doubler", most=most, queue=queue, workers=workers, watcher=record)


class Asking(threading.Thread):
    """A thread that submits and keeps what came of it."""

    def __init__(
        self, batcher: Batcher, inputs: Arrays, *, caller: Caller | None = None, client: Hashable = None
    ) -> None:
        super().__init__(daemon=True)
        self.caller = caller or Caller()
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self._ask = lambda: batcher.submit(inputs, caller=self.caller, client=client)
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._ask()
        except BaseException as error:
            self.error = error

    def over(self) -> Asking:
        """Waits for its end."""
        self.join(PATIENCE)
        assert not self.is_alive(), "it never came back"
        return self

    def result(self) -> Answer:
        """The answer, waited for."""
        self.over()
        if self.error is not None:
            raise AssertionError("it failed") from self.error
        assert self.answer is not None
        return self.answer

    def values(self) -> list[float]:
        """The first number of each row of the answer."""
        y = self.result().outputs["y"]
        return [float(value) for value in y.reshape(len(y), -1)[:, 0]]

    def failure(self) -> BaseException:
        """What was raised, waited for."""
        self.over()
        assert self.error is not None, f"it was answered: {self.answer}"
        return self.error


def queue_up(
    batcher: Batcher, record: Record, inputs: Sequence[Arrays], *, clients: Sequence[Hashable] = (), waiting: int = 0
) -> list[Asking]:
    """Submits one after the other, each once those before it wait; the batcher has to be busy.

    Args:
        clients: by request; none: each is a client of its own.
        waiting: rows that wait already.
    """
    asking = []
    for at, one in enumerate(inputs):
        asking.append(Asking(batcher, one, client=clients[at] if clients else None))
        waiting += len(one["x"])
        record.waiting(waiting)
    return asking
