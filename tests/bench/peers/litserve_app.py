"""A server of LitServe's: ONNX Runtime with one thread. `litserve_app.py MODEL.onnx PORT`

LitServe speaks HTTP with JSON: the frame comes as text in base64, the leanest form that it takes, as files of forms do
not pass from its front to its worker.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime


class Graph(litserve.LitAPI):  # type: ignore[misc]
    """What LitServe asks for."""

    def setup(self, device: str) -> None:
        """Loads the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, str]) -> Any:
        """(1, 3, 224, 224) float32."""
        return np.frombuffer(base64.b64decode(request["x"]), np.float32).reshape(1, 3, 224, 224)

    def predict(self, x: Any) -> Any:
        """One run."""
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, output: Any) -> Any:
        """JSON."""
        return {"y": output[0].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Graph(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    kept = 3600  # seconds that a connection may be silent, as it is while other servers have their turns
    port = int(sys.argv[2])
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, timeout_keep_alive=kept)
