"""EfficientNet-Lite0 in int8 for CPUs without much memory: a fifth of the file, and a third less time a picture.

Pairs of QuantizeLinear and DequantizeLinear say which layers are computed in int8, and ONNX Runtime joins them with the
convolutions. Weights have a scale for each output channel and are symmetric; activations have one for each tensor and
are unsigned with a zero of their own: after ReLU6 nothing is negative, and a sign would waste half of the values. (In
symmetric int8 on both sides, as TensorRT wants it, ONNX Runtime takes twice the time of float32 on x86.)

The stem and the first three blocks stay in float32: in the depthwise convolution of the first block the channels'
ranges differ by so much that int8 loses most of them. The last convolution takes bytes, and its result stays in
float32, as it is all that the vector is made of. There are no logits, whose weights would be more than all others.

The file must be the same on every machine, since an encoder is known by its bytes. Calibrating anew would not make the
same: so the ranges stand here. They were measured in float32 on the eight pictures of engines/frames/, are a tenth
wider, and rounded outwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.models import efficientnet_lite
from matchcut.server.models.checkpoint import Tensors
from matchcut.server.models.efficientnet_lite import Graph, Weights

__all__ = ["FLOAT_BLOCKS", "RANGES", "write"]

FLOAT_BLOCKS = 3  # from the first, with the stem before them

WIDEST = 1 << 24  # the largest bias, in units of its channel: far from the end of int32

RELU6 = (0.0, 6.0)
# The least and the largest value of what is not clipped.
RANGES = {
    "_blocks.2.sum": (-61.3, 60.5),
    "_blocks.3._project_conv": (-35.0, 52.1),
    "_blocks.4._project_conv": (-31.0, 26.7),
    "_blocks.4.sum": (-44.3, 56.3),
    "_blocks.5._project_conv": (-28.7, 35.0),
    "_blocks.6._project_conv": (-21.2, 14.8),
    "_blocks.6.sum": (-30.2, 37.0),
    "_blocks.7._project_conv": (-20.6, 17.0),
    "_blocks.7.sum": (-34.0, 38.4),
    "_blocks.8._project_conv": (-36.6, 39.7),
    "_blocks.9._project_conv": (-29.3, 17.1),
    "_blocks.9.sum": (-40.4, 41.1),
    "_blocks.10._project_conv": (-28.0, 17.1),
    "_blocks.10.sum": (-48.6, 48.5),
    "_blocks.11._project_conv": (-34.1, 35.1),
    "_blocks.12._project_conv": (-14.7, 16.2),
    "_blocks.12.sum": (-31.8, 32.8),
    "_blocks.13._project_conv": (-13.8, 14.0),
    "_blocks.13.sum": (-39.1, 33.8),
    "_blocks.14._project_conv": (-21.4, 14.6),
    "_blocks.14.sum": (-47.2, 40.7),
    "_blocks.15._project_conv": (-19.2, 16.1),
}


class Int8Graph(Graph):
    """Writes the layers behind the first ones in int8."""

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """As it is: scalars too, which ONNX Runtime wants where it joins layers."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def product(self, x: str, name: str, weight: Weights, bias: Weights, **attributes: Any) -> str:
        """The convolution, of what is rounded to a byte a value."""
        if in_float(name):
            return super().product(x, name, weight, bias, **attributes)
        wide = weight.astype(np.float64)
        taken, step = self.rounded(x), float(steps(x)[0])
        # Where all weights of a channel are next to nothing, the bias decides how fine a scale there can be.
        scales = np.maximum(np.abs(wide).reshape(len(wide), -1).max(axis=1) / 127, np.abs(bias) / (step * WIDEST))
        values = np.rint(wide / scales[:, None, None, None]).astype(np.int8)
        sums = scales * step  # the unit of a product of two rounded values
        weights = self.dequantised(f"{name}.weight", values, scales)
        biases = self.dequantised(f"{name}.bias", np.rint(bias / sums).astype(np.int32), sums)
        return self.node("Conv", [taken, weights, biases], name, **attributes)

    def total(self, y: str, x: str, output: str) -> str:
        """The sum, of what is rounded; the sum itself is rounded where the next layer takes it."""
        if in_float(output):
            return super().total(y, x, output)
        return self.node("Add", [self.rounded(y), self.rounded(x)], output)

    def rounded(self, x: str) -> str:
        """The tensor after it was rounded to a byte a value; written once."""
        name = f"{x}.rounded"
        if not any(node.name == name for node in self.nodes):
            scale, zero = steps(x)
            facts = [self.constant(f"{x}.scale", np.array(scale)), self.constant(f"{x}.zero", np.array(zero))]
            self.node("QuantizeLinear", [x, *facts], f"{x}.bytes")
            self.node("DequantizeLinear", [f"{x}.bytes", *facts], name)
        return name

    def dequantised(self, name: str, values: NDArray[Any], scales: NDArray[np.float64]) -> str:
        """Whole numbers times the scale of their channel."""
        facts = [self.constant(f"{name}.bytes", values), self.constant(f"{name}.scale", scales.astype(np.float32))]
        zeros = self.constant(f"{name}.zero", np.zeros(len(scales), values.dtype))
        return self.node("DequantizeLinear", [*facts, zeros], name, axis=0)


def in_float(name: str) -> bool:
    """Whether a layer stays in float32; a sum counts to its block."""
    kind, _, rest = name.partition(".")
    return kind == "_conv_stem" or (kind == "_blocks" and int(rest.partition(".")[0]) < FLOAT_BLOCKS)


def steps(x: str) -> tuple[np.float32, np.uint8]:
    """Of a tensor that is rounded to unsigned bytes: how far two neighbours are apart, and which of them is zero."""
    low, high = RELU6 if x.endswith(".relu6") else RANGES[x]
    scale = (high - low) / 255
    return np.float32(scale), np.uint8(round(-low / scale))


def write(tensors: Tensors) -> bytes:
    """The model as ONNX bytes, the same for the same weights on every machine.

    Input "image" as in efficientnet_lite.write; one output, "embedding" (n, 1280) float32.

    Raises:
        KeyError: a tensor is missing.
        ImportError: `onnx` is not installed.
    """
    graph = Int8Graph(tensors)
    efficientnet_lite.embedding(graph)
    return efficientnet_lite.finished(graph, {"embedding": efficientnet_lite.DIMENSIONS})
