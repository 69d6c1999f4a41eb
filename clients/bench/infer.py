"""ModelInfer of the open inference protocol, prepared: inputs made up from a model's metadata, or read from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from matchcut.bench.arrivals import draws
from matchcut.bench.errors import BadInput, Refused, Unreachable
from matchcut.bench.prepared import Unary
from matchcut.bench.target import Target
from matchcut.inference import grpc_service_pb2 as pb

__all__ = ["from_file", "from_metadata", "identity"]

SERVICE = "/inference.GRPCInferenceService/"
VARIETY = 16  # different requests; tensors may be large
MOST = 256 << 20  # bytes of a request that is made up; more is a mistake in the shape
SHOWN = 20  # names of models in a message
WAIT = 10.0  # seconds to wait for metadata
# The protocol's names of data types, as arrays have them. BYTES is apart, BF16 is the upper half of FP32.
DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def from_metadata(
    target: Target, model: str, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 1
) -> Unary:
    """Requests with random inputs of the types and shapes that the server tells.

    Args:
        target: the server.
        model: "name" or "name:version".
        batch: takes the place of a first dimension that is not fixed.
        shapes: of inputs that have other dimensions that are not fixed, by name.
        seed: of the random values.

    Raises:
        BadInput: the server has no such model, or an input's shape or type leaves open what to send.
    """
    name, _, version = model.partition(":")
    told = _metadata(target, name, version)
    if not told.inputs:
        raise BadInput(f"the server tells no inputs of model {name!r}; give a request with --input FILE")
    given = dict(shapes or {})
    wanted = {each.name: given.pop(each.name) if each.name in given else _shape(each, batch) for each in told.inputs}
    if given:
        raise BadInput(f"model {name!r} has no input {next(iter(given))!r}; it has {', '.join(wanted)}")
    size = sum(prod(wanted[each.name]) * _bytes(each.datatype) for each in told.inputs)
    if size > MOST:
        raise BadInput(f"a request of {size >> 20} MiB is too large to make up; lower --batch or --shape")
    source = draws(seed, "inputs")
    requests = []
    for _ in range(VARIETY):
        request = pb.ModelInferRequest(model_name=name, model_version=version)
        for each in told.inputs:
            shape = wanted[each.name]
            request.inputs.add(name=each.name, datatype=each.datatype, shape=shape)
            request.raw_input_contents.append(_values(each.datatype, prod(shape), source))
        requests.append(request.SerializeToString())
    return Unary("infer", SERVICE + "ModelInfer", tuple(requests))


def from_file(path: Path, model: str) -> Unary:
    """Requests from a JSON file: one, or a list of them, as the protocol's HTTP side has them.

    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}]}, where `data` may be nested;
    of BYTES they are strings. {"parameters": {...}} may stand beside "inputs".

    Raises:
        BadInput: it is no such file; the message says where.
        OSError: it cannot be read.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}") from None
    requests = given if isinstance(given, list) else [given]
    if not requests:
        raise BadInput(f"{path} has no request; put at least one in")
    name, _, version = model.partition(":")
    serialised = []
    for number, one in enumerate(requests, start=1):
        try:
            serialised.append(_request(one, name, version).SerializeToString())
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(
                f"{path}, request {number} is none of the open inference protocol ({type(error).__name__}: {error}); "
                'each input has "name", "datatype", "shape" and "data"'
            ) from None
    return Unary("infer", SERVICE + "ModelInfer", tuple(serialised))


def identity(target: Target) -> str:
    """Name and version of the server, where it speaks the protocol; else "".

    Raises:
        Unreachable: nobody answers there, not even with a refusal.
        Refused: it wants another token, or one at all; no request would be answered.
    """
    with target.blocking_channel() as channel:
        call = channel.unary_unary(SERVICE + "ServerMetadata", None, pb.ServerMetadataResponse.FromString)
        try:
            told = call(b"", timeout=WAIT, metadata=target.metadata)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise Unreachable(f"no server answers at {target.address}; check --server") from None
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise Refused(f"{target.address} refuses: {error.details()}") from None
            return ""
        return f"{told.name} {told.version}".strip()


def _metadata(target: Target, name: str, version: str) -> pb.ModelMetadataResponse:
    request = pb.ModelMetadataRequest(name=name, version=version).SerializeToString()
    with target.blocking_channel() as channel:
        call = channel.unary_unary(SERVICE + "ModelMetadata", None, pb.ModelMetadataResponse.FromString)
        try:
            told: pb.ModelMetadataResponse = call(request, timeout=WAIT, metadata=target.metadata)
        except grpc.RpcError as error:
            others = _models(channel, target)
            known = f"; its models are {', '.join(others)}" if others else ""
            raise BadInput(
                f"{target.address} tells nothing of model {name!r}: {error.code().name}: {error.details()}{known}; "
                "check --server and --model, or give a request with --input FILE"
            ) from None
        return told


def _models(channel: grpc.Channel, target: Target) -> list[str]:
    """The first models that the server has, where it tells."""
    call = channel.unary_unary(SERVICE + "RepositoryIndex", None, pb.RepositoryIndexResponse.FromString)
    try:
        told: pb.RepositoryIndexResponse = call(b"", timeout=WAIT, metadata=target.metadata)
    except grpc.RpcError:
        return []
    return list(dict.fromkeys(model.name for model in told.models))[:SHOWN]


def _shape(tensor: pb.ModelMetadataResponse.TensorMetadata, batch: int) -> list[int]:
    shape = list(tensor.shape)
    if shape and shape[0] < 0:
        shape[0] = batch
    if any(size < 0 for size in shape):
        dims = ",".join("?" if size < 0 else str(size) for size in shape)
        raise BadInput(f"input {tensor.name!r} has dimensions that are not fixed; give --shape {tensor.name}={dims}")
    return shape


def _bytes(datatype: str) -> int:
    """How many a value takes; the most there are where that is not known yet."""
    return 20 if datatype == "BYTES" else np.dtype(DTYPES.get(datatype, np.float64)).itemsize


def _values(datatype: str, count: int, source: np.random.Generator) -> bytes:
    """Random values, packed as raw_input_contents has them."""
    if datatype == "BYTES":
        letters = random.Random(int(source.integers(1 << 30)))
        return b"".join(_counted(bytes(letters.choices(b"abcdefghijklmnop", k=16))) for _ in range(count))
    if datatype == "BF16":
        return (source.random(count, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if datatype not in DTYPES:
        raise BadInput(f"nobody here knows how to make up {datatype!r}; give a request with --input FILE")
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "f":
        return source.random(count, np.float32).astype(dtype).tobytes()
    return source.integers(0, 2, count).astype(dtype).tobytes()


def _request(given: Any, name: str, version: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    for key, value in given.get("parameters", {}).items():
        choice = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[key], choice, value)
    for each in given["inputs"]:
        shape = [int(size) for size in each["shape"]]
        request.inputs.add(name=each["name"], datatype=each["datatype"], shape=shape)
        packed, count = _packed(each["datatype"], each["data"])
        if count != prod(shape):
            raise ValueError(f"input {each['name']!r} has {count} values, its shape wants {prod(shape)}")
        request.raw_input_contents.append(packed)
    if not request.inputs:
        raise ValueError("it has no inputs")
    return request


def _packed(datatype: str, data: Any) -> tuple[bytes, int]:
    if datatype == "BYTES":
        flat = [str(one).encode() for one in np.asarray(data, dtype=object).ravel()]
        return b"".join(map(_counted, flat)), len(flat)
    if datatype == "BF16":
        values = np.asarray(data, np.float32).ravel()
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes(), values.size
    array: Any = np.asarray(data, DTYPES[datatype]).ravel()
    return array.tobytes(), array.size


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data
