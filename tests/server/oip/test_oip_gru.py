"""The server's own GRU where it cannot be made, and names of sequences that are too long."""

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


async def test_one_that_cannot_be_made_is_not_ready_and_hides_no_other(config: Config, tmp_path: Path) -> None:
    broken = tmp_path / "gru.onnx"
    broken.write_bytes(b"no model")
    async with App(replace(config, gru=broken)) as app, grpc.aio.insecure_channel(app.address) as channel:
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
