"""Requests that are wrong or meant to harm: each is refused with the status that Triton gives, and nothing is run."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb

Change = Callable[[pb.ModelInferRequest], Any]


def request(
    model: str = "double", name: str = "x", dtype: str = "FP32", shape: tuple[int, ...] = (1, 4), raw: bytes = bytes(16)
) -> pb.ModelInferRequest:
    """A request with one input."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=dtype, shape=shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw])


def shaped(*shape: int) -> Change:
    """Sets the shape of the only input."""
    return lambda request: request.inputs[0].MergeFrom(with_shape(request, shape))


def with_shape(request: pb.ModelInferRequest, shape: tuple[int, ...]) -> pb.ModelInferRequest.InferInputTensor:
    del request.inputs[0].shape[:]
    return pb.ModelInferRequest.InferInputTensor(shape=shape)


def contents(**values: Any) -> Change:
    """Elements one by one instead of raw ones."""

    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].contents.MergeFrom(pb.InferTensorContents(**values))

    return change


def parameter(name: str, **value: Any) -> Change:
    """A parameter of the request."""
    return lambda request: request.parameters[name].MergeFrom(pb.InferParameter(**value))


def input_parameters(**values: pb.InferParameter) -> Change:
    """Parameters of the input."""

    def change(request: pb.ModelInferRequest) -> None:
        for name, value in values.items():
            request.inputs[0].parameters[name].MergeFrom(value)

    return change


def output(name: str, times: int = 1, **values: pb.InferParameter) -> Change:
    """Asks for an output."""

    def change(request: pb.ModelInferRequest) -> None:
        for _ in range(times):
            asked = request.outputs.add(name=name)
            for key, value in values.items():
                asked.parameters[key].MergeFrom(value)

    return change


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(request: pb.ModelInferRequest) -> None:
        for each in changes:
            each(request)

    return change


def renamed(name: str) -> Change:
    return lambda request: setattr(request.inputs[0], "name", name)


def typed(dtype: str) -> Change:
    return lambda request: setattr(request.inputs[0], "datatype", dtype)


def model(name: str, version: str = "") -> Change:
    return lambda request: request.MergeFrom(pb.ModelInferRequest(model_name=name, model_version=version))


def raw(*values: bytes) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(values)

    return change


INT, TEXT, FLAG = (
    pb.InferParameter(int64_param=4),
    pb.InferParameter(string_param="r"),
    pb.InferParameter(bool_param=True),
)
INVALID = "INVALID_ARGUMENT"
WRONG: dict[str, tuple[Change, str, str]] = {
    "no such model": (model("nothing"), "NOT_FOUND", "Request for unknown model: 'nothing' is not found"),
    "no name": (lambda request: request.ClearField("model_name"), "NOT_FOUND", "unknown model: '' is not found"),
    "a null character in the model's name": (model("double\0"), "NOT_FOUND", "Request for unknown model"),
    "a path as the model's name": (model("../double"), "NOT_FOUND", "Request for unknown model"),
    "no such version": (model("double", "7"), "NOT_FOUND", "'double' version 7 is not found"),
    "a version that is no number": (model("double", "-1\0x"), "NOT_FOUND", "is not found"),
    "a model that is not loaded": (model("broken"), "UNAVAILABLE", "is not loaded"),
    "another input": (renamed("z"), INVALID, "unexpected inference input 'z' for model 'double'"),
    "a null character in the input's name": (renamed("x\0"), INVALID, "unexpected inference input"),
    "no input": (
        lambda request: request.ClearField("inputs"),
        INVALID,
        "expected 1 inputs but got 0 inputs for model 'double'.*missing required input.*'x'",
    ),
    "an input twice": (
        lambda request: request.inputs.add().CopyFrom(request.inputs[0]),
        INVALID,
        "input 'x' already exists in request",
    ),
    "another type": (typed("INT32"), INVALID, "data-type is 'INT32', but model 'double' expects 'FP32'"),
    "no such type": (typed("FP31\0"), INVALID, "data-type is '<invalid>', but model 'double' expects 'FP32'"),
    "no shape": (shaped(), INVALID, "'x' has no shape but model requires batch dimension for 'double'"),
    "another number of sizes": (shaped(4), INVALID, r"unexpected shape for input 'x'.*Expected \[-1,4\], got \[4\]"),
    "ten thousand sizes": (shaped(*[1] * 10_000), INVALID, "got 10000 sizes"),
    "another size": (shaped(1, 5), INVALID, r"Expected \[-1,4\], got \[1,5\]"),
    "an open size": (shaped(-1, 4), INVALID, r"All input dimensions should be specified.*got \[-1,4\]"),
    "a negative size": (shaped(-(2**63), 4), INVALID, "All input dimensions should be specified"),
    "no rows": (
        lambda request: (shaped(0, 4)(request), raw(b"")(request)),
        INVALID,
        "batch-size must be <= 8 and at least 1 for 'double', not 0",
    ),
    "too many rows": (
        lambda request: (shaped(9, 4)(request), raw(bytes(144))(request)),
        INVALID,
        "inference request batch-size must be <= 8 .* for 'double', not 9",
    ),
    "two gibibytes claimed": (shaped(2**29, 4), INVALID, "Expected 8589934592, got 16"),
    "a size that overflows": (shaped(2**62, 4), INVALID, "Expected 73786976294838206464, got 16"),
    "too few bytes": (
        raw(bytes(15)),
        INVALID,
        "input byte size mismatch for input 'x' for model 'double'. Expected 16",
    ),
    "too many bytes": (raw(bytes(17)), INVALID, "Expected 16, got 17"),
    "no bytes": (raw(), INVALID, "unable to find data for input 'x' for model 'double' in request"),
    "bytes for more inputs": (raw(bytes(16), b""), INVALID, "2 raw_input_contents, more than inputs"),
    "raw and not": (
        lambda request: request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4]),
        INVALID,
        "contents field must not be specified when using raw_input_contents",
    ),
    "elements of another type": (contents(int_contents=[1, 2, 3, 4]), INVALID, "unexpected explicit tensor data"),
    "elements of two types": (
        contents(fp32_contents=[1, 2, 3, 4], bytes_contents=[b""]),
        INVALID,
        "unexpected explicit tensor data in bytes_contents",
    ),
    "too few elements": (contents(fp32_contents=[1]), INVALID, "unexpected number of elements 1 .* expecting 4"),
    "another output": (output("z"), INVALID, "unexpected inference output 'z' for model 'double'"),
    "an output twice, each time in another way": (
        both(output("y"), output("y", classification=INT)),
        INVALID,
        "output 'y' already exists in request",
    ),
    "classes by another type": (output("y", classification=TEXT), INVALID, "'classification' .* expected int64_param"),
    "no classes": (
        output("y", classification=pb.InferParameter(int64_param=0)),
        INVALID,
        "invalid value for 'classification' parameter .* expected value >= 1",
    ),
    "classes in shared memory": (
        output("y", classification=INT, shared_memory_region=TEXT, shared_memory_byte_size=INT),
        INVALID,
        "output can't set both 'shared_memory_region' and 'classification'",
    ),
    "a sequence by another type": (
        parameter("sequence_id", double_param=1),
        INVALID,
        "invalid value type for 'sequence_id' parameter, expected int64_param or string_param",
    ),
    "a start by another type": (parameter("sequence_start", int64_param=1), INVALID, "expected bool_param"),
    "an end by another type": (parameter("sequence_end", string_param="true"), INVALID, "expected bool_param"),
    "an empty parameter": (parameter("sequence_end"), INVALID, "expected bool_param"),
    "a timeout by another type": (parameter("timeout", double_param=1), INVALID, "expected int64_param"),
    "a negative timeout": (parameter("timeout", int64_param=-1), INVALID, "'timeout' .* expected value >= 0"),
    "a negative priority": (parameter("priority", int64_param=-1), INVALID, "'priority' .* expected value >= 0"),
    "shared memory without a size": (
        input_parameters(shared_memory_region=TEXT),
        INVALID,
        "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'x'",
    ),
    "a size without shared memory": (
        input_parameters(shared_memory_byte_size=INT),
        INVALID,
        "'shared_memory_byte_size' can not be specified without 'shared_memory_region'",
    ),
    "an offset without shared memory": (
        input_parameters(shared_memory_offset=INT),
        INVALID,
        "'shared_memory_offset' can not be specified without 'shared_memory_region'",
    ),
    "a region by another type": (
        input_parameters(shared_memory_region=FLAG, shared_memory_byte_size=INT),
        INVALID,
        "invalid value type for 'shared_memory_region' parameter for tensor 'x', expected string_param",
    ),
    "shared memory where it is off": (
        input_parameters(shared_memory_region=TEXT, shared_memory_byte_size=INT),
        "PERMISSION_DENIED",
        "--shared-memory",
    ),
    "an output in shared memory where it is off": (
        output("y", shared_memory_region=TEXT, shared_memory_byte_size=INT),
        "PERMISSION_DENIED",
        "--shared-memory",
    ),
}


async def refused(served: Any, message: pb.ModelInferRequest) -> tuple[str, str]:
    """Status and words of a request that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelInfer(message)
    return caught.value.code().name, str(caught.value.details())


@pytest.mark.parametrize("what", WRONG)
async def test_it_is_refused_as_triton_does(what: str, served: Any) -> None:
    change, status, words = WRONG[what]
    message = request()
    change(message)
    told = await refused(served, message)
    assert told[0] == status, told
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        raise AssertionError(told[1])
    assert served.models["double"].runs == 0
    assert (await served.stub.ModelInfer(request())).raw_output_contents[0] == bytes(16), "it goes on serving"


async def test_a_model_with_state_needs_a_sequence(served: Any) -> None:
    message = request("total", "value", shape=(1, 1), raw=bytes(4))
    for change in (lambda _: None, parameter("sequence_id", int64_param=0), parameter("sequence_id", string_param="")):
        change(message)
        status, words = await refused(served, message)
        assert status == INVALID
        assert "must specify a non-zero or non-empty correlation ID" in words


async def test_rows_of_two_inputs_have_to_agree(served: Any) -> None:
    message = request("add_sub", "a", "INT32", (2, 3), bytes(24))
    message.inputs.add(name="b", datatype="INT32", shape=(1, 3))
    message.raw_input_contents.append(bytes(12))
    assert await refused(served, message) == (INVALID, "input 'b' batch size does not match other inputs for 'add_sub'")


@pytest.mark.parametrize(
    ("raw", "rows", "words"),
    [
        (b"\x05\0\0\0abc", 1, "incomplete string data"),
        (struct.pack("<I", 2) + b"ab" + b"\0\0", 2, "incomplete string length indicator"),
        (b"\xff\xff\xff\xff", 1, "expecting string of length 4294967295 but only 0 bytes"),
        (struct.pack("<I", 0) * 2, 1, "unexpected number of string elements 2"),
        (struct.pack("<I", 4) + bytes(4), 2, "expected 2 string elements"),
        (b"\0\0\0", 1, "no room for so many"),
    ],
)
async def test_strings_have_to_be_whole(raw: bytes, rows: int, words: str, served: Any) -> None:
    status, told = await refused(served, request("words", "text", "BYTES", (rows, 1), raw))
    assert status == INVALID
    assert words in told


async def test_a_billion_strings_cannot_be_claimed(served: Any) -> None:
    status, told = await refused(served, request("echo_BYTES", "in", "BYTES", (2**40, 2**40), bytes(64)))
    assert status == INVALID
    assert "no room for so many" in told


async def test_what_is_no_number_is_an_element_as_others(served: Any) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0]], np.float32)
    reply = await served.stub.ModelInfer(request(raw=values.tobytes()))
    assert np.array_equal(np.frombuffer(reply.raw_output_contents[0], np.float32), values[0], equal_nan=True)


async def test_nothing_is_a_tensor_where_rows_are_not_counted(served: Any) -> None:
    reply = await served.stub.ModelInfer(request("echo_FP32", "in", shape=(0, 7), raw=b""))
    assert list(reply.outputs[0].shape) == [0, 7]
    assert list(reply.raw_output_contents) == [b""]
    words = await served.stub.ModelInfer(request("echo_BYTES", "in", "BYTES", (3, 0), b""))
    assert list(words.outputs[0].shape) == [3, 0]


async def test_classes_are_of_numbers_only(served: Any) -> None:
    message = request("words", "text", "BYTES", (1, 1), b"\1\0\0\0a")
    output("capitals", classification=INT)(message)
    status, told = await refused(served, message)
    assert status == INVALID
    assert "class result not available for output due to unsupported type 'BYTES'" in told


async def test_a_message_has_a_largest_size(serving: Any) -> None:
    served = await serving(max_message=1 << 20)
    status, _ = await refused(served, request(raw=bytes(1 << 21)))
    assert status == "RESOURCE_EXHAUSTED"
    assert served.models["double"].runs == 0


async def test_another_repository_is_refused(served: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="/etc"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_index_can_be_of_those_that_are_ready(served: Any) -> None:
    everything = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    ready = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert {one.name for one in everything.models} - {one.name for one in ready.models} == {"broken"}
    assert {one.state for one in ready.models} == {"READY"}
