"""A model of MLServer's: ONNX Runtime with one thread on the model.onnx that the settings name."""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class Graph(MLModel):  # type: ignore[misc]
    """What MLServer asks for."""

    async def load(self) -> bool:
        """Loads the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One run."""
        given = payload.inputs[0]
        x = np.asarray(NumpyCodec.decode_input(given), np.float32)
        result = self.session.run(None, {given.name: x})[0]
        output = NumpyCodec.encode_output("y", result)
        return InferenceResponse(model_name=self.name, outputs=[output])
