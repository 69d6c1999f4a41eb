"""The server's own encoder as models: tensors, pictures as files, H.264 access units; and how it is left out."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines, models
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.convert import Converter
from matchcut.server.records import Floats, InputSize, MediaLimits, Pixels
from matchcut.server.serving.encoder_model import picture
from support.apart import Apart

SIZE = InputSize(32, 32)
LIMITS = MediaLimits()


def drawn(seed: int, side: int = 64) -> Pixels:
    """A picture of 4x4 coloured cells."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.repeat(np.repeat(cells, side // 4, axis=0), side // 4, axis=1)


def file(pixels: Pixels, kind: str) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def access_unit(pixels: Pixels) -> bytes:
    """The picture as one H.264 access unit with its parameter sets, in Annex B form."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
    context.time_base, context.options = 1, {"tune": "zerolatency", "crf": "10"}  # type: ignore[assignment]
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def files(*contents: bytes) -> list[tuple[str, str, Any]]:
    """Input of the media model."""
    rows = np.empty((len(contents), 1), np.object_)
    rows[:, 0] = contents
    return [("media", "BYTES", rows)]


@pytest.fixture(scope="module")
def engine(small_encoder: Path) -> Any:
    """The encoder, to compare with."""
    loaded = engines.load(models.load(small_encoder), engine="onnxruntime", threads=1)
    yield loaded
    loaded.close()


def embedded(engine: Any, *pictures: Pixels) -> Floats:
    """What the pipeline makes of pictures of the encoder's size."""
    encoder = engine.encoder
    result: Floats = engine.run(preprocess(np.stack(pictures), encoder.mean, encoder.std, encoder.layout))
    return result


async def test_the_encoder_answers_for_its_own_tensors(app: App, triton: Apart, engine: Any) -> None:
    told = await triton.run("descriptions", app.address, "layout")
    assert told["model"] == {
        "name": "layout",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": ["-1", "3", "32", "32"]}],
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": ["-1", "48"]}],
    }
    assert [(entry["name"], entry["state"]) for entry in told["index"]] == [
        ("layout", "READY"),
        ("layout-media", "READY"),
        ("gru", "READY"),
    ]
    pixels = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    answer = await triton.run("infer", app.address, "layout", [("pixels", "FP32", pixels)])
    assert np.allclose(answer["outputs"]["embedding"], engine.run(pixels), atol=1e-6)


async def test_no_model_calls_itself_an_ensemble_without_saying_of_which(app: App, triton: Apart) -> None:
    """perf_analyzer looks for an ensemble's models in its configuration, and dies of a fault where they are not."""
    for name in ("layout", "layout-media", "gru"):
        told = await triton.run("descriptions", app.address, name)
        platforms = {told["model"]["platform"], told["config"]["platform"], told["config"]["backend"]}
        assert "ensemble" not in platforms or "ensemble_scheduling" in told["config"]


async def test_pictures_as_files_are_embedded_as_the_pipeline_does(app: App, triton: Apart, engine: Any) -> None:
    contents = [file(drawn(1), "JPEG"), file(drawn(2), "PNG"), access_unit(drawn(3))]
    answer = await triton.run("infer", app.address, "layout-media", files(*contents))
    vectors = answer["outputs"]["embedding"]
    converter = Converter(SIZE)
    assert np.allclose(vectors, embedded(engine, *(picture(one, converter, LIMITS) for one in contents)), atol=1e-6)
    # The small encoder gives the mean of each cell, so the vector says what is in the picture.
    cells = [drawn(seed).reshape(4, 16, 4, 16, 3).mean((1, 3)).transpose(2, 0, 1).reshape(-1) for seed in (1, 2, 3)]
    errors = np.abs((vectors - 0.05) * 128 + 127 - cells).max(axis=1)
    assert (errors < [16, 1, 16]).all(), errors
    (counted,) = (await triton.run("descriptions", app.address, "layout-media"))["statistics"]
    parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    assert {counted["inference_stats"][part]["count"] for part in parts} == {"1"}
    assert (counted["inference_count"], counted["execution_count"]) == ("3", "1")


async def test_both_count_their_runs(app: App, triton: Apart) -> None:
    requests = [files(file(drawn(seed), "PNG")) for seed in range(12)]
    answers = await triton.run("infer_at_once", app.address, "layout-media", requests)
    assert len({answer["outputs"]["embedding"].tobytes() for answer in answers}) == 12
    for name in ("layout", "layout-media"):
        (counted,) = (await triton.run("descriptions", app.address, name))["statistics"]
        assert counted["inference_count"] == "12"
        runs = {int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in counted["batch_stats"]}
        assert 1 <= sum(runs.values()) == int(counted["execution_count"]) <= 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no picture", "neither JPEG nor PNG"),
        (file(drawn(1), "JPEG")[:200], "damaged"),
        (b"\0\0\0\1" + b"no access unit" * 9, "row 1 of 'media'"),
        (b"\0\0\1", "row 1 of 'media'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0", "scale"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "neither JPEG nor PNG"),
    ],
)
async def test_what_is_no_picture_is_told_with_its_row(content: bytes, words: str, app: App, triton: Apart) -> None:
    told = await triton.run("infer", app.address, "layout-media", files(file(drawn(1), "PNG"), content))
    assert told["status"] == "INVALID_ARGUMENT"
    assert told["message"].startswith("row 1 of 'media': ")
    assert words in told["message"]


async def test_no_embedding_is_made_of_what_is_no_number(app: App, triton: Apart) -> None:
    for value in (np.nan, np.inf, -np.inf):
        pixels = np.full((1, 3, 32, 32), 0, np.float32)
        pixels[0, 2, 31, 31] = value
        told = await triton.run("infer", app.address, "layout", [("pixels", "FP32", pixels)])
        assert told["status"] == "INVALID_ARGUMENT"
        assert "not finite" in told["message"]


async def test_the_encoder_s_models_stay_loaded(config: Config, triton: Apart) -> None:
    async with App(replace(config, model_control="explicit")) as app:
        for method in ("load_model", "unload_model"):
            told = await triton.run("call", app.address, method, "layout")
            assert told["status"] == "INVALID_ARGUMENT"
            assert "stays loaded" in told["message"]


async def test_health_is_told_of_each_model(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("model/layout", "model/layout-media", "inference.GRPCInferenceService"):
            told = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError, match="model/<name>") as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="model/nothing"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_what_it_takes(app: App) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        ]
        listed, found = [reply async for reply in stub.ServerReflectionInfo(iter(requests))]
    assert "inference.GRPCInferenceService" in {one.name for one in listed.list_services_response.service}
    assert any(b"ModelStreamInfer" in one for one in found.file_descriptor_response.file_descriptor_proto)


async def test_it_can_be_left_out(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = replace(config, oip="off", models=tmp_path / "models")
    async with App(options) as app, grpc.aio.insecure_channel(app.address) as channel:
        assert "--oip is off" in caplog.text
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest())
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("model/layout", "inference.GRPCInferenceService"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_it_asks_for_the_token_too(config: Config, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    async with App(replace(config, token_file=tokens)) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(pb.ModelInferRequest(model_name="layout"))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        reply = await stub.ServerLive(pb.ServerLiveRequest(), metadata=(("authorization", "Bearer secret"),))
        assert reply.live
