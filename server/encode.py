"""Frames to embeddings, in small batches, with frames that hardly change encoded once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from matchcut.server.blanks import is_blank
from matchcut.server.clock import Clock
from matchcut.server.feed import Caller
from matchcut.server.records import Cut, Embedding, Floats, Frame, MediaReport, Pixels
from matchcut.server.sight import EMBEDDING, Sight
from matchcut.server.stills import StillGate

__all__ = ["Encoding"]


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
        batch: frames of one request in one run of the engine at most; memory grows with it.
        still: see StillGate.
    """

    def __init__(self, sight: Sight, *, batch: int, still: float) -> None:
        self._sight = sight
        self._size = min(batch, sight.most)
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
            with clock("preprocess"):
                pictures = np.stack(batch.frames)
            answer = self._sight(pictures, clock=clock, caller=caller, client=client)
            vectors = list(answer.outputs[EMBEDDING])
        done: list[Embedding | Cut] = []
        for event in batch.events:
            if isinstance(event, Cut):
                done.append(event)
                continue
            vector = vectors[event[1]] if event[1] >= 0 else last
            assert vector is not None, "the first frame is never a still one"
            done.append(Embedding(event[0], vector))
        return done, vectors[-1] if vectors else last
