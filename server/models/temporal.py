"""The GRU that makes one vector of what a stream shows: the one that is given, or the one that is set by formula."""

from __future__ import annotations

from pathlib import Path

from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph, gru

__all__ = ["step"]


def step(path: Path | None, *, dimensions: int, half_life: float) -> graph.Graph:
    """The graph of one step.

    Args:
        path: of an ONNX file as gru.write makes them; None: a decaying mean.
        dimensions: of the embeddings; only for the latter.
        half_life: of that mean, in frames.

    Raises:
        EngineFailed: the file cannot be read, or the library that writes graphs is not installed.
        InvalidInput: the half-life is out of range.
    """
    if path is not None:
        return graph.read(path)
    try:
        content = gru.write(gru.decaying_mean(dimensions, half_life))
    except ImportError as error:
        raise EngineFailed(
            f'the GRU set by formula is written with {error.name}: pip install "matchcut[encoder]", or give a trained '
            "one with --gru",
            reason="GRU_MISSING",
        ) from error
    return graph.Graph(Path("gru-step.onnx"), content)
