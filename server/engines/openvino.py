"""OpenVINO's CPU plugin: in float32, in bfloat16, or with only the start of the network in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from matchcut.server.engines.base import CheckedEngine, cores, guard
from matchcut.server.engines.cut import cut
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats

__all__ = ["OpenVino"]

# What OpenVINO calls the layers that multiply matrices, once compiled.
PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
INT8, MIXED = "openvino-int8", "openvino-mixed"  # what openvino-fp32 is called where the file says otherwise


class OpenVino(CheckedEngine):
    """Runs an encoder with as much of it in bfloat16 as is asked for.

    A rounding error grows on its way through the network, so that bfloat16 costs little accuracy in the last layers
    and much in the first. Measured on EfficientNet-Lite0 over 107 video frames, the least cosine to float32: .984 all
    in bfloat16, .9993 with the first quarter in float32, at 55 % and 80 % of ONNX Runtime's CPU time.

    Args:
        variant: what it is called; INT8 or MIXED where all is asked for in float32, and the file has int8 or bfloat16.
        exact: share of the convolutions and matrix products, from the start, in float32; 1 is all, 0 none.
        threads: threads of one run; 0 takes all cores.

    Raises:
        EngineFailed: the model cannot be compiled or cut, or this CPU has no bfloat16 (OpenVINO computes in float32
            there without a word).
        ImportError: openvino is not installed.
    """

    def __init__(self, encoder: Encoder, variant: str, *, exact: float = 1.0, threads: int = 0) -> None:
        super().__init__(encoder, variant)
        with guard(f"OpenVINO cannot load {encoder.path}"):
            import openvino

            self._tensor = openvino.Tensor
            core = openvino.Core()
            model = core.read_model(encoder.path)
            # Without the other outputs, what only they need is left out: a classifier is 5 % of a batch of one.
            model = openvino.Model([model.output(0)], model.get_parameters())
            models = cut(model, exact) if 0 < exact < 1 else [model]
            precisions = ["f32"] * (exact > 0) + ["bf16"] * (exact < 1)
            self._parts = [
                core.compile_model(part, "CPU", settings(precision, threads or cores()))
                for part, precision in zip(models, precisions, strict=True)
            ]
            found = computed_in(self._parts[-1])
            if exact < 1 and "bf16" not in found:
                raise EngineFailed("this CPU has no bfloat16", reason="PRECISION_UNSUPPORTED")
            if exact == 1 and not found <= {"f32"}:
                self.variant = INT8 if found & {"i8", "u8"} else MIXED
        # One chain of requests, one request a part, for each run under way: requests cannot be shared by threads.
        self._idle: list[list[Any]] = []

    def infer(self, batch: Floats) -> Floats:
        """See CheckedEngine."""
        try:
            chain = self._idle.pop()
        except IndexError:
            chain = [part.create_infer_request() for part in self._parts]
        # What lies in the message that it came in cannot be written to, and OpenVINO takes none of that as it is.
        tensor = self._tensor(np.require(batch, requirements="W"), shared_memory=True)
        for request in chain:
            request.set_input_tensor(tensor)
            request.infer()
            tensor = request.get_output_tensor()
        result: Floats = np.array(tensor.data, np.float32)
        self._idle.append(chain)
        return result

    def release(self) -> None:
        """See CheckedEngine."""
        self._idle = []
        self._parts = []


def settings(precision: str, threads: int) -> Mapping[str, object]:
    """Options of a compiled part: one stream, so that memory stays flat."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # decoding and other runs share these cores
    }


def computed_in(compiled: Any) -> set[str]:
    """The precisions of the compiled matrix products; the model's own property only repeats what was asked for."""
    layers = (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
    return {
        str(layer["runtimePrecision"].astype(str)) for layer in layers if layer["layerType"].astype(str) in PRODUCTS
    }
