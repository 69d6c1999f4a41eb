"""Errors as statuses that reach the caller whatever is in them."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from matchcut.inference import grpc_service_pb2 as oip
from matchcut.inference import grpc_service_pb2_grpc
from support.wire import Wire


async def test_long_words_of_the_caller_are_cut_in_the_message(wire: Wire) -> None:
    """They would fill the headers, and the caller's gRPC would tell RESOURCE_EXHAUSTED of its own."""
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(wire.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelMetadata(oip.ModelMetadataRequest(name="m" * 100_000))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert (caught.value.details() or "").endswith(" ...")
