"""The open inference protocol: requests made from a model's metadata or a file, judged by a server that looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from matchcut.bench import infer
from matchcut.bench.errors import BadInput
from matchcut.bench.target import Target
from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc

SIZES = {"BOOL": 1, "UINT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
MODELS = {
    "all": [("".join(["x", name]), name, [2, 3]) for name in SIZES],
    "free": [("pixels", "FP32", [-1, 3, 4, 4])],
    "open": [("tokens", "INT64", [-1, -1])],
    "text": [("words", "BYTES", [-1])],
    "odd": [("x", "FP8", [1])],
    "none": [],
}


class Servicer(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Tells of models."""

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(name="scripted", version="3")

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name not in MODELS:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        told = pb.ModelMetadataResponse(name=request.name)
        for name, datatype, shape in MODELS[request.name]:
            told.inputs.add(name=name, datatype=datatype, shape=shape)
        return told


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A scripted server of the protocol."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        register: Any = grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
        register(Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Target(address=f"127.0.0.1:{port}")
        server.stop(None).wait()


def parsed(requests: tuple[bytes, ...]) -> list[pb.ModelInferRequest]:
    return [pb.ModelInferRequest.FromString(request) for request in requests]


def test_inputs_are_made_up_of_every_type(target: Target) -> None:
    made = infer.from_metadata(target, "all:7")
    assert (made.name, made.method) == ("infer", "/inference.GRPCInferenceService/ModelInfer")
    requests = parsed(made.requests)
    assert len(set(made.requests)) == len(requests) > 1  # or a cache would answer
    for request in requests:
        assert (request.model_name, request.model_version) == ("all", "7")
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            assert list(tensor.shape) == [2, 3]
            assert len(raw) == SIZES[tensor.datatype] * prod(tensor.shape), tensor.datatype
    assert infer.from_metadata(target, "all:7") == made
    assert infer.from_metadata(target, "all:7", seed=2) != made


def test_free_dimensions_are_the_batch_or_given(target: Target) -> None:
    (first, *_) = parsed(infer.from_metadata(target, "free", batch=5).requests)
    assert list(first.inputs[0].shape) == [5, 3, 4, 4]
    assert len(first.raw_input_contents[0]) == 5 * 3 * 4 * 4 * 4
    with pytest.raises(BadInput, match=r"input 'tokens' has dimensions that are not fixed; give --shape tokens=1,\?"):
        infer.from_metadata(target, "open")
    (given, *_) = parsed(infer.from_metadata(target, "open", shapes={"tokens": (2, 9)}).requests)
    assert list(given.inputs[0].shape) == [2, 9]
    (words, *_) = parsed(infer.from_metadata(target, "text", batch=3).requests)
    assert len(words.raw_input_contents[0]) == 3 * (4 + 16)


@pytest.mark.parametrize(
    ("model", "shapes", "said"),
    [
        ("nix", {}, r"tells nothing of model 'nix': NOT_FOUND: no model nix; check --server and --model"),
        ("none", {}, "tells no inputs of model 'none'; give a request with --input"),
        ("odd", {}, "how to make up 'FP8'"),
        ("free", {"pixel": (1,)}, "has no input 'pixel'; it has pixels"),
        ("free", {"pixels": (10**12,)}, "MiB is too large to make up; lower --batch or --shape"),
        ("text", {"words": (10**12,)}, "MiB is too large to make up"),
    ],
)
def test_models_that_leave_open_what_to_send(target: Target, model: str, shapes: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        infer.from_metadata(target, model, shapes=shapes)


def test_who_a_server_says_it_is(target: Target) -> None:
    assert infer.identity(target) == "scripted 3"


def test_requests_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4.5]]}
    words = {"name": "w", "datatype": "BYTES", "shape": [2], "data": ["a", "né"]}
    half = {"name": "h", "datatype": "BF16", "shape": [1], "data": [1.0]}
    path.write_text(json.dumps([{"inputs": [tensor], "parameters": {"p": 1, "q": True}}, {"inputs": [words, half]}]))
    first, second = parsed(infer.from_file(path, "m:2").requests)
    assert (first.model_name, first.model_version) == ("m", "2")
    assert np.frombuffer(first.raw_input_contents[0], np.float32).tolist() == [1, 2, 3, 4.5]
    assert first.parameters["p"].int64_param == 1
    assert first.parameters["q"].bool_param
    assert second.raw_input_contents[0] == b"\x01\0\0\0a\x03\0\0\0n\xc3\xa9"
    assert second.raw_input_contents[1] == b"\x80\x3f"
    path.write_text(json.dumps({"inputs": [tensor]}))
    assert len(infer.from_file(path, "m").requests) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "has no request"),
        ("[3]", "request 1 is none of the open inference protocol"),
        ("{}", "request 1 is none .*KeyError: 'inputs'"),
        ('{"inputs": []}', "it has no inputs"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]}', "KeyError: 'data'"),
        (
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}',
            "has 1 values, its shape wants 2",
        ),
        ('{"inputs": [{"name": "x", "datatype": "FP8", "shape": [1], "data": [1]}]}', "KeyError: 'FP8'"),
        ('{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [300]}]}', "OverflowError"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1], [2, 3]]}]}', "ValueError"),
        ('{"inputs": [], "parameters": {"p": null}}', "KeyError"),
    ],
)
def test_what_is_no_file_of_requests(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "requests.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        infer.from_file(path, "m")
