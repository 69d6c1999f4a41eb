"""The encoder's ONNX file as a torch network: the same graph with the same weights. For clips.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.nn import functional

Floats = NDArray[np.float32]
MODES = ("eager", "channels_last", "traced", "compiled")


class Network(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """Convolutions, ReLU6, sums and the mean of an ONNX graph, in its order, up to its first output.

    Raises:
        ValueError: the graph has a node of another kind.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        weights = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
        self._given, self._output = graph.input[0].name, graph.output[0].name
        self._layers = torch.nn.ModuleDict()
        self._steps: list[tuple[str, str, list[str], str]] = []  # kind, layer, inputs, output
        for at, node in enumerate(graph.node):
            kind, inputs, layer = node.op_type, list(node.input), ""
            if kind == "Conv":
                layer = f"conv{at}"
                self._layers[layer] = convolution(node, *(weights[name] for name in inputs[1:]))
                inputs = inputs[:1]
            elif kind == "Clip":
                inputs = inputs[:1]  # to 0 and 6 throughout
            elif kind not in ("Add", "GlobalAveragePool", "Flatten"):
                raise ValueError(f"{path}: cannot write {kind} in torch")
            self._steps.append((kind, layer, inputs, node.output[0]))
            if node.output[0] == self._output:
                break

    def forward(self, pixels: Any) -> Any:
        """(n, 3, 224, 224) to (n, 1280)."""
        known = {self._given: pixels}
        for kind, layer, inputs, output in self._steps:
            given = [known[name] for name in inputs]
            if kind == "Conv":
                known[output] = self._layers[layer](given[0])
            elif kind == "Clip":
                known[output] = functional.relu6(given[0])
            elif kind == "Add":
                known[output] = given[0] + given[1]
            elif kind == "GlobalAveragePool":
                known[output] = given[0].mean(dim=(2, 3), keepdim=True)
            else:
                known[output] = given[0].flatten(1)
        return known[self._output]


def convolution(node: Any, weight: Any, bias: Any) -> Any:
    """A layer; where padding differs by side, it is done before."""
    about = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    top, left, bottom, right = about["pads"]
    even = (top, left) == (bottom, right)
    layer = torch.nn.Conv2d(
        weight.shape[1] * about["group"],
        weight.shape[0],
        tuple(about["kernel_shape"]),
        stride=tuple(about["strides"]),
        padding=(top, left) if even else 0,
        groups=about["group"],
    )
    layer.weight, layer.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return layer if even else torch.nn.Sequential(torch.nn.ZeroPad2d((left, right, top, bottom)), layer)


def ready(path: str, *, mode: str, threads: int, batch: int) -> Callable[[Floats], Floats]:
    """A function from pixels to embeddings.

    Args:
        mode: "eager"; "channels_last", eager with channels innermost; "traced", TorchScript frozen and optimised for
            inference; "compiled", torch.compile, for which batches are filled up to one size.
        batch: that size.
    """
    torch.set_num_threads(threads)
    network: Any = Network(path).eval()
    order = torch.contiguous_format if mode == "eager" else torch.channels_last
    network = network.to(memory_format=order)
    example = torch.zeros(batch, 3, 224, 224).to(memory_format=order)
    if mode == "traced":
        with torch.no_grad():
            network = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, example)))
    elif mode == "compiled":
        network = torch.compile(network)
    elif mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")

    def run(pixels: Floats) -> Floats:
        given = torch.from_numpy(pixels)
        if mode == "compiled" and len(pixels) < batch:
            given = functional.pad(given, (0, 0, 0, 0, 0, 0, 0, batch - len(pixels)))
        with torch.inference_mode() if mode != "traced" else torch.no_grad():
            found: Floats = network(given.to(memory_format=order))[: len(pixels)].numpy()
        return found

    return run
