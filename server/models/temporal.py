"""The GRU that makes one vector of what a stream shows: the one that is given, or the one that is set by formula."""

from __future__ import annotations

from pathlib import Path

from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph, graph_signature, gru

__all__ = ["check", "step"]

Shape = tuple[int | None, ...]


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


def check(path: Path, *, dimensions: int) -> None:
    """Checks by its signature that a file is the step of a GRU over embeddings; no engine is loaded for that.

    Sizes of the output that the file does not give, which an engine may infer, are left to it.

    Args:
        dimensions: of the embeddings, which the states are compared with, too.

    Raises:
        EngineFailed: it is not, or cannot be read.
    """
    signature = graph_signature.read(graph.read(path).content)
    every = {tensor.name: tensor for tensor in (*signature.inputs, *signature.outputs)}
    names = [tensor.name for tensor in signature.inputs], [tensor.name for tensor in signature.outputs]
    wanted: Shape = (None, dimensions)
    if (
        names != ([gru.INPUT, gru.STATE], [gru.NEXT])
        or any(tensor.element != graph_signature.FLOAT for tensor in every.values())
        or every[gru.INPUT].shape != wanted
        or every[gru.STATE].shape != wanted
        or every[gru.NEXT].shape not in ((), wanted, (None, None))
    ):
        shapes = ", ".join(f"{tensor.name} {_sizes(tensor)}" for tensor in every.values())
        raise EngineFailed(
            f"{path} has inputs {names[0]} and outputs {names[1]} ({shapes}); the step of a GRU over the encoder's "
            f"embeddings takes {gru.INPUT} and {gru.STATE} and gives {gru.NEXT}, each (n, {dimensions}) in float32, n "
            "open: give --gru such a file, or leave it out",
            reason="MODEL_INVALID",
        )


def _sizes(tensor: graph_signature.Tensor) -> str:
    sizes = ", ".join("n" if size is None else str(size) for size in tensor.shape)
    return f"({sizes})" if tensor.element == graph_signature.FLOAT else f"({sizes}) of another type than float32"
