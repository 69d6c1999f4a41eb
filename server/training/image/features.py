"""Vectors of the default encoder, computed once, since it does not change while a last layer is learnt on them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.models import Encoder, graph
from matchcut.server.records import Floats
from matchcut.server.training.image.samples import PictureSamples
from matchcut.server.training.progress import Bar

__all__ = ["vectors"]

BATCH = 8  # pictures; ONNX Runtime is no faster with more


def vectors(encoder: Encoder, samples: PictureSamples, *, views: int, seed: int, threads: int, bar: Bar) -> Floats:
    """(views, n, dimensions) float32: the first view is of the pictures as they are, the others of changed ones.

    Args:
        samples: normalised as the encoder wants it.
        threads: of one run; 0 takes all cores.

    Raises:
        EngineFailed: the encoder cannot be loaded or run.
    """
    engine = GraphEngine(graph.read(encoder.path), threads=threads)
    count = len(samples.labels)
    found = np.empty((views, count, encoder.identity.dimensions), np.float32)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_009)
    starts = [(view, start) for view in range(views) for start in range(0, count, BATCH)]
    try:
        for view, start in bar.track(starts, "features"):
            rows: NDArray[np.int64] = np.arange(start, min(start + BATCH, count))
            pictures = samples.batch(rows, generator if view else None).numpy()
            made = engine.run({engine.inputs[0].name: pictures})
            found[view, rows] = made[engine.outputs[0].name]
    finally:
        engine.close()
    return found
