"""Checks that every server gives the right answer, before anything is timed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from serving_models import HIDDEN, STEP
from serving_peers import LITSERVE

from matchcut.inference import grpc_service_pb2 as pb

CLOSE = 1e-4  # relative; one batch size rounds otherwise than another


@cache
def session(model: Path) -> Any:
    """The graph, as it is without a server."""
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def expected(models: Path, name: str, x: Any) -> Any:
    """What a model gives for x, and for no state."""
    given = {"x": x, "h": np.zeros((1, HIDDEN), np.float32)} if name == STEP else {"x": x}
    return session(models / "ours" / name / "1" / "model.onnx").run(["y"], given)[0]


def values(server: str, answer: bytes, *, streamed: bool = False) -> Any:
    """The numbers in an answer."""
    if server == LITSERVE:
        return np.array(json.loads(answer)["y"], np.float32)
    read = pb.ModelStreamInferResponse.FromString(answer).infer_response if streamed else None
    reply = pb.ModelInferResponse.FromString(answer) if read is None else read
    if reply.raw_output_contents:
        return np.frombuffer(reply.raw_output_contents[0], np.float32)
    return np.array(reply.outputs[0].contents.fp32_contents, np.float32)


def check(server: str, answer: bytes, wanted: Any, *, streamed: bool = False) -> None:
    """Ends the benchmark where an answer is wrong."""
    found = values(server, answer, streamed=streamed)
    if found.shape != wanted.reshape(-1).shape or not np.allclose(found, wanted.reshape(-1), rtol=CLOSE, atol=CLOSE):
        raise SystemExit(f"{server} gives a wrong answer: {found[:4]} where {wanted.reshape(-1)[:4]} is right")
