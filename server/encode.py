"""Frames to embeddings, in small batches, with frames that hardly change encoded once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.kernels.device import Device
from matchcut.server.batcher import Batcher, Measured, Watcher
from matchcut.server.blanks import is_blank
from matchcut.server.clock import Clock
from matchcut.server.engines import Engine, cores, memory, registry
from matchcut.server.feed import Caller
from matchcut.server.records import Cut, Embedding, Floats, Frame, MediaReport, Pixels
from matchcut.server.stills import StillGate
from matchcut.server.tensors import Tensor

__all__ = ["Encoding", "shared", "tune"]

KIND = "batch"  # of measurement, beside the choice of engine
log = logging.getLogger(__name__)
PIXELS, EMBEDDING = "pixels", "embedding"  # what a batcher of an encoder takes and gives


def shared(engine: Engine, *, most: int, queue: int, workers: int = 1, watcher: Watcher | None = None) -> Batcher:
    """A batcher of the engine, from "pixels" (see Engine.run) to "embedding"."""

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {EMBEDDING: engine.run(inputs[PIXELS])}

    name = engine.encoder.identity.name
    return Batcher(run, name=name, most=most, queue=queue, workers=workers, watcher=watcher)


def tune(batcher: Batcher, engine: Engine, *, threads: int = 0, cache: Path | None = None) -> int:
    """Lets a batcher of shared() measure its engine; returns how many frames are worth joining.

    Args:
        threads: of one run; 0: all cores.
        cache: where the measurement is remembered, if the engine is one of the CPU's; None measures each time.
    """
    example = {PIXELS: np.zeros(engine.encoder.shape(1), np.float32)}
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


def _recalled(kept: Mapping[str, Any]) -> Measured | None:
    """A measurement as it was written; None where it is not there or not one."""
    try:
        seconds = {int(rows): float(value) for rows, value in kept["seconds"].items()}
        found = Measured(int(kept["size"]), seconds)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    sane = all(rows >= 1 and math.isfinite(value) and value > 0 for rows, value in seconds.items())
    return found if sane and found.size in seconds else None


@dataclass(slots=True)
class Batch:
    """Frames that wait for one run of the engine, and what happened between them.

    events: in order of time, a cut or (time_us, row of the frame that was or will be encoded for it).
    """

    frames: list[Pixels] = field(default_factory=list)
    events: list[Cut | tuple[int, int]] = field(default_factory=list)


class Encoding:
    """The preprocess and encode stages of the pipeline.

    Args:
        batcher: of the engine; see shared().
        batch: frames of one request in one run of the engine at most; memory grows with it.
        still: see StillGate.
    """

    def __init__(self, engine: Engine, batcher: Batcher, device: Device, *, batch: int, still: float) -> None:
        self._engine = engine
        self._batcher = batcher
        self._device = device
        self._size = min(batch, batcher.most)
        self._still = still

    def __call__(
        self,
        events: Generator[Frame | Cut, None, None],
        *,
        idle: Callable[[], bool],
        clock: Clock,
        report: MediaReport,
        caller: Caller,
        client: Hashable = None,
    ) -> Generator[Embedding | Cut, None, None]:
        """The same events with an embedding for each frame; order and times stay.

        Frames that show nothing are left out; where all do, the last of them stands for all.

        Args:
            idle: True when the next frame would have to be waited for: what is at hand is then encoded at once.
            caller: who waits for it.
            client: see Batcher.submit.

        Raises:
            MatchcutError: as Batcher.submit.
        """
        encode = partial(self._run, clock=clock, caller=caller, client=client)
        gate = StillGate(self._still)
        batch = Batch()
        last: Floats | None = None
        blank: Frame | None = None
        with closing(events):
            for event in events:
                if isinstance(event, Cut):
                    batch.events.append(event)
                    continue
                with clock("preprocess"):
                    nothing = is_blank(event.rgb)
                    same = not nothing and gate.same(event.rgb)
                if nothing:
                    report.frames_blank += 1
                    blank = event
                    continue
                report.frames_used += 1
                if same:
                    report.frames_reused += 1
                else:
                    batch.frames.append(event.rgb)
                batch.events.append((event.time_us, len(batch.frames) - 1))
                if len(batch.frames) == self._size or len(batch.events) >= 8 * self._size or idle():
                    embeddings, last = encode(batch, last)
                    yield from embeddings
                    batch = Batch()
        if blank and not report.frames_used:
            report.frames_used = 1
            batch.frames.append(blank.rgb)
            batch.events.append((blank.time_us, 0))
        yield from encode(batch, last)[0]

    def _run(
        self, batch: Batch, last: Floats | None, *, clock: Clock, caller: Caller, client: Hashable
    ) -> tuple[list[Embedding | Cut], Floats | None]:
        """Encodes a batch; row -1 stands for `last`, the vector encoded before it."""
        vectors: list[Floats] = []
        if batch.frames:
            encoder = self._engine.encoder
            with clock("preprocess"):
                pixels = self._device.preprocess(np.stack(batch.frames), encoder.mean, encoder.std, encoder.layout)
            with clock("encode"):
                answer = self._batcher.submit({PIXELS: pixels}, caller=caller, client=client)
            clock.move(answer.queue_ns, "encode", "queue")
            vectors = list(answer.outputs[EMBEDDING])
            clock.note("preprocess", variant=self._device.variant, frames=len(vectors))
            clock.note("encode", variant=self._engine.variant, frames=len(vectors), runs=1, batched=answer.batch)
        done: list[Embedding | Cut] = []
        for event in batch.events:
            if isinstance(event, Cut):
                done.append(event)
                continue
            vector = vectors[event[1]] if event[1] >= 0 else last
            assert vector is not None, "the first frame is never a still one"
            done.append(Embedding(event[0], vector))
        return done, vectors[-1] if vectors else last
