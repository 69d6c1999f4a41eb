"""A model of Triton's Python backend: ONNX Runtime with one thread on the model.onnx beside this file.

One file for all models. Where the configuration has sequence_batching the model keeps a state for each sequence: the
graph's input h is its output h_next of the step before, as Triton's Python backend has no states of its own.

The backend's process runs Python isolated, so that PYTHONPATH, which says where NumPy and ONNX Runtime are, has to be
read here.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402

START, END = 1, 2  # of InferenceRequest.flags()


class TritonPythonModel:
    """What the backend asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph."""
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input: str = config["input"][0]["name"]
        self.output: str = config["output"][0]["name"]
        self.sequences = "sequence_batching" in config
        self.rows = config["max_batch_size"] > 0
        self.states: dict[Any, Any] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests, or a step of each sequence after the other."""
        if self.sequences:
            return [self.step(request) for request in requests]
        given = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        whole = given[0] if len(given) == 1 else np.concatenate(given)
        if not self.rows and len(given) > 1:
            return [self.answer(self.session.run([self.output], {self.input: one})[0]) for one in given]
        result = self.session.run([self.output], {self.input: whole})[0]
        if len(given) == 1:
            return [self.answer(result)]
        ends = np.cumsum([len(one) for one in given])[:-1]
        return [self.answer(part) for part in np.split(result, ends)]

    def step(self, request: Any) -> Any:
        """One step of a sequence."""
        sequence, flags = request.correlation_id(), request.flags()
        x = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
        state = None if flags & START else self.states.get(sequence)
        if state is None:
            state = np.zeros_like(x)
        result, after = self.session.run([self.output, "h_next"], {self.input: x, "h": state})
        if flags & END:
            self.states.pop(sequence, None)
        else:
            self.states[sequence] = after
        return self.answer(result)

    def answer(self, array: Any) -> Any:
        """One response."""
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, array)])
