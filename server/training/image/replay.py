"""The default encoder in torch: its ONNX graph run node by node, so that its last blocks can be learnt on.

There is one description of the network, the graph in server/models; what is learnt is written back into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from matchcut.server.errors import InvalidInput

__all__ = ["Head", "Replay", "write"]

Run = Callable[[dict[str, Any], list[Tensor], list[Tensor]], Tensor]  # attributes, values and weights to a value

BLOCK = "_blocks"  # how the names of the weights of a block begin, followed by its number


class Head(nn.Module):
    """The last layer, on vectors of a frozen encoder."""

    def __init__(self, dimensions: int, classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dimensions, classes)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, dimensions) to logits (n, classes)."""
        found: Tensor = self.head(self.dropout(vectors))
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """A node. weights: names of its parameters. over: names of values that nothing needs after it."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    weights: tuple[str, ...]
    over: tuple[str, ...]


class Replay(nn.Module):
    """An encoder's graph from its picture to its embedding, and a last layer for other classes.

    Batch normalisation is folded into the graph's convolutions, which are learnt on as they are.

    Args:
        content: the encoder's ONNX file; made of Conv, Clip, Relu, Add, GlobalAveragePool and Flatten.
        head: the last layer, trained on the graph's embeddings.
        unfreeze: how many of the last blocks are learnt, together with all that follows them; 0: the last layer only.

    Raises:
        InvalidInput: the graph has other nodes, or fewer blocks.
        ImportError: `onnx` is not installed.
    """

    def __init__(self, content: bytes, head: nn.Linear, *, unfreeze: int, dropout: float = 0.2) -> None:
        import onnx
        from onnx import helper, numpy_helper

        super().__init__()
        graph = onnx.load_from_string(content).graph
        stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.input, self.output = graph.input[0].name, graph.output[0].name
        nodes = list(graph.node)
        nodes = nodes[: 1 + next(at for at, node in enumerate(nodes) if self.output in node.output)]
        last = {name: at for at, node in enumerate(nodes) for name in node.input}
        self.steps = tuple(
            Step(
                kind=node.op_type,
                inputs=tuple(name for name in node.input if name not in stored),
                output=node.output[0],
                attributes={each.name: helper.get_attribute_value(each) for each in node.attribute},
                weights=tuple(name for name in node.input if name in stored),
                over=tuple({name for name in node.input if last[name] == at and name not in stored}),
            )
            for at, node in enumerate(nodes)
        )
        for step in self.steps:
            if step.kind not in RUN:
                raise InvalidInput(
                    f"this encoder has a {step.kind}, which cannot be learnt on: leave --unfreeze out",
                    reason="ENCODER_UNSUPPORTED",
                    field="unfreeze",
                )
        self.learnt = self._learnt(unfreeze)
        used = dict.fromkeys(name for step in self.steps for name in step.weights)
        self.stored = nn.ParameterDict(
            {
                key(name): nn.Parameter(torch.from_numpy(np.array(stored[name])), requires_grad=name in self.learnt)
                for name in used
            }
        )
        wanted = [at for at, step in enumerate(self.steps) if any(name in self.learnt for name in step.weights)]
        self.frozen = wanted[0] if wanted else len(self.steps)  # so many steps need no gradients
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(head.in_features, head.out_features)
        self.head.load_state_dict(head.state_dict())

    def embed(self, x: Tensor) -> Tensor:
        """(n, ...) in the graph's layout, to (n, dimensions)."""
        values = {self.input: x}
        with torch.no_grad():
            for step in self.steps[: self.frozen]:
                self._run(step, values)
        for step in self.steps[self.frozen :]:
            self._run(step, values)
        return values[self.output]

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) in the graph's layout, to logits (n, classes)."""
        found: Tensor = self.head(self.dropout(self.embed(x)))
        return found

    def _run(self, step: Step, values: dict[str, Tensor]) -> None:
        inputs = [values[name] for name in step.inputs]
        weights = [self.stored[key(name)] for name in step.weights]
        values[step.output] = RUN[step.kind](step.attributes, inputs, weights)
        for name in step.over:
            del values[name]

    def _learnt(self, unfreeze: int) -> frozenset[str]:
        """Names of the weights of the last blocks and of what follows them."""
        if not unfreeze:
            return frozenset()
        ordered = [name for step in self.steps if step.kind == "Conv" for name in step.weights]
        blocks = list(dict.fromkeys(block(name) for name in ordered if block(name)))
        if unfreeze > len(blocks):
            raise InvalidInput(
                f"--unfreeze {unfreeze}: this encoder has {len(blocks)} blocks",
                reason="INVALID_OPTION",
                field="unfreeze",
            )
        first = next(at for at, name in enumerate(ordered) if block(name) == blocks[-unfreeze])
        return frozenset(ordered[first:])


def block(name: str) -> str:
    """Which block a weight is of; "" where it is of none."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == BLOCK else ""


def key(name: str) -> str:
    """The name as torch takes it."""
    return name.replace(".", "/")


def conv(attributes: dict[str, Any], inputs: list[Tensor], weights: list[Tensor]) -> Tensor:
    """ONNX's Conv in two dimensions."""
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    x = inputs[0]
    if (top, left) != (bottom, right):  # torch pads both sides alike
        x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
    return functional.conv2d(
        x,
        weights[0],
        weights[1] if len(weights) > 1 else None,
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=(top, left),
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=attributes.get("group", 1),
    )


RUN: dict[str, Run] = {
    "Conv": conv,
    "Clip": lambda attributes, inputs, weights: inputs[0].clamp(float(weights[0]), float(weights[1])),
    "Relu": lambda attributes, inputs, weights: inputs[0].relu(),
    "Add": lambda attributes, inputs, weights: inputs[0] + inputs[1],
    "GlobalAveragePool": lambda attributes, inputs, weights: inputs[0].mean(dim=(2, 3), keepdim=True),
    "Flatten": lambda attributes, inputs, weights: inputs[0].flatten(attributes.get("axis", 1)),
}


def write(content: bytes, model: Replay) -> bytes:
    """The encoder's ONNX file with what was learnt; its outputs are its embedding and "probabilities".

    What the encoder had made of its embedding, such as its own classes, is left out.
    """
    import onnx
    from onnx import TensorProto, checker, helper, numpy_helper

    made = onnx.load_from_string(content)
    graph = made.graph
    end = next(at for at, node in enumerate(graph.node) if model.output in node.output)
    del graph.node[end + 1 :]
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    for each in kept:
        value = model.stored[key(each.name)].detach().numpy() if each.name in model.learnt else None
        graph.initializer.append(each if value is None else numpy_helper.from_array(value, each.name))
    for part, tensor in model.head.named_parameters():
        graph.initializer.append(numpy_helper.from_array(tensor.detach().numpy(), f"head.{part}"))
    graph.node.append(
        helper.make_node(
            "Gemm", [model.output, "head.weight", "head.bias"], ["class_logits"], name="class_logits", transB=1
        )
    )
    graph.node.append(helper.make_node("Softmax", ["class_logits"], ["probabilities"], name="probabilities", axis=1))
    del graph.output[1:]
    rows = graph.output[0].type.tensor_type.shape.dim[0].dim_param or "n"
    shape = [rows, model.head.out_features]
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape))
    checker.check_model(made)
    data: bytes = made.SerializeToString(deterministic=True)
    return data
