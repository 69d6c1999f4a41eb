"""Makes small trained session models for tests: a GRU of one gate over projected content and learnt ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import EncoderIdentity
from support import onnx_models

Floats = NDArray[np.float32]
WIDTH = 5


def weights(encoder: EncoderIdentity, dimensions: int, ids: int, seed: int, width: int = WIDTH) -> dict[str, Floats]:
    """All weights; the first row of `table` is of ids that were not learnt."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> Floats:
        drawn: Floats = (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        return drawn

    table = draw(ids + 1, dimensions)
    table[0] = 0
    gates = {"Wz": draw(dimensions, width), "Uz": draw(width, width), "Wn": draw(dimensions, width)}
    return {"P": draw(encoder.dimensions, dimensions), "table": table, **gates, "Q": draw(width, dimensions)}


def step(made: Mapping[str, Floats], x: Floats, h: Floats, w: Floats) -> tuple[Floats, Floats]:
    """What step.onnx computes: the state after an event each, and the query."""
    z = 1 / (1 + np.exp(-(x @ made["Wz"] + h @ made["Uz"])))
    n = np.tanh(x @ made["Wn"])
    after = h + w[:, np.newaxis] * (n + z * (h - n) - h)
    return after.astype(np.float32), (after @ made["Q"]).astype(np.float32)


def items_graph(made: Mapping[str, Floats]) -> Any:
    c, d = made["P"].shape
    node = onnx_models.node
    nodes = [
        node("MatMul", ["content", "P"], ["projected"]),
        node("Gather", ["table", "index"], ["learnt"]),
        node("Add", ["projected", "learnt"], ["vector"]),
    ]
    inputs: dict[str, onnx_models.Spec] = {"content": ("FP32", ("n", c)), "index": ("INT64", ("n",))}
    return onnx_models.model(
        nodes, inputs, {"vector": ("FP32", ("n", d))}, {name: made[name] for name in ("P", "table")}
    )


def step_graph(made: Mapping[str, Floats], more: Sequence[Any] = ()) -> Any:
    """more: nodes behind all others, which may make h_next of `after`."""
    width, d = made["Q"].shape
    node = onnx_models.node
    nodes = [
        node("MatMul", ["x", "Wz"], ["xz"]),
        node("MatMul", ["h", "Uz"], ["hz"]),
        node("Add", ["xz", "hz"], ["sz"]),
        node("Sigmoid", ["sz"], ["z"]),
        node("MatMul", ["x", "Wn"], ["xn"]),
        node("Tanh", ["xn"], ["n"]),
        node("Sub", ["h", "n"], ["hn"]),
        node("Mul", ["z", "hn"], ["zhn"]),
        node("Add", ["n", "zhn"], ["g"]),
        node("Sub", ["g", "h"], ["gh"]),
        node("Mul", ["w", "gh"], ["wgh"]),
        node("Add", ["h", "wgh"], ["after"]),
        *(more or [node("Identity", ["after"], ["h_next"])]),
        node("MatMul", ["h_next", "Q"], ["query"]),
    ]
    inputs: dict[str, onnx_models.Spec] = {
        "x": ("FP32", ("n", d)),
        "h": ("FP32", ("n", width)),
        "w": ("FP32", ("n", 1)),
    }
    outputs: dict[str, onnx_models.Spec] = {"h_next": ("FP32", ("n", width)), "query": ("FP32", ("n", d))}
    return onnx_models.model(nodes, inputs, outputs, {name: made[name] for name in ("Wz", "Uz", "Wn", "Q")})


def write(
    folder: Path,
    encoder: EncoderIdentity,
    *,
    dimensions: int = 4,
    ids: Sequence[str] = (),
    seed: int = 0,
    width: int = WIDTH,
    graphs: Mapping[str, Any] | None = None,
    toml: Mapping[str, object] | None = None,
) -> dict[str, Floats]:
    """Writes a version's folder, and returns the weights.

    Args:
        width: of the state.
        graphs: other graphs than the sound ones, by file name.
        toml: other values in session.toml; None takes one out; "encoder.digest" is in the table.
    """
    made = weights(encoder, dimensions, len(ids), seed, width)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"items.onnx": items_graph(made), "step.onnx": step_graph(made), **(graphs or {})}
    contents = {name: proto.SerializeToString() for name, proto in files.items()}
    contents["ids.txt"] = "".join(json.dumps(item_id) + "\n" for item_id in ids).encode()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    describe(folder, encoder, dimensions, contents, seed, {"width": width, **(toml or {})})
    return made


def describe(
    folder: Path,
    encoder: EncoderIdentity,
    dimensions: int,
    contents: Mapping[str, bytes],
    seed: int,
    other: Mapping[str, object],
) -> None:
    """Writes session.toml."""
    values: dict[str, object] = {
        "name": "small",
        "version": str(seed),
        "kind": "gru",
        "dimensions": dimensions,
        "width": WIDTH,
        "encoder.name": encoder.name,
        "encoder.version": encoder.version,
        "encoder.digest": encoder.digest,
        "encoder.dimensions": encoder.dimensions,
        "metrics.recall_at_10": 0.1,
        **{f'files."{name}"': hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        **other,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    (folder / "session.toml").write_text("\n".join(lines) + "\n")
