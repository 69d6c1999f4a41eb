"""The server's own GRU where it cannot be made, names of sequences that are too long, and sequences that give way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import EngineFailed
from matchcut.server.models import gru


async def test_one_that_cannot_be_made_is_not_ready_and_hides_no_other(config: Config, tmp_path: Path) -> None:
    broken = tmp_path / "gru.onnx"
    broken.write_bytes(gru.write(gru.decaying_mean(48, 2.0)))
    async with App(replace(config, gru=broken)) as app, grpc.aio.insecure_channel(app.address) as channel:
        broken.write_bytes(b"no model")  # after it was checked, and before it is used
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="gru"))).ready
        found = await stub.ModelStatistics(pb.ModelStatisticsRequest())
        assert {one.name for one in found.model_stats} == {"layout", "layout-media"}
        states = {one.name: one.state for one in (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models}
        assert states["gru"] == "UNAVAILABLE"


async def test_a_sequence_s_name_is_bounded(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="gru"))
        width = metadata.inputs[0].shape[1]
        for length, code in ((256, None), (257, grpc.StatusCode.INVALID_ARGUMENT)):
            request = pb.ModelInferRequest(model_name="gru")
            request.inputs.add(name="x", datatype="FP32", shape=[1, width])
            request.raw_input_contents.append(np.ones(width, np.float32).tobytes())
            request.parameters["sequence_id"].string_param = "s" * length
            request.parameters["sequence_start"].bool_param = True
            if code is None:
                assert (await stub.ModelInfer(request)).outputs
                continue
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request)
            assert caught.value.code() is code


@pytest.mark.parametrize("content", [b"no model", gru.write(gru.decaying_mean(47, 2.0))])
async def test_a_file_that_is_no_such_gru_stops_the_start(config: Config, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gru.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineFailed, match=r"gru\.onnx") as caught:
        async with App(replace(config, gru=path)):
            pass
    assert caught.value.reason == "MODEL_INVALID"


def asked(sequence: int, *, start: bool = False) -> pb.ModelInferRequest:
    """A step of the GRU of the small encoder."""
    request = pb.ModelInferRequest(model_name="gru", id=f"{sequence}")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 48])
    request.raw_input_contents.append(np.ones(48, np.float32).tobytes())
    request.parameters["sequence_id"].int64_param = sequence
    request.parameters["sequence_start"].bool_param = start
    return request


@pytest.mark.parametrize("streamed", [True, False])
async def test_one_client_that_takes_all_sequences_gives_half_of_them_to_another(
    config: Config, streamed: bool
) -> None:
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        App(replace(config, models_sequences=4)) as app,
        grpc.aio.insecure_channel(app.address, apart) as flood,
        grpc.aio.insecure_channel(app.address, apart) as other,
    ):
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(flood)
        stream = stub.ModelStreamInfer() if streamed else None

        async def step(sequence: int, *, start: bool = False) -> str:
            if stream is not None:
                await stream.write(asked(sequence, start=start))
                reply = await stream.read()
                assert reply.infer_response.id == f"{sequence}"
                return str(reply.error_message)
            try:
                await stub.ModelInfer(asked(sequence, start=start))
            except grpc.aio.AioRpcError as error:
                return str(error.details())
            return ""

        for sequence in range(1, 5):
            assert not await step(sequence, start=True)
        assert "has 4 sequences, as many as it may have" in await step(5, start=True)
        second = grpc_service_pb2_grpc.GRPCInferenceServiceStub(other)
        for sequence in (1, 2):
            assert (await second.ModelInfer(asked(sequence, start=True))).outputs
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.ModelInfer(asked(3, start=True))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for sequence in (1, 2):
            assert "begin it anew with the START flag" in await step(sequence)
        for sequence in (3, 4):
            assert not await step(sequence)
        if stream is not None:
            await stream.done_writing()
