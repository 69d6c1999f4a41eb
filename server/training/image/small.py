"""A small network for pictures of 32 x 32, and the same as an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matchcut.server.models.efficientnet_lite import IR_VERSION, OPSET

__all__ = ["DIMENSIONS", "SIDE", "Small", "write"]

SIDE = 32
DIMENSIONS = 128  # of the vector before the last layer
# Channels and stride of each layer of 3 x 3. The picture goes from 32 to 16 to 8 to 4 pixels a side.
LAYERS = ((24, 1), (32, 2), (48, 1), (64, 2), (96, 1), (DIMENSIONS, 2))


class Small(nn.Module):
    """Convolutions with batch normalisation and ReLU, the mean over the picture, and one linear layer."""

    def __init__(self, classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        before = 3
        layers: list[Any] = []
        for channels, stride in LAYERS:
            layers += [
                nn.Conv2d(before, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            before = channels
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, classes)

    def embed(self, x: Tensor) -> Tensor:
        """(n, 3, SIDE, SIDE) to (n, DIMENSIONS)."""
        found: Tensor = self.layers(x).mean(dim=(2, 3))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, SIDE, SIDE) to logits (n, classes)."""
        found: Tensor = self.head(self.dropout(self.embed(x)))
        return found


def write(model: Small) -> bytes:
    """The trained network as ONNX bytes, batch normalisation folded in; outputs "embedding" and "probabilities".

    Raises:
        ImportError: `onnx` is not installed.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray[Any, Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    x = "image"
    for at in range(0, len(model.layers), 3):
        convolution, norm = model.layers[at], model.layers[at + 1]
        weight, bias = folded(convolution, norm)
        name = f"layer{at // 3}"
        inputs = [x, constant(f"{name}.weight", weight), constant(f"{name}.bias", bias)]
        stride = list(convolution.stride)
        x = node("Conv", inputs, f"{name}.conv", kernel_shape=[3, 3], strides=stride, pads=[1, 1, 1, 1])
        x = node("Relu", [x], name)
    x = node("Flatten", [node("GlobalAveragePool", [x], "pool")], "embedding", axis=1)
    head = [constant(f"head.{part}", value.detach().numpy()) for part, value in model.head.named_parameters()]
    x = node("Gemm", [x, *head], "logits", transB=1)
    node("Softmax", [x], "probabilities", axis=1)

    def tensor(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

    outputs = [tensor("embedding", DIMENSIONS), tensor("probabilities", model.head.out_features)]
    graph = helper.make_graph(nodes, "small", [tensor("image", 3, SIDE, SIDE)], outputs, constants)
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="matchcut",
    )
    checker.check_model(made)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def folded(convolution: Any, norm: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weight and bias of a convolution with its batch normalisation multiplied in, in double precision."""
    with torch.no_grad():
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = convolution.weight.double() * scale.view(-1, 1, 1, 1)
        bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.numpy(), bias.numpy()
