"""An ONNX graph as the precision tool sees it: read, checked, its products found, run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.errors import EngineFailed
from matchcut.server.records import Floats

__all__ = ["PRODUCTS", "Feed", "elements", "opset", "parts", "products", "read", "run", "serialised"]

# The operations that multiply by weights: where the time goes, and where the precision is decided.
PRODUCTS = ("Conv", "Gemm", "MatMul")
BATCH = 8

Feed = Floats | Mapping[str, Floats]


def read(path: Path) -> Any:
    """An onnx.ModelProto with a name for every node.

    Raises:
        EngineFailed: it cannot be read, is no valid ONNX, has control flow or functions, or is not of float32.
        ImportError: onnx is not installed.
    """
    import onnx

    def wrong(what: str) -> EngineFailed:
        return EngineFailed(f"{path}: {what}", reason="ENCODER_INVALID")

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise wrong(f"it is not valid ONNX: {error}") from error
    if model.functions or any(attribute.g.ByteSize() for node in model.graph.node for attribute in node.attribute):
        raise wrong("it has control flow or functions, whose precision is not written here; export it without")
    floats = {"FLOAT16", "BFLOAT16", "DOUBLE"}
    if odd := sorted(name for name, kind in elements(model).items() if onnx.TensorProto.DataType.Name(kind) in floats):
        raise wrong(f"{odd[0]!r} is not float32; give the encoder from which this one was made")
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise wrong("it is quantised already; give the encoder from which this one was made")
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for at, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = next(name for name in (f"{node.op_type}_{at}", f"{node.op_type}_{at}_") if name not in taken)
        seen.add(node.name)
    return model


def elements(model: Any) -> dict[str, int]:
    """The TensorProto.DataType of every tensor, weights included; those that ONNX cannot tell are absent."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {
        info.name: info.type.tensor_type.elem_type
        for infos in (graph.input, graph.value_info, graph.output)
        for info in infos
    }
    return kinds | {weight.name: weight.data_type for weight in graph.initializer}


def opset(model: Any) -> int:
    """The version of the standard operators."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)


def products(model: Any) -> list[str]:
    """The nodes that multiply by weights on the way to the first output, in order.

    Those that only other outputs need are left out, as nothing is judged by these.
    """
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    needed = {graph.output[0].name}
    on_the_way = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            if node.op_type in PRODUCTS and weights & set(node.input):
                on_the_way.append(node.name)
    return on_the_way[::-1]


def serialised(model: Any) -> bytes:
    """The checked model as bytes, which are the same for the same model.

    Raises:
        EngineFailed: what was made is not valid, which is a mistake of the tool.
    """
    import onnx

    data: bytes = model.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(data, full_check=True)
    except Exception as error:
        raise EngineFailed(f"the graph that was made is not valid ONNX: {error}", reason="PRECISION_FAILED") from error
    return data


def run(model: Any, batch: Feed, *, exactly: bool = True) -> Floats:
    """The first output (n, dimensions) for n pictures, by ONNX Runtime on the CPU.

    Args:
        model: an onnx.ModelProto.
        batch: see parts().
        exactly: node by node as the graph says, so that every rounding in it takes place and the figures do not depend
            on the CPU; else as fast as it can.

    Raises:
        EngineFailed: it cannot be run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if exactly:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        wanted = [session.get_outputs()[0].name]
        runs = (session.run(wanted, part)[0] for part in parts(model, batch, BATCH))
        return np.concatenate([np.asarray(found, np.float32) for found in runs])
    except Exception as error:
        raise EngineFailed(f"ONNX Runtime cannot run the graph: {error}", reason="PRECISION_FAILED") from error


def parts(model: Any, batch: Feed, size: int) -> Iterator[dict[str, Floats]]:
    """What goes into the model, so many rows at a time.

    Args:
        batch: (n, ...) float32 for the only input; by name where there are several.
    """
    feed = batch if isinstance(batch, Mapping) else {model.graph.input[0].name: batch}
    for start in range(0, len(next(iter(feed.values()))), size):
        yield {name: rows[start : start + size] for name, rows in feed.items()}
