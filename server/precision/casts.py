"""Writes half precision into an ONNX graph: weights in float16 or bfloat16, casts where float32 begins and ends.

TensorRT from version 11 on, and TensorRT for RTX, build "strongly typed" engines only: each operation is computed in
the type that the graph gives it. Inputs and outputs of the graph stay float32.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from matchcut.kernels.preprocess import bfloat16_bits
from matchcut.server.errors import EngineFailed
from matchcut.server.precision import network

__all__ = ["Half", "emulated", "lowered"]

Half = Literal["fp16", "bf16"]

# Before this version of the operators, convolutions and poolings had no bfloat16.
BFLOAT16_OPSET = 22
# Their attributes decide the type of what they give.
TYPED = {"Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"}


def lowered(model: Any, half: Half, keep: Collection[str] = ()) -> Any:
    """A copy of a float32 model that computes in half precision from some node on.

    Args:
        model: an onnx.ModelProto from network.read(); not changed.
        keep: names of products that stay float32, and with them all nodes before the first product that does not. A
            rounding error grows on its way through a network, so that it is the first layers that need float32.

    Raises:
        EngineFailed: a weight is too large for float16, or the operators cannot be brought to the version that knows
            bfloat16.
    """
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if half == "bf16" and network.opset(model) < BFLOAT16_OPSET:
        try:
            copied = onnx.version_converter.convert_version(copied, BFLOAT16_OPSET)
        except Exception as error:
            raise EngineFailed(
                f"the operators cannot be converted to version {BFLOAT16_OPSET}, which bfloat16 needs: {error}; export "
                "the encoder with that version, or take fp16",
                reason="PRECISION_FAILED",
            ) from error
        copied.ir_version = max(copied.ir_version, 10)
    return Lowering(copied, half).from_node(first_product(copied, keep))


def first_product(model: Any, keep: Collection[str]) -> int:
    """The place of the first product that is not kept."""
    return next(
        (at for at, node in enumerate(model.graph.node) if node.op_type in network.PRODUCTS and node.name not in keep),
        len(model.graph.node),
    )


class Lowering:
    """Changes one model."""

    def __init__(self, model: Any, half: Half) -> None:
        import onnx

        self.model, self.half = model, half
        self.to = onnx.TensorProto.FLOAT16 if half == "fp16" else onnx.TensorProto.BFLOAT16
        self.tag = "tensor(float16)" if half == "fp16" else "tensor(bfloat16)"
        self.version = network.opset(model)
        self.elements = network.elements(model)
        self.weights = {weight.name: weight for weight in model.graph.initializer}
        self.halves: dict[str, str] = {}  # what a tensor of float32 is called in half precision
        self.nodes: list[Any] = []
        self.made: list[Any] = []

    def from_node(self, start: int) -> Any:
        """The model with all nodes from that place on in half precision, as far as ONNX allows it for each."""
        import onnx

        graph = self.model.graph
        low: set[str] = set()  # tensors that are given in half precision only
        for at, node in enumerate(graph.node):
            variables = self.variables(node) if at >= start else set()
            if not variables:
                for place, name in enumerate(node.input):
                    if name in low:
                        node.input[place] = self.raised(name)
                self.nodes.append(node)
                continue
            formal = onnx.defs.get_schema(node.op_type, self.version, node.domain).inputs
            for place, name in enumerate(node.input):
                # The last formal parameter stands for all that follow.
                if self.is_float(name) and formal[min(place, len(formal) - 1)].type_str in variables:
                    node.input[place] = self.lowered(name)
                elif name in low:
                    node.input[place] = self.raised(name)
            for place, name in enumerate(node.output):
                if self.is_float(name):
                    low.add(name)
                    node.output[place] = self.halves[name] = f"{name}_{self.half}"
            self.nodes.append(node)
        for output in graph.output:
            if output.name in low:
                self.nodes.append(self.cast(self.halves[output.name], output.name, onnx.TensorProto.FLOAT))
        self.rebuild()
        return self.model

    def variables(self, node: Any) -> set[str]:
        """The type variables of a node that may be in half precision; none where its result may not."""
        import onnx

        if node.op_type in TYPED or not any(self.is_float(name) for name in node.output):
            return set()
        schema = onnx.defs.get_schema(node.op_type, self.version, node.domain)
        able = {each.type_param_str for each in schema.type_constraints if self.tag in each.allowed_type_strs}
        given = zip(node.output, schema.outputs, strict=False)
        return able if all(formal.type_str in able for name, formal in given if self.is_float(name)) else set()

    def is_float(self, name: str) -> bool:
        import onnx

        return bool(name) and self.elements.get(name) == onnx.TensorProto.FLOAT

    def lowered(self, name: str) -> str:
        """What a float32 tensor is called in half precision, made where there is none yet."""
        if name not in self.halves:
            self.halves[name] = f"{name}_{self.half}"
            if name in self.weights:
                self.made.append(self.weight(name))
            else:
                self.nodes.append(self.cast(name, self.halves[name], self.to))
        return self.halves[name]

    def raised(self, name: str) -> str:
        """A tensor of half precision in float32 again."""
        import onnx

        there = f"{name}_fp32"
        if there not in self.elements:
            self.elements[there] = onnx.TensorProto.FLOAT
            self.nodes.append(self.cast(self.halves[name], there, onnx.TensorProto.FLOAT))
        return there

    def cast(self, name: str, to: str, kind: int) -> Any:
        import onnx

        return onnx.helper.make_node("Cast", [name], [to], name=f"cast_{to}", to=kind)

    def weight(self, name: str) -> Any:
        """A weight in half precision.

        Raises:
            EngineFailed: it holds numbers that are too large.
        """
        import onnx

        values = onnx.numpy_helper.to_array(self.weights[name])
        if self.half == "fp16" and values.size and np.abs(values).max() > np.finfo(np.float16).max:
            raise EngineFailed(
                f"the weight {name!r} holds numbers beyond {np.finfo(np.float16).max:g}, too large for float16; take "
                "bf16",
                reason="PRECISION_FAILED",
            )
        bits = values.astype(np.float16) if self.half == "fp16" else bfloat16_bits(values)
        return onnx.helper.make_tensor(self.halves[name], self.to, values.shape, bits.tobytes(), raw=True)

    def rebuild(self) -> None:
        """Puts the new nodes and weights into the graph; weights that nothing uses any more go."""
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input} | {output.name for output in graph.output}
        kept = [weight for weight in graph.initializer if weight.name in used]
        for field, values in (("node", self.nodes), ("initializer", kept + self.made), ("value_info", [])):
            graph.ClearField(field)
            getattr(graph, field).extend(values)


def emulated(model: Any) -> Any:
    """A float32 copy of a model in half precision that rounds wherever that one does.

    Each operation is computed in float32 and its result rounded: what hardware does that accumulates in float32, and
    what any CPU can run, where ONNX Runtime has no convolution in bfloat16.
    """
    import onnx

    kinds = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    elements = network.elements(model)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    for weight in graph.initializer:
        if weight.data_type in kinds:
            values = np.asarray(onnx.numpy_helper.to_array(weight)).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if elements.get(name) in kinds:
                exact, rounded = f"{name}_exact", f"{name}_rounded"
                node.output[place] = exact
                nodes.append(onnx.helper.make_node("Cast", [exact], [rounded], to=elements[name]))
                nodes.append(onnx.helper.make_node("Cast", [rounded], [name], to=onnx.TensorProto.FLOAT))
    graph.ClearField("node")
    graph.ClearField("value_info")
    graph.node.extend(nodes)
    return copied
