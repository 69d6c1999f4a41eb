"""Runs any ONNX graph with named tensors of any type on ONNX Runtime's CPU kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from matchcut.server.engines.base import cores, guard
from matchcut.server.engines.widened import session as opened
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models.graph import Graph
from matchcut.server.models.steadiness import is_steady
from matchcut.server.tensors import DTYPES, Tensor, Tensors, TensorSpec

__all__ = ["GraphEngine"]

ERRORS_ONLY = 3
BFLOAT16 = 16  # TensorProto.DataType

# ONNX Runtime's names of the types that it takes from and gives to Python.
TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


class GraphEngine:
    """A loaded ONNX graph. Safe to be used by several threads at once.

    inputs, outputs: what the graph says of them, in its order.
    platform, variant: what runs it, in the words of the open inference protocol and of the stage times.
    steady: whether a run takes as long as another with inputs of the same sizes, whatever numbers are in them.

    Args:
        threads: threads of one run; 0 takes all cores.

    Raises:
        EngineFailed: ONNX Runtime cannot load the graph, or an input or output is no tensor, of a type that cannot be
            passed, or gives no shape.
    """

    platform = "onnxruntime_onnx"
    variant = "onnxruntime-fp32"

    def __init__(self, graph: Graph, *, threads: int = 0) -> None:
        with guard(f"ONNX Runtime cannot load {graph.path.name}"):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or cores()
            options.log_severity_level = ERRORS_ONLY
            # Threads that spin for the next task double the CPU time of a run where cores are shared.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = opened(graph.content, options, name=graph.path.name)
            given, taken = session.get_outputs(), session.get_inputs()
        self._session: Any = session
        self._make: Any = onnxruntime.OrtValue
        self.name = graph.path.name
        self.steady = is_steady(graph.content)
        self.inputs = tuple(self._spec(each, graph, "input") for each in taken)
        self.outputs = tuple(self._spec(each, graph, "output") for each in given)
        self._names = [spec.name for spec in self.outputs]
        self._kinds = {spec.name: spec.dtype for spec in self.inputs}
        # NumPy has no bfloat16, so such tensors need ONNX Runtime's own values, which cost a little more.
        self._own_values = any(spec.dtype == "BF16" for spec in (*self.inputs, *self.outputs))
        if self._own_values and not hasattr(self._make, "ortvalue_from_numpy_with_onnx_type"):
            raise EngineFailed(
                f"{self.name} has BF16 inputs or outputs, which this ONNX Runtime cannot pass: "
                "pip install --upgrade onnxruntime, or give the model FP32 ones",
                reason="MODEL_UNSUPPORTED",
            )
        if self._own_values and "BYTES" in self._kinds.values():
            raise EngineFailed(
                f"{self.name} has BYTES inputs beside BF16 tensors, which ONNX Runtime cannot pass together: give the "
                "model FP32 ones instead of BF16",
                reason="MODEL_UNSUPPORTED",
            )

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Runs the graph.

        Args:
            inputs: all of them by name, in the types of tensors.DTYPES; they are not changed. Of BYTES, elements may be
                bytes that are UTF-8, or text.

        Returns all outputs by name; elements of BYTES are bytes.

        Raises:
            InvalidInput: an element of BYTES is not UTF-8: ONNX knows text only.
            EngineFailed: the run failed, or the engine is closed.
        """
        session = self._session
        if session is None:
            raise EngineFailed(f"the engine of {self.name} is closed: load the model again", reason="ENGINE_CLOSED")
        ready = {
            name: texts(name, value) if self._kinds.get(name) == "BYTES" else np.asarray(value, order="C")
            for name, value in inputs.items()
        }
        names = self._names
        try:  # as guard(), which a run of microseconds would notice
            found = self._run_own(session, names, ready) if self._own_values else session.run(names, ready)
        except (EngineFailed, ImportError):
            raise
        except Exception as error:
            raise EngineFailed(f"{self.name} failed: {error}") from error
        return {
            spec.name: octets(value) if spec.dtype == "BYTES" else value
            for spec, value in zip(self.outputs, found, strict=True)
        }

    def close(self) -> None:
        """Frees the model; runs under way in other threads still end well. May be called twice."""
        self._session = None

    def _run_own(self, session: Any, names: list[str], inputs: dict[str, Tensor]) -> list[Tensor]:
        """A run with ONNX Runtime's own values, which may be bfloat16."""
        values = {
            name: self._make.ortvalue_from_numpy_with_onnx_type(value, BFLOAT16)
            if self._kinds.get(name) == "BF16"
            else self._make.ortvalue_from_numpy(value)
            for name, value in inputs.items()
        }
        found = session.run_with_ort_values(names, values)
        return [
            bits(value) if spec.dtype == "BF16" else value.numpy()
            for spec, value in zip(self.outputs, found, strict=True)
        ]

    def _spec(self, said: Any, graph: Graph, role: str) -> TensorSpec:
        """What ONNX Runtime says of an input or output, in our words."""
        if said.type not in TYPES:
            raise EngineFailed(
                f"{role} {said.name!r} is a {said.type}, which cannot be served: export the model with plain tensors",
                reason="MODEL_UNSUPPORTED",
            )
        # The shape of an output may have been inferred; then it has sizes.
        if said.name in graph.shapeless and not said.shape:
            raise EngineFailed(
                f"{role} {said.name!r} gives no shape: export the model with one, in which sizes may be open",
                reason="MODEL_UNSUPPORTED",
            )
        shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in said.shape)
        return TensorSpec(said.name, TYPES[said.type], shape)


def texts(name: str, value: Tensor) -> Tensor:
    """The elements as text, which is what ONNX Runtime takes."""
    result = np.empty(value.shape, DTYPES["BYTES"])
    try:
        result.ravel()[:] = [each if isinstance(each, str) else str(each, "utf-8") for each in value.ravel()]
    except (TypeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"input {name!r} holds bytes that are not UTF-8 text, which this model takes: {error}", field=name
        ) from None
    return result


def octets(value: Tensor) -> Tensor:
    """The elements as bytes."""
    result = np.empty(value.shape, DTYPES["BYTES"])
    result.ravel()[:] = [each.encode() for each in value.ravel()]
    return result


def bits(value: Any) -> Tensor:
    """The bits of a bfloat16 value as unsigned numbers, which NumPy has."""
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(raw), DTYPES["BF16"]).reshape(value.shape())
