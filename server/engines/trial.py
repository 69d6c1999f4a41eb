"""Measures engines against each other on this very CPU, with real pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from matchcut.kernels.preprocess import preprocess
from matchcut.server.engines.base import Engine
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats, Pixels

__all__ = ["GATE", "Trial", "compare", "frames"]

FRAMES = Path(__file__).parent / "frames"
GATE = 0.999  # least cosine to float32 that an engine must keep on every frame
BATCHES = (1, 8)  # live video and files
ROUNDS = 6


@dataclass(slots=True)
class Trial:
    """What was found out about an engine.

    cpu_ms: CPU milliseconds a frame, the best of a few rounds, by batch size; {} where it was not timed.
    cosine: the least cosine to float32 over the frames.
    fault: why it is out of the question; "" where it is not.
    """

    variant: str
    cpu_ms: dict[int, float] = field(default_factory=dict)
    cosine: float = 0.0
    fault: str = ""

    @property
    def cost(self) -> float:
        """CPU milliseconds a frame, the mean over the batch sizes; infinite where it is out of the question."""
        return float("inf") if self.fault or not self.cpu_ms else sum(self.cpu_ms.values()) / len(self.cpu_ms)

    def __str__(self) -> str:
        return f"{self.variant} {self.fault or f'{self.cost:.1f} ms'}"


def frames(encoder: Encoder) -> Floats:
    """The eight pictures, stretched to the encoder's size and preprocessed: (8, ...) float32 in its layout."""
    size = (encoder.input.width, encoder.input.height)
    pictures: list[Pixels] = []
    for path in sorted(FRAMES.glob("*.jpg")):
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)))
    return preprocess(np.stack(pictures), encoder.mean, encoder.std, encoder.layout)


def compare(engines: Sequence[Engine], batch: Floats) -> list[Trial]:
    """Checks each engine against the first one, then times those that pass, in turns so that all meet the same noise.

    Args:
        engines: the first one is the yardstick: float32.
        batch: the frames, at least as many as the largest batch size.
    """
    trials = [Trial(engine.variant) for engine in engines]
    exact: Floats | None = None
    for engine, trial in zip(engines, trials, strict=True):
        try:
            found = engine.run(batch)
        except EngineFailed as error:
            trial.fault = error.message
            continue
        exact = found if exact is None else exact
        trial.cosine = least_cosine(found, exact)
        if not trial.cosine >= GATE:
            trial.fault = f"cosine {trial.cosine:.4f} < {GATE}"
    contest = [pair for pair in zip(engines, trials, strict=True) if not pair[1].fault]
    for size in BATCHES * ROUNDS:
        for engine, trial in contest:
            spent = cpu_ms(engine, batch[:size])
            trial.cpu_ms[size] = min(spent, trial.cpu_ms.get(size, spent))
    return trials


def least_cosine(found: Floats, exact: Floats) -> float:
    """The least cosine between rows of the same number."""
    a, b = found.astype(np.float64), exact.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min((a * b).sum(axis=1) / lengths))


def cpu_ms(engine: Engine, batch: Floats) -> float:
    """CPU milliseconds a frame, all threads together: what a busy server runs out of."""
    began = time.process_time()
    engine.run(batch)
    return (time.process_time() - began) * 1e3 / len(batch)
