"""ONNX Runtime's own CPU kernels: the engine that every platform has."""

from __future__ import annotations

from matchcut.server.engines.base import CheckedEngine, cores, guard
from matchcut.server.engines.processor import saturates
from matchcut.server.engines.quantised import is_quantised
from matchcut.server.engines.widened import session
from matchcut.server.models import Encoder
from matchcut.server.records import Floats

__all__ = ["OnnxRuntime"]

INT8 = "onnxruntime-int8"

ERRORS_ONLY = 3


class OnnxRuntime(CheckedEngine):
    """Runs an encoder in the precisions that its file says: float32, or int8 between Q/DQ pairs.

    A file in float16 or bfloat16 is computed in float32, as there are no kernels for these on CPUs.

    Args:
        variant: what it is called; INT8 where the file is in int8.
        threads: threads of one run; 0 takes all cores.

    Raises:
        EngineFailed: the model cannot be loaded.
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, encoder: Encoder, variant: str = "onnxruntime-fp32", *, threads: int = 0) -> None:
        super().__init__(encoder, variant)
        with guard(f"ONNX Runtime cannot load {encoder.path}"):
            import onnxruntime

            if is_quantised(encoder.path.read_bytes()):
                self.variant = INT8
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or cores()
            options.log_severity_level = ERRORS_ONLY
            # Threads that spin for the next task double the CPU time of a run where cores are shared.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            if saturates():  # slower, and as exact as elsewhere
                options.add_session_config_entry("session.x64quantprecision", "1")
            self._session = session(encoder.path, options, name=str(encoder.path))
            self._input = self._session.get_inputs()[0].name
            self._output = self._session.get_outputs()[0].name

    def infer(self, batch: Floats) -> Floats:
        """See CheckedEngine."""
        result: Floats = self._session.run([self._output], {self._input: batch})[0]
        return result

    def release(self) -> None:
        """See CheckedEngine."""
        del self._session
