"""Writes int8 into an ONNX graph, by ONNX Runtime's own tools: the form that TensorRT, OpenVINO and ONNX Runtime share.

Pairs of QuantizeLinear and DequantizeLinear stand before the products (convolutions and matrix products) that are
computed in int8; all is symmetric, zero is 0, weights have a scale for each output channel, activations one for each
tensor. The result of a product is not quantised itself but after the activation that follows, where the next product
takes it in: once, not twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from matchcut.server.errors import EngineFailed
from matchcut.server.precision import network
from matchcut.server.records import Floats

__all__ = ["METHODS", "Method", "quantised", "ranges"]

Method = Literal["minmax", "percentile"]
METHODS: tuple[Method, ...] = ("minmax", "percentile")
PERCENTILE = 99.99  # of the values of a tensor that are within its range, where that is asked for
# The first version of the operators that has a scale for each channel.
LEAST_OPSET = 13


def ranges(model: Any, frames: network.Feed, method: Method = "minmax") -> Any:
    """The range of each tensor that a product takes in, as seen on real frames: an onnxruntime TensorsData.

    Args:
        model: an onnx.ModelProto of float32.
        frames: (n, ...) float32, preprocessed; by name where there are several inputs.
        method: how the range follows from the values: all of them, or all but the outermost.

    Raises:
        EngineFailed: the operators are too old, or the model cannot be run.
    """
    from onnxruntime import quantization

    if network.opset(model) < LEAST_OPSET:
        raise EngineFailed(
            f"int8 needs version {LEAST_OPSET} of the operators and the encoder has {network.opset(model)}; export it "
            "with 17",
            reason="PRECISION_FAILED",
        )
    methods = quantization.CalibrationMethod
    which = methods.MinMax if method == "minmax" else methods.Percentile
    with tempfile.TemporaryDirectory(prefix="matchcut-") as folder:
        plain = Path(folder) / "plain.onnx"
        plain.write_bytes(network.serialised(model))
        try:
            calibrator = quantization.create_calibrator(
                plain,
                list(network.PRODUCTS),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=which,
                extra_options={"symmetric": True, "percentile": PERCENTILE} if method == "percentile" else {},
            )
            calibrator.collect_data(reader(model, frames))
            return calibrator.compute_data()
        except Exception as error:
            raise EngineFailed(f"the encoder cannot be calibrated: {error}", reason="PRECISION_FAILED") from error


def reader(model: Any, frames: network.Feed) -> Any:
    """The frames as a calibrator asks for them: one by one, as some take batches of one size only."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts: Iterator[dict[str, Floats]] = network.parts(model, frames, 1)

        def get_next(self) -> dict[str, Floats] | None:
            return next(self.parts, None)

    return Reader()


def quantised(model: Any, seen: Any, nodes: Collection[str]) -> Any:
    """A copy of a float32 model in which these products are computed in int8.

    Args:
        model: an onnx.ModelProto from network.read(); not changed.
        seen: from ranges().
        nodes: names of products.
    """
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if not nodes:
        return copied  # to the library an empty list stands for all nodes
    quantizer = QDQQuantizer(
        copied,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=seen,
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=list(network.PRODUCTS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT takes it in float only
            "OpTypesToExcludeOutputQuantization": list(network.PRODUCTS),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model
