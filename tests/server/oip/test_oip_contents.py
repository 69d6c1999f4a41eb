"""Elements that come one by one instead of packed."""

from __future__ import annotations

from typing import Any

import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb


def request(model: str, name: str, dtype: str, shape: tuple[int, ...], **values: Any) -> pb.ModelInferRequest:
    """A request with one input."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=dtype, shape=shape)
    tensor.contents.MergeFrom(pb.InferTensorContents(**values))
    tensor.contents.SetInParent()
    return pb.ModelInferRequest(model_name=model, inputs=[tensor])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("BOOL", {"bool_contents": [True, False]}, [True, False]),
        ("INT8", {"int_contents": [-128, 127]}, [-128, 127]),
        ("INT16", {"int_contents": [-(2**15), 7]}, [-(2**15), 7]),
        ("INT32", {"int_contents": [-(2**31), 2**31 - 1]}, [-(2**31), 2**31 - 1]),
        ("INT64", {"int64_contents": [-(2**63), 2**63 - 1]}, [-(2**63), 2**63 - 1]),
        ("UINT8", {"uint_contents": [0, 255]}, [0, 255]),
        ("UINT16", {"uint_contents": [0, 2**16 - 1]}, [0, 2**16 - 1]),
        ("UINT32", {"uint_contents": [0, 2**32 - 1]}, [0, 2**32 - 1]),
        ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, [0, 2**64 - 1]),
        ("FP32", {"fp32_contents": [0.5, -1e30]}, np.array([0.5, -1e30], np.float32).tolist()),
        ("FP64", {"fp64_contents": [0.1, -1e300]}, [0.1, -1e300]),
    ],
)
async def test_elements_may_come_one_by_one(dtype: str, values: Any, expected: list[Any], served: Any) -> None:
    reply = await served.stub.ModelInfer(request(f"echo_{dtype}", "in", dtype, (1, 2), **values))
    kind = np.dtype({"BOOL": "?", "FP32": "f4", "FP64": "f8"}.get(dtype, dtype.lower()))
    assert np.frombuffer(reply.raw_output_contents[0], kind).tolist() == expected


async def test_strings_may_come_one_by_one(served: Any) -> None:
    reply = await served.stub.ModelInfer(request("words", "text", "BYTES", (2, 1), bytes_contents=[b"a\0", b""]))
    assert reply.raw_output_contents[0] == b"\2\0\0\0A\0\0\0\0\0"


@pytest.mark.parametrize(
    ("dtype", "values", "words"),
    [
        ("INT8", {"int_contents": [128, 0]}, "out of the range of INT8"),
        ("INT16", {"int_contents": [0, -40_000]}, "out of the range of INT16"),
        ("UINT8", {"uint_contents": [256, 0]}, "out of the range of UINT8"),
        ("FP16", {"fp32_contents": [1, 2]}, "can only come in raw_input_contents"),
        ("BF16", {"uint_contents": [1, 2]}, "can only come in raw_input_contents"),
        ("FP16", {}, "unexpected number of elements 0"),
    ],
)
async def test_elements_have_to_fit_their_type(dtype: str, values: Any, words: str, served: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await served.stub.ModelInfer(request(f"echo_{dtype}", "in", dtype, (1, 2), **values))
    assert caught.value.code().name == "INVALID_ARGUMENT"
