"""The loop that a server is built around, without the server: the same stages with the same options. For compare.py.

    python tests/bench/bare.py ENCODER.onnx ENGINE CACHE BATCH STILL

Lines of JSON in and out: {"add": NAME, "path": ..., "rate": ...} or {"path": ..., "rate": ...}, which is answered
with the names of the items, best first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import SERVING

from matchcut.kernels.device import open_device
from matchcut.server import decode, engines, models
from matchcut.server.blanks import is_blank
from matchcut.server.records import Cut, Floats, Frame, MediaLimits, MediaReport, Pixels, Sampling, ShotMode
from matchcut.server.segments import SegmentBounds, Segmenter
from matchcut.server.shots import watch
from matchcut.server.stills import StillGate

MOST = 10


class Bare:
    """An encoder and what it has seen."""

    def __init__(self, path: Path, *, engine: str, cache: Path, batch: int, still: float) -> None:
        self._engine = engines.load(models.load(path), engine=engine, threads=1, cache=cache)
        self._device = open_device()
        self._batch, self._still = batch, still
        self._names: list[str] = []
        self._rows = np.empty((0, self._engine.encoder.identity.dimensions), np.float32)
        self._groups = np.empty(0, np.int64)

    def add(self, name: str, path: Path, rate: float) -> None:
        """Puts an item in."""
        vectors = self._vectors(path, Sampling(rate, shots=ShotMode.EXACT))
        self._rows = np.concatenate([self._rows, vectors])
        self._groups = np.concatenate([self._groups, np.full(len(vectors), len(self._names), np.int64)])
        self._names.append(name)

    def ask(self, path: Path, rate: float) -> list[str]:
        """The best items."""
        vectors = self._vectors(path, Sampling(rate, shots=ShotMode.COARSE))
        found = self._device.search(vectors, self._rows, groups=self._groups, k=MOST)
        return [self._names[int(group)] for _, group, _, _ in found]

    def _vectors(self, path: Path, sampling: Sampling) -> Floats:
        """One for each segment: decode, preprocess, encode, segment, pool."""
        encoder, report = self._engine.encoder, MediaReport()
        segmenter, gate = Segmenter(SegmentBounds()), StillGate(self._still)
        frames: list[Pixels] = []
        events: list[Cut | tuple[int, int]] = []
        vector: Sequence[Floats] = ()

        def flush() -> None:
            nonlocal vector
            if frames:
                pixels = self._device.preprocess(np.stack(frames), encoder.mean, encoder.std, encoder.layout)
                vector = [*vector[-1:], *self._engine.run(pixels)]
            for event in events:
                if isinstance(event, Cut):
                    segmenter.cut(event.time_us)
                else:
                    segmenter.frame(event[0], vector[event[1] - 1 - len(frames)])
            frames.clear()
            events.clear()

        with path.open("rb") as file:
            limits = MediaLimits()
            pictures = decode.pictures(file, size=encoder.input, sampling=sampling, limits=limits, report=report)
            for event in watch(pictures, sampling.shots):
                if isinstance(event, Frame):
                    if is_blank(event.rgb):
                        continue
                    if not gate.same(event.rgb):
                        frames.append(event.rgb)
                    events.append((event.time_us, len(frames)))
                else:
                    events.append(event)
                if len(frames) == self._batch:
                    flush()
            flush()
        parts = segmenter.parts(report.duration_us)
        offsets = np.cumsum([0, *(len(part.vectors) for part in parts)], dtype=np.int64)
        weights = np.concatenate([part.weights for part in parts])
        return self._device.pool(np.concatenate([part.vectors for part in parts]), offsets, weights=weights)


def main() -> None:
    """Answers until the input ends."""
    path, engine, cache, batch, still = sys.argv[1:]
    bare = Bare(Path(path), engine=engine, cache=Path(cache), batch=int(batch), still=float(still))
    print(f"bare: {SERVING}its standard input", flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        if "add" in wish:
            bare.add(wish["add"], Path(wish["path"]), wish["rate"])
            print("[]", flush=True)
        else:
            print(json.dumps(bare.ask(Path(wish["path"]), wish["rate"])), flush=True)


if __name__ == "__main__":
    main()
