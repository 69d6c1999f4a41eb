"""Runs ONNX files in bfloat16 on ONNX Runtime, whose CPU kernels do not multiply in it: as a copy in float32.

The copy is made in memory when the file is refused for want of a kernel, and only then. Weights are widened exactly.
What an operator gives stays in float32; it is rounded only where the file has a Cast to bfloat16, and where it is an
input or output of the graph, which keep their types. Rounding after each operator too, as hardware in bfloat16 does,
was measured on EfficientNet-Lite0 with 17 of 49 convolutions left in float32, over 34 frames on an AMD EPYC (Zen 4,
one thread, batches of 8); the cosines are the least:

    what runs                          CPU ms a frame   to OpenVINO in bfloat16   to the encoder in float32
    rounded after every operator                 12.9                   0.99994                     0.99954
    the same, after the activations              11.5                   0.99994                     0.99954
    as here                                       9.8                   0.99994                     0.99955
    not rounded at all                            9.7                   0.99994                     0.99962
    the encoder in float32                        9.6                   0.99955                           1

So rounding after operators brings the vectors no nearer to OpenVINO's of the same file, and costs a fifth to a third
more; the casts cost nothing, and stay since the file says so. What is computed is float32, and the engines say so in
their names: such a file is as slow here as one in float32.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.errors import EngineFailed

__all__ = ["session", "widened"]

# TensorProto.DataType
FLOAT, BFLOAT16 = 1, 16
# Attributes of standard operators that hold such a number.
TYPES = frozenset(("dtype", "output_dtype", "output_datatype", "precision", "softmax_precision", "stash_type"))

log = logging.getLogger(__name__)


def session(model: Path | bytes, options: Any, *, name: str) -> Any:
    """An onnxruntime.InferenceSession on the CPU, of a copy in float32 where bfloat16 cannot be run.

    Args:
        model: an ONNX file, or its bytes.
        options: onnxruntime.SessionOptions.
        name: of the model, for the log.

    Raises:
        EngineFailed: there is no kernel for an operator and, onnx not being installed, no way to make a copy.
        ImportError: onnxruntime is not installed.
        Exception: ONNX Runtime's own, where it refuses the model, or the copy.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except NoKernel as error:
        try:
            copied = widened(model if isinstance(model, bytes) else model.read_bytes())
        except ImportError:
            raise EngineFailed(
                f"ONNX Runtime cannot load {name}: {error}; if bfloat16 is what it lacks, it runs the file in float32 "
                "where onnx is installed: pip install onnx",
                reason="ENGINE_NOT_INSTALLED",
            ) from error
        if copied is None:
            raise
    made = onnxruntime.InferenceSession(copied, options, providers=["CPUExecutionProvider"])
    log.info("%s is in bfloat16, in which ONNX Runtime cannot compute on CPUs: it runs in float32 here", name)
    return made


def widened(content: bytes) -> bytes | None:
    """The serialised ModelProto in float32 wherever it is in bfloat16, with its inputs and outputs as they were.

    None where nothing in it is in bfloat16.

    Raises:
        ImportError: onnx is not installed.
        Exception: protobuf's or onnx's own, where these bytes are no ONNX model.
    """
    import onnx.inliner

    model = onnx.load_from_string(content)
    if model.functions:  # in which types may be parameters
        model = onnx.inliner.inline_local_functions(model)
    copy = Widening(model, fresh=prefix(content))
    copy.run()
    wide: bytes = model.SerializeToString()
    return wide if copy.found else None


def prefix(content: bytes) -> str:
    """What no name in a model begins with."""
    made = "wide_"
    while made.encode() in content:
        made += "_"
    return made


class Widening:
    """Changes one model. `found`: whether anything in it was in bfloat16.

    Args:
        fresh: what no name in it begins with.
    """

    def __init__(self, model: Any, fresh: str) -> None:
        self.graph, self.fresh = model.graph, fresh
        self.found = False

    def run(self) -> None:
        """All of it."""
        graph = self.graph
        weights = {weight.name for weight in graph.initializer}  # may be listed as inputs too
        taken = [value for value in graph.input if value.name not in weights and is_bfloat16(value)]
        given = [value for value in graph.output if is_bfloat16(value)]
        self.widen(graph)
        self.rename(graph, {value.name for value in (*taken, *given)})
        for value in (*taken, *given):
            value.type.tensor_type.elem_type = BFLOAT16
        before = [cast(value.name, self.fresh + value.name, FLOAT) for value in taken]
        after = [cast(self.fresh + value.name, value.name, BFLOAT16) for value in given]
        replace(graph, [*before, *graph.node, *after])
        graph.ClearField("value_info")  # may tell of what has another name now

    def widen(self, part: Any) -> None:
        """A message and all messages within it."""
        import onnx

        if isinstance(part, onnx.NodeProto) and is_rounding(part):
            return  # stays as it is
        for field, value in part.ListFields():
            if field.message_type is not None:
                for each in [value] if hasattr(value, "ListFields") else value:
                    self.widen(each)
        if isinstance(part, onnx.TensorProto) and part.data_type == BFLOAT16:
            values = np.asarray(onnx.numpy_helper.to_array(part)).astype(np.float32)
            part.CopyFrom(onnx.numpy_helper.from_array(values, part.name))
        elif isinstance(part, onnx.TypeProto.Tensor) and part.elem_type == BFLOAT16:
            part.elem_type = FLOAT
        elif isinstance(part, onnx.AttributeProto) and part.name in TYPES and part.i == BFLOAT16:
            part.i = FLOAT
        elif isinstance(part, onnx.GraphProto) and any(map(is_rounding, part.node)):
            self.return_rounded(part)
        else:
            return
        self.found = True

    def return_rounded(self, graph: Any) -> None:
        """Has each Cast to bfloat16 followed by one back to float32."""
        nodes = []
        for node in graph.node:
            nodes.append(node)
            if is_rounding(node):
                name, node.output[0] = node.output[0], f"{self.fresh}rounded_{node.output[0]}"
                nodes.append(cast(node.output[0], name, FLOAT))
        replace(graph, nodes)

    def rename(self, graph: Any, names: set[str]) -> None:
        """Gives these tensors another name wherever they are made or used, also in graphs within this one."""
        for weight in graph.initializer:
            if weight.name in names:
                weight.name = self.fresh + weight.name
        for node in graph.node:
            for role in (node.input, node.output):
                role[:] = [self.fresh + name if name in names else name for name in role]
            for attribute in node.attribute:
                for within in (attribute.g, *attribute.graphs):
                    self.rename(within, names)


def is_bfloat16(value: Any) -> bool:
    """Whether an input or output is a tensor of it."""
    return bool(value.type.tensor_type.elem_type == BFLOAT16)


def is_rounding(node: Any) -> bool:
    """Whether a node does nothing but round to bfloat16."""
    return node.op_type == "Cast" and any(each.name == "to" and each.i == BFLOAT16 for each in node.attribute)


def cast(name: str, to: str, kind: int) -> Any:
    """A node that gives a tensor in another type under another name."""
    import onnx

    return onnx.helper.make_node("Cast", [name], [to], to=kind)  # ONNX Runtime wants names to differ, or none


def replace(graph: Any, nodes: list[Any]) -> None:
    """Gives a graph other nodes."""
    graph.ClearField("node")
    graph.node.extend(nodes)
