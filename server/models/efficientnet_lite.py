"""EfficientNet-Lite0 as an ONNX graph: written from the published table of blocks, batch normalisation folded in.

Source: Tan and Le, "EfficientNet", arXiv:1905.11946, and the Lite variant's own table in the TensorFlow TPU models
(models/official/efficientnet/lite, Apache-2.0): no squeeze-and-excitation, ReLU6, stem and head not scaled. The
weights come from TensorFlow, so a convolution with stride 2 pads as TensorFlow does: the odd row and column go to the
bottom and right. Padding symmetrically instead moves the picture by half a pixel at each of five stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchcut.server.models.checkpoint import Tensors

__all__ = ["BLOCKS", "CLASSES", "DIMENSIONS", "SIDE", "Graph", "embedding", "finished", "write"]

SIDE = 224
DIMENSIONS = 1280
CLASSES = 1000
EPSILON = 1e-3

# 17 has all that is needed, and every engine since 2022 reads it (TensorRT 10 and 11 among them).
OPSET = 17
IR_VERSION = 8

Weights = NDArray[np.float32]


class Stage(NamedTuple):
    """Repeated inverted bottlenecks; only the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int


BLOCKS = (
    Stage(1, 3, 1, 1),
    Stage(2, 3, 2, 6),
    Stage(2, 5, 2, 6),
    Stage(3, 3, 2, 6),
    Stage(3, 5, 1, 6),
    Stage(4, 5, 2, 6),
    Stage(1, 3, 1, 6),
)


@dataclass(slots=True)
class Graph:
    """An ONNX graph under construction."""

    tensors: Tensors
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Adds an initialiser."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, norm: str, *, side: int = 1, stride: int = 1, clip: bool = True) -> str:
        """Convolution, batch normalisation and (where `clip`) ReLU6.

        Args:
            side: rows of the input; only the padding of kernels beyond 1x1 depends on it.
        """
        weight, bias = folded(self.tensors, name, norm)
        kernel = weight.shape[-1]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        y = self.product(
            x,
            name,
            weight,
            bias,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[total // 2, total // 2, total - total // 2, total - total // 2],
            group=weight.shape[0] if weight.shape[1] == 1 else 1,
        )
        return self.node("Clip", [y, "zero", "six"], f"{name}.relu6") if clip else y

    def product(self, x: str, name: str, weight: Weights, bias: Weights, **attributes: Any) -> str:
        """The convolution alone."""
        taken = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("Conv", taken, name, **attributes)

    def total(self, y: str, x: str, output: str) -> str:
        """The sum at the end of a shortcut."""
        return self.node("Add", [y, x], output)

    def block(self, x: str, name: str, stage: Stage, *, side: int, stride: int, residual: bool) -> str:
        """One inverted bottleneck: expand, depthwise, project, and the shortcut where shapes agree."""
        y = self.conv(x, f"{name}._expand_conv", f"{name}._bn0") if stage.expansion > 1 else x
        y = self.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", side=side, stride=stride)
        y = self.conv(y, f"{name}._project_conv", f"{name}._bn2", clip=False)
        return self.total(y, x, f"{name}.sum") if residual else y


def folded(tensors: Tensors, conv: str, norm: str) -> tuple[Weights, Weights]:
    """Weight and bias of a convolution with its batch normalisation multiplied in.

    In double precision, so that the result is the same float32 on every machine.
    """
    gamma, beta, mean, variance = (
        tensors[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    weight = tensors[f"{conv}.weight"] * scale[:, None, None, None]
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)


def repeats() -> Iterator[tuple[int, Stage, int, bool]]:
    """Each block in order: index, its stage, its stride, and whether input and output have one shape."""
    index = 0
    for stage in BLOCKS:
        for repeat in range(stage.repeats):
            yield index, stage, stage.stride if repeat == 0 else 1, repeat > 0
            index += 1


def write(tensors: Tensors) -> bytes:
    """The model as ONNX bytes, the same for the same weights.

    Input "image": (n, 3, 224, 224) float32 RGB, (value - 127) / 128. Outputs: "embedding" (n, 1280), what the
    average pooling gives, not normalised; "logits" (n, 1000), ImageNet classes in their usual order.

    Raises:
        KeyError: a tensor is missing.
        ImportError: `onnx` is not installed.
    """
    graph = Graph(tensors)
    x = embedding(graph)
    weight = graph.constant("_fc.weight", tensors["_fc.weight"])
    bias = graph.constant("_fc.bias", tensors["_fc.bias"])
    graph.node("Gemm", [x, weight, bias], "logits", transB=1)
    return finished(graph, {"embedding": DIMENSIONS, "logits": CLASSES})


def embedding(graph: Graph) -> str:
    """Adds all layers from "image" to "embedding"."""
    graph.constant("zero", np.array(0, np.float32))
    graph.constant("six", np.array(6, np.float32))
    side = SIDE // 2
    x = graph.conv("image", "_conv_stem", "_bn0", side=SIDE, stride=2)
    for index, stage, stride, residual in repeats():
        x = graph.block(x, f"_blocks.{index}", stage, side=side, stride=stride, residual=residual)
        side //= stride
    x = graph.conv(x, "_conv_head", "_bn1")
    x = graph.node("GlobalAveragePool", [x], "pool")
    return graph.node("Flatten", [x], "embedding", axis=1)


def finished(graph: Graph, outputs: Mapping[str, int]) -> bytes:
    """The checked model.

    Args:
        outputs: the size of each row by name.
    """
    from onnx import TensorProto, checker, helper

    def tensor(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

    given = [tensor("image", 3, SIDE, SIDE)]
    made = [tensor(name, size) for name, size in outputs.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "efficientnet-lite0", given, made, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="matchcut",
    )
    checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
