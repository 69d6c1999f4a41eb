"""A model of Triton's Python backend that takes clips: clips.py as a pipeline, for compare.py.

Inputs: "clip", BYTES [1]; "rate", FP32 [1], frames a second; "name", BYTES [1], optional: the clip becomes an item of
that name and nothing is asked. Output: "names", BYTES [k], the items, best first. Its configuration's parameters:
"encoder" and "folder", see clips.Glue, and "settings", JSON of clips.Settings. The backend's process runs Python
isolated, so that PYTHONPATH, which says where its packages are, has to be read here.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402
from clips import Glue, Settings  # type: ignore[import-not-found]  # noqa: E402


class TritonPythonModel:
    """What the backend asks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads encoder and index."""
        parameters = json.loads(args["model_config"])["parameters"]
        given = {name: each["string_value"] for name, each in parameters.items()}
        self.glue = Glue(given["encoder"], given["folder"], Settings(**json.loads(given["settings"])))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One after the other."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """The answer to one request."""
        clip = pb_utils.get_input_tensor_by_name(request, "clip").as_numpy()[0]
        rate = float(pb_utils.get_input_tensor_by_name(request, "rate").as_numpy()[0])
        name = pb_utils.get_input_tensor_by_name(request, "name")
        found: list[str] = []
        if name is not None:
            self.glue.add(name.as_numpy()[0].decode(), clip, rate)
        else:
            found = [item for item, _ in self.glue.ask(clip, rate)]
        names = np.array([item.encode() for item in found], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("names", names)])
