"""The default encoder as it is, for those who train the GRU alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines, models
from matchcut.server.models import Encoder
from matchcut.server.records import Floats, Pixels
from matchcut.server.training.progress import Bar

__all__ = ["frozen"]

BATCH = 8


def frozen(
    cache: Path | None, threads: int, bar: Bar
) -> tuple[Callable[[Pixels], Floats], Encoder, Callable[[], None]]:
    """What makes vectors of length 1, (t, dimensions), of frames; the encoder; and what frees its engine.

    Args:
        cache: the folder where the encoder's file is or is made; None: the default one.

    Raises:
        EngineFailed: the encoder cannot be made or loaded.
    """
    from matchcut.server import config

    folder = cache or config.load({}).cache
    encoder = models.load(models.default_encoder(folder, bar.say))
    engine = engines.load(encoder, engine="onnxruntime", threads=threads)

    def encode(frames: Pixels) -> Floats:
        parts = [frames[begin : begin + BATCH] for begin in range(0, len(frames), BATCH)]
        vectors = np.concatenate(
            [engine.run(preprocess(part, encoder.mean, encoder.std, encoder.layout)) for part in parts]
        )
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return unit

    return encode, encoder, engine.close
