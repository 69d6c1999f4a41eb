"""Counts what a served model does."""

from __future__ import annotations

import copy
import threading
import time

from matchcut.server.serving.contract import Answer, Durations, Statistics

__all__ = ["Tally"]


class Tally:
    """The statistics of one version, filled by several threads."""

    def __init__(self) -> None:
        self._counted = Statistics()
        self._lock = threading.Lock()

    def ran(self, rows: int, nanoseconds: int) -> None:
        """The engine ran once, with so many rows."""
        with self._lock:
            self._counted.executions += 1
            add(self._counted.batches.setdefault(rows, Durations()), nanoseconds)

    def answered(self, answer: Answer, rows: int, nanoseconds: int) -> None:
        """A request of so many rows was answered, after so long in all."""
        with self._lock:
            counted = self._counted
            counted.last_inference_ms = time.time_ns() // 1_000_000
            counted.inferences += rows
            add(counted.success, nanoseconds)
            add(counted.queue, answer.queue_ns)
            add(counted.input, answer.input_ns)
            add(counted.infer, answer.infer_ns)
            add(counted.output, answer.output_ns)

    def failed(self, nanoseconds: int) -> None:
        """A request was not answered, after so long in all."""
        with self._lock:
            add(self._counted.failure, nanoseconds)

    def copy(self) -> Statistics:
        """The statistics as they are now."""
        with self._lock:
            return copy.deepcopy(self._counted)


def add(durations: Durations, nanoseconds: int) -> None:
    durations.count += 1
    durations.total_ns += nanoseconds
