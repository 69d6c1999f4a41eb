"""What a batcher runs, gives and tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from matchcut.server.tensors import Tensor

__all__ = ["Answer", "Quiet", "Run", "Watcher"]

# Inputs by name to outputs by name; all have the same number of rows, which is their first size.
Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run gave.

    outputs: by name. batch: how many rows ran together with this request's, its own included. The times are in
    nanoseconds: waiting for the run, making the joint input, the run itself, taking the own rows out of it.
    """

    outputs: dict[str, Tensor]
    batch: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int


class Watcher(Protocol):
    """Is told what a batcher does, with its name, while the batcher holds its lock: must be quick and never raise."""

    def ran(self, model: str, rows: int, seconds: float, *, wasted: bool) -> None:
        """A run ended. wasted: at its end none of its callers waited any longer."""
        ...

    def waited(self, model: str, seconds: float) -> None:
        """A request waited so long for its run to begin."""
        ...

    def dropped(self, model: str, reason: str) -> None:
        """A request was given up before it was computed; `reason` as MatchcutError has it."""
        ...

    def queued(self, model: str, rows: int) -> None:
        """So many rows wait now."""
        ...


class Quiet:
    """A Watcher that nobody listens to."""

    def ran(self, model: str, rows: int, seconds: float, *, wasted: bool) -> None:
        """See Watcher."""

    def waited(self, model: str, seconds: float) -> None:
        """See Watcher."""

    def dropped(self, model: str, reason: str) -> None:
        """See Watcher."""

    def queued(self, model: str, rows: int) -> None:
        """See Watcher."""
