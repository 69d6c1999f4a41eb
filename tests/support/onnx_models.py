"""Makes small ONNX files for tests: what they compute is plain from their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str | None] | None
Spec = tuple[str, Shape]  # type and shape; a shape of None: not said


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec],
    weights: Mapping[str, Any] | None = None,
) -> Any:
    """A ModelProto of these nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(*arguments: Any, **attributes: Any) -> Any:
    """A NodeProto: kind, inputs, outputs, attributes."""
    return helper.make_node(*arguments, **attributes)


def external_data(proto: Any, place: str) -> None:
    """Says of a model's first weight that it lies in another file."""
    external_data_helper.set_external_data(proto.graph.initializer[0], place, 0, 4)


def identity(kind: str = "FP32", shape: Shape = ("n", 3)) -> Any:
    """y is x."""
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def scale(factor: float = 2.0, shape: Shape = ("n", 3)) -> Any:
    """y is x times the factor, in float32."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    return model([node], {"x": ("FP32", shape)}, {"y": ("FP32", shape)}, {"factor": np.float32(factor)})


def running_sum(first: int | str = "n", factor: float = 1.0) -> Any:
    """Of a sequence: total_out is total_in + factor * x, and y the same."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Add", ["total_in", "scaled"], ["total_out"]),
        helper.make_node("Identity", ["total_out"], ["y"]),
    ]
    kind: Spec = ("FP32", (first, 2))
    return model(nodes, {"x": kind, "total_in": kind}, {"y": kind, "total_out": kind}, {"factor": np.float32(factor)})


def write(folder: Path, proto: Any, *, toml: str = "", file: str = "model.onnx") -> Path:
    """Writes a model, and the TOML beside it, which is left out where it is empty; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_bytes(proto.SerializeToString())
    path.with_suffix(".toml").unlink(missing_ok=True)
    if toml:
        path.with_suffix(".toml").write_text(toml)
    return path


def load(path: Path) -> Any:
    """A model from a file."""
    return onnx.load(path)
