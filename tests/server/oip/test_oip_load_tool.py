"""What Triton's load generator, perf_analyzer, asks beside its requests, and sends as other clients do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.app import App
from matchcut.server.config import Config
from support import onnx_models
from support.apart import Apart
from support.fake_models import FakeRepository

DOUBLE = [("x", "FP32", np.ones((2, 4), np.float32))]


def statistics(name: str, version: str = "") -> pb.ModelStatisticsRequest:
    return pb.ModelStatisticsRequest(name=name, version=version)


async def test_one_model_s_statistics_need_no_look_at_the_folder(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for while requests run, and those answered before count as none: so a look would be too slow."""
    looks = []
    index = FakeRepository.index

    def looked(self: FakeRepository) -> Any:
        looks.append(self)
        return index(self)

    monkeypatch.setattr(FakeRepository, "index", looked)
    for version in ("", "1"):
        reply = await served.stub.ModelStatistics(statistics("double", version))
        assert [(one.name, one.version) for one in reply.model_stats] == [("double", "1")]
    assert not looks
    reply = await served.stub.ModelStatistics(statistics(""))
    assert {one.name for one in reply.model_stats} >= {"double", "total"}
    assert looks, "for all models it is looked"


async def test_statistics_are_of_each_version_that_is_ready(config: Config, triton: Apart, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for version in (1, 2):
        onnx_models.write(folder / "double" / str(version), onnx_models.scale(2.0))
    (folder / "double" / "model.toml").write_text("keep = 2\n")
    async with App(replace(config, models=folder)) as app:
        ones = [("x", "FP32", np.ones((3, 3), np.float32))]
        assert "status" not in await triton.run("infer", app.address, "double", ones, model_version="2")
        told = await triton.run("call", app.address, "get_inference_statistics", "double", as_json=True)
        counts = {one["version"]: int(one.get("inference_count", 0)) for one in told["model_stats"]}
        assert counts == {"1": 0, "2": 3}
        told = await triton.run("call", app.address, "get_inference_statistics", "double", "3", as_json=True)
        assert told["status"] == "NOT_FOUND"


async def test_a_request_that_was_answered_is_counted(served: Any) -> None:
    """The tool takes the difference of two counts, before and after, and ends where they lack what it sent."""
    before = await served.stub.ModelStatistics(statistics("double"))
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2, 4])
    for _ in range(5):
        await served.stub.ModelInfer(
            pb.ModelInferRequest(
                model_name="double", inputs=[tensor], raw_input_contents=[np.ones(8, np.float32).tobytes()]
            )
        )
        after = await served.stub.ModelStatistics(statistics("double"))
        (old,), (new,) = before.model_stats, after.model_stats
        assert new.inference_stats.success.count == old.inference_stats.success.count + 1
        assert new.inference_count == old.inference_count + 2
        before = after


async def test_regions_are_unregistered_where_there_are_none(served: Any, triton: Apart) -> None:
    """So the tool begins and ends with --shared-memory, whatever the server has."""
    for method in ("unregister_system_shared_memory", "unregister_cuda_shared_memory"):
        assert await triton.run("call", served.address, method) is None


async def test_what_it_adds_to_requests_changes_nothing(served: Any, triton: Apart) -> None:
    parameters = {"max_tokens": 256, "ignore_eos": True, "note": "none"}
    answer = await triton.run("infer", served.address, "double", DOUBLE, parameters=parameters, priority=2)
    assert (answer["outputs"]["y"] == 2).all()


async def test_compressed_requests_are_answered(served: Any, triton: Apart) -> None:
    for way in ("gzip", "deflate"):
        answer = await triton.run("infer", served.address, "double", DOUBLE, compression_algorithm=way)
        assert (answer["outputs"]["y"] == 2).all()


@pytest.mark.parametrize("length", range(8))
async def test_ids_of_any_length_move_the_tensor_and_nothing_else(length: int, app: App, triton: Apart) -> None:
    """Its ids grow from "0_0" on, and with them the address at which the tensor lies in the message.

    The message is so large that the engine gets the tensor where it lies, which cannot be written to.
    """
    pixels = np.random.default_rng(3).normal(size=(1, 3, 32, 32)).astype(np.float32)
    plain, named = [
        await triton.run("infer", app.address, "layout", [("pixels", "FP32", pixels)], request_id=one)
        for one in ("", "7" * length)
    ]
    assert "status" not in named, named
    assert named["id"] == "7" * length
    assert np.array_equal(named["outputs"]["embedding"], plain["outputs"]["embedding"])
