"""Callers that come, leave, run out of time and send poison, all at once: each is told and nothing is left behind."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from matchcut.server.batcher import Batcher
from matchcut.server.errors import Cancelled, DeadlineExceeded, MatchcutError, Overloaded
from matchcut.server.feed import Caller
from support.batching import PATIENCE, Arrays, Record, rows

THREADS, EACH = 12, 60


class Model:
    """Doubles its rows in a moment, and fails on rows that are not finite."""

    def __init__(self) -> None:
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, inputs: Arrays) -> Arrays:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.0005)
        with self._lock:
            self.running -= 1
        if not np.isfinite(inputs["x"]).all():
            raise ValueError("not finite")
        return {"y": inputs["x"] * 2}


@dataclass
class Tally:
    """What came of the requests of a thread."""

    answered: int = 0
    wrong: int = 0
    gone: int = 0
    late: int = 0
    refused: int = 0
    poisoned: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.answered + self.gone + self.late + self.refused + self.poisoned + self.other


def send(batcher: Batcher, tally: Tally, seed: int, start: threading.Barrier) -> None:
    """One client's requests, one after the other; of some the caller leaves, some have little time, some are poison."""
    dice = random.Random(seed)
    start.wait(PATIENCE)
    for at in range(EACH):
        value, count, fate = float(seed * EACH + at), dice.randint(1, 4), dice.random()
        caller = Caller(time.monotonic() + dice.random() * 0.003 if fate < 0.15 else None)
        leaving = threading.Timer(dice.random() * 0.002, caller.leave)
        if 0.15 <= fate < 0.35:
            leaving.start()
        poison = 0.35 <= fate < 0.45
        try:
            answer = batcher.submit(rows(*[float("nan") if poison else value] * count), caller=caller, client=seed)
            tally.answered += 1
            tally.wrong += poison or answer.outputs["y"].tolist() != [[2 * value]] * count
        except Cancelled:
            tally.gone += 1
        except DeadlineExceeded:
            tally.late += 1
        except Overloaded:
            tally.refused += 1
        except ValueError:
            tally.poisoned += 1
            tally.wrong += not poison
        except MatchcutError:
            tally.other += 1
        if leaving.ident is not None:
            leaving.join(PATIENCE)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_storm_leaves_nothing_behind(workers: int) -> None:
    model, record = Model(), Record()
    batcher = Batcher(model, name="storm", most=6, queue=20, workers=workers, watcher=record)
    start = threading.Barrier(THREADS)
    tallies = [Tally() for _ in range(THREADS)]
    threads = [
        threading.Thread(target=send, args=(batcher, tally, seed, start), daemon=True)
        for seed, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a caller was never told"
    assert all(tally.total == EACH for tally in tallies)
    assert sum(tally.wrong + tally.other for tally in tallies) == 0
    assert min(sum(getattr(tally, name) for tally in tallies) for name in ("answered", "gone", "poisoned")) > 0
    assert max(record.batches) <= 6
    assert model.most_running <= workers
    closing = threading.Thread(target=batcher.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive(), "a place was never given back"
    record.waiting(0)
