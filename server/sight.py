"""Pictures to embeddings, in runs of the engine that all requests share."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Hashable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.kernels.device import Device
from matchcut.server.batcher import Answer, Batcher, Measured, Watcher
from matchcut.server.clock import Clock
from matchcut.server.engines import Engine, SeeingEngine, cores, memory, registry
from matchcut.server.feed import Caller
from matchcut.server.records import Pixels
from matchcut.server.tensors import Tensor

__all__ = ["EMBEDDING", "PIXELS", "Sight", "shared", "tune"]

KIND = "batch"  # of measurement, beside the choice of engine
WARM = 3  # runs of each size
log = logging.getLogger(__name__)
# What a batcher of an encoder takes, one or the other, and gives.
PICTURES, PIXELS, EMBEDDING, PREPROCESSED = "pictures", "pixels", "embedding", "preprocess_ns"


def shared(engine: Engine, *, most: int, queue: int, workers: int = 1, watcher: Watcher | None = None) -> Batcher:
    """A batcher of the engine, to EMBEDDING from PIXELS, see Engine.run, or from PICTURES, see SeeingEngine.see."""

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if PICTURES in inputs and isinstance(engine, SeeingEngine):
            vectors, spent = engine.see(inputs[PICTURES])
            return {EMBEDDING: vectors, PREPROCESSED: np.full(len(vectors), spent, np.int64)}
        return {EMBEDDING: engine.run(inputs[PIXELS])}

    name = engine.encoder.identity.name
    return Batcher(run, name=name, most=most, queue=queue, workers=workers, watcher=watcher)


def tune(batcher: Batcher, engine: Engine, *, threads: int = 0, cache: Path | None = None) -> int:
    """Lets a batcher of shared() measure its engine; returns how many frames are worth joining.

    Args:
        threads: of one run; 0: all cores.
        cache: where the measurement is remembered, if the engine is one of the CPU's; None measures each time.
    """
    size = engine.encoder.input
    example: dict[str, Tensor] = {PIXELS: np.zeros(engine.encoder.shape(1), np.float32)}
    if isinstance(engine, SeeingEngine):
        example = {PICTURES: np.zeros((1, size.height, size.width, 3), np.uint8)}
    if isinstance(engine, SeeingEngine):
        warm_up(engine, batcher.most)
    if cache is None or engine.variant not in registry.VARIANTS:
        return batcher.tune(example).size
    facts = {
        **memory.facts(engine.encoder, threads or cores()),
        "variant": engine.variant,
        "most": batcher.most,
    }
    remembered = _recalled(memory.read(cache, KIND, facts))
    found = batcher.tune(example, remembered)
    if found is not remembered:
        try:
            memory.write(cache, KIND, facts, asdict(found))
        except OSError as error:
            log.warning("the size of runs cannot be remembered, it is measured at each start: %s", error)
    return found.size


def warm_up(engine: SeeingEngine, most: int) -> None:
    """Runs all sizes that requests are joined up to, so that none is measured, or waited for, that sets itself up.

    Kernels are compiled at the first run of a size, launches recorded at the second.
    """
    log.info("warming up %s for up to %d pictures at once; compiling kernels takes long", engine.variant, most)
    size, at = engine.encoder.input, 1
    while True:
        for _ in range(WARM):
            engine.see(np.zeros((at, size.height, size.width, 3), np.uint8))
        if at == most:
            return
        at = min(2 * at, most)


def _recalled(kept: Mapping[str, Any]) -> Measured | None:
    """A measurement as it was written; None where it is not there or not one."""
    try:
        seconds = {int(rows): float(value) for rows, value in kept["seconds"].items()}
        found = Measured(int(kept["size"]), seconds)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    sane = all(rows >= 1 and math.isfinite(value) and value > 0 for rows, value in seconds.items())
    return found if sane and found.size in seconds else None


class Sight:
    """Embeds pictures of the encoder's size; safe to be used by several threads at once.

    An engine that preprocesses on its own device gets them as they are. For all others a device does that before.

    Args:
        batcher: of the engine; see shared().
    """

    def __init__(self, engine: Engine, batcher: Batcher, device: Device) -> None:
        self._engine, self._batcher, self._device = engine, batcher, device
        self._sight = engine.sight if isinstance(engine, SeeingEngine) else ""
        self.most = batcher.most

    def __call__(self, pictures: Pixels, *, clock: Clock, caller: Caller, client: Hashable = None) -> Answer:
        """The answer to pictures, with EMBEDDING; preprocessing counts as input.

        Args:
            pictures: (n, height, width, 3) uint8 RGB; not changed meanwhile.
            clock: is told of the stages "preprocess", "queue" and "encode".
            caller, client: see Batcher.submit.

        Raises:
            MatchcutError: as Batcher.submit.
        """
        if self._sight:
            inputs: dict[str, Tensor] = {PICTURES: pictures}
        else:
            encoder = self._engine.encoder
            with clock("preprocess"):
                began = time.perf_counter_ns()
                inputs = {PIXELS: self._device.preprocess(pictures, encoder.mean, encoder.std, encoder.layout)}
                spent = time.perf_counter_ns() - began
        with clock("encode"):
            answer = self._batcher.submit(inputs, caller=caller, client=client)
        clock.move(answer.queue_ns, "encode", "queue")
        if self._sight:
            spent = int(answer.outputs[PREPROCESSED][0])
            clock.move(spent, "encode", "preprocess")
            answer = replace(answer, infer_ns=answer.infer_ns - spent)
        clock.note("preprocess", variant=self._sight or self._device.variant, frames=len(pictures))
        clock.note("encode", variant=self._engine.variant, frames=len(pictures), runs=1, batched=answer.batch)
        return replace(answer, input_ns=answer.input_ns + spent)
