"""An engine behind a batcher: what is left of a model when nobody may ask for it any more."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Hashable
from dataclasses import replace

import numpy as np

from matchcut.server.batcher import Batcher, Watcher
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.serving.checks import check_outputs
from matchcut.server.serving.contract import Answer
from matchcut.server.serving.tally import Tally
from matchcut.server.tensors import DTYPES, Tensor, Tensors, TensorSpec

__all__ = ["Runner"]

BRIEF = 200e-6  # seconds of a run that takes less than to have a thread make it
LONG = 5e-3  # seconds of its thread's CPU time that a brief run must not take
STALLED = 50e-3  # seconds that it must not take by the clock, which goes on while other programs have the core
PAUSE = 1.0  # seconds for which a model that did is not brief
LIGHT = 64 << 10  # bytes of all inputs and outputs of a row at most, for the same
Specs = tuple[TensorSpec, ...]
log = logging.getLogger(__name__)


class Runner:
    """Runs a graph for several callers together. Safe to be used by several threads at once.

    tally: what it did since it was warm.

    Args:
        engine: becomes the runner's own.
        label: of the model and version, for messages and metrics.
        max_batch: most rows of one run; 0: the first size counts no rows, and each request runs alone.
        queue: rows, or requests, that may wait at most.
        workers: runs at once at most.
        specs: inputs and outputs, where sizes that the graph leaves open are known; the engine's otherwise.
    """

    def __init__(
        self,
        engine: GraphEngine,
        *,
        label: str,
        max_batch: int,
        queue: int,
        workers: int,
        watcher: Watcher | None = None,
        specs: tuple[Specs, Specs] | None = None,
    ) -> None:
        self.tally = Tally()
        self.closed = threading.Event()
        self._engine = engine
        self._label = label
        self._batches = max_batch > 0
        self._inputs, self._outputs = specs or (engine.inputs, engine.outputs)
        self._light = engine.steady and is_light((*self._inputs, *self._outputs), batches=self._batches)
        self._brief_from = 0.0  # time.monotonic()
        self._batcher = Batcher(
            self._run, name=label, most=max(max_batch, 1), queue=queue, workers=workers, watcher=watcher
        )

    def warm_up(self) -> None:
        """Runs zeros of every number of rows that may be joined, and measures which are worth it.

        Raises:
            EngineFailed: it failed. Where the graph leaves sizes open or takes text, zeros are only a guess, and a
                failure is a line in the log.
        """
        rows = 1 if self._batches else None
        example = {spec.name: blank(spec, rows) for spec in self._inputs}
        try:
            if self._batches and self._batcher.most > 1:
                self._run({name: np.concatenate([value, value]) for name, value in example.items()})
            self._batcher.tune(example if self._batches else expanded(example))
        except (EngineFailed, InvalidInput) as error:
            if not any(guessed(spec, self._batches) for spec in self._inputs):
                raise EngineFailed(f"a first run with zeros failed: {error.message}", reason=error.reason) from error
            log.warning("%s: a first run with guessed sizes failed, so it starts cold: %s", self._label, error.message)
        self.tally = Tally()

    def submit(self, inputs: Tensors, *, caller: Caller, client: Hashable = None) -> Answer:
        """Runs the inputs, together with others' where some wait. See Batcher.submit."""
        if self._batches:
            return self._batcher.submit(inputs, caller=caller, client=client)
        answer = self._batcher.submit(expanded(inputs), caller=caller, client=client)
        return replace(answer, outputs=reduced(answer.outputs))

    @property
    def brief(self) -> bool:
        """Whether a run of one row is sure to be over in no time, so that an event loop may make it.

        How long it takes must be known, and be the same whatever is in the inputs; and the last one was not long.
        """
        return self._light and 0 < self._batcher.seconds(1) < BRIEF and time.monotonic() >= self._brief_from

    def at_once(self, inputs: Tensors, *, caller: Caller) -> Answer | None:
        """As submit(), of one row, for one who never waits: None, and nothing was done, where it would have to.

        One that took long, for whatever reason, is the last for a while: so all of them together hold an event loop up
        for one such run in each second at most.
        """
        began, spent = time.monotonic(), time.thread_time()
        try:
            if self._batches:
                return self._batcher.at_once(inputs, caller=caller)
            answer = self._batcher.at_once(expanded(inputs), caller=caller)
            return None if answer is None else replace(answer, outputs=reduced(answer.outputs))
        finally:
            now = time.monotonic()
            if time.thread_time() - spent > LONG or now - began > STALLED:
                self._brief_from = now + PAUSE

    def close(self) -> None:
        """Frees the engine once the runs under way have ended. May be called twice."""
        self._batcher.close()
        self._engine.close()
        self.closed.set()

    def _run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """One run of the engine."""
        rows = len(next(iter(inputs.values())))
        began = time.perf_counter_ns()
        outputs = self._engine.run(inputs if self._batches else reduced(inputs))
        check_outputs(self._label, self._outputs, outputs, rows=rows if self._batches else None)
        self.tally.ran(rows, time.perf_counter_ns() - began)
        return outputs if self._batches else expanded(outputs)


def blank(spec: TensorSpec, rows: int | None) -> Tensor:
    """Zeros, or empty texts, of a shape that fits; open sizes are 1."""
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    if rows is not None:
        shape = (rows, *shape[1:])
    return np.full(shape, b"", DTYPES["BYTES"]) if spec.dtype == "BYTES" else np.zeros(shape, DTYPES[spec.dtype])


def guessed(spec: TensorSpec, batches: bool) -> bool:
    """Whether zeros might be refused by a model that is all right."""
    return spec.dtype == "BYTES" or -1 in spec.shape[1 if batches else 0 :]


def is_light(specs: Collection[TensorSpec], *, batches: bool) -> bool:
    """Whether one row of all these has a fixed size, and a small one."""
    rows = [spec.shape[1 if batches else 0 :] for spec in specs]
    if any(spec.dtype == "BYTES" for spec in specs) or any(-1 in row for row in rows):
        return False
    return sum(math.prod(row) * DTYPES[spec.dtype].itemsize for spec, row in zip(specs, rows, strict=True)) <= LIGHT


def expanded(tensors: Tensors) -> dict[str, Tensor]:
    """The same as the one row of a batch."""
    return {name: value[np.newaxis] for name, value in tensors.items()}


def reduced(tensors: Tensors) -> dict[str, Tensor]:
    """The one row of a batch."""
    return {name: value.reshape(value.shape[1:]) for name, value in tensors.items()}
