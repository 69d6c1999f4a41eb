"""A running server on the simulated driver: all of the way, from the call to the launch, with its threads."""

from __future__ import annotations

import io
import struct
import threading
from dataclasses import replace
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from cuda_sim.contexts import simulated_context
from cuda_sim.host_work import HostWork
from cuda_sim.simulation import Simulation
from matchcut.inference import grpc_service_pb2 as oip
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.kernels.cuda import Context
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.gpu import exact, pool, preprocess, score, topk
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.engines.tensorrt import loading, prepare
from matchcut.server.engines.tensorrt import manifest as engine_manifest
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch
from support.fake_trt import FakeTrt
from support.wire import Wire

KERNELS = [*exact.KERNELS, *pool.KERNELS, *preprocess.KERNELS, *score.KERNELS, *topk.KERNELS]
VECTORS = np.random.default_rng(1).standard_normal((10, 2, 48)).tolist()
ASKED: list[float] = np.random.default_rng(0).standard_normal(48).tolist()


async def told(wire: Wire) -> list[tuple[str, float]]:
    return [(match.item.item_id, match.score) for match in (await wire.ask(ASKED, limit=100)).matches]


async def test_a_server_from_its_start_to_the_loss_of_its_device(
    simulation: Simulation, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = replace(config, scan_from=16)
    async with App(coded) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire = Wire(channel)
        for at, vectors in enumerate(VECTORS):
            await wire.vectors(f"i{at}", vectors)
        wanted = await told(wire)
    threads = set(threading.enumerate())
    with simulated_context(KERNELS) as context:
        monkeypatch.setattr(Context, "open", lambda ordinal: context)
        monkeypatch.setattr(Manifest, "read", lambda: context._manifest)
        async with App(replace(coded, device="cuda")) as app, grpc.aio.insecure_channel(app.address) as channel:
            wire = Wire(channel)
            await wire.ranked_by("cuda-int8", ASKED)
            assert await told(wire) == wanted
            await wire.ingest("clip", [5])
            reply = await wire.clip(5)
            assert reply.matches[0].item.item_id == "clip"
            assert {name: one.variant for name, one in wire.stages(reply).items() if "cuda" in one.variant} == {
                "preprocess": "cuda-90",
                "pool": "cuda-90",
                "rank": "cuda-int8",
            }
            simulation.fail_launch(3)
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await wire.ask(ASKED)
                assert Wire.told(caught.value) == ("UNAVAILABLE", "DEVICE_LOST", "")
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    # PyCUDA ends the process where a thread ends with a context of its own.
    assert not [thread for thread in set(threading.enumerate()) - threads if "matchcut" in thread.name]


def layout(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the small encoder computes; see conftest.py."""
    cells = batch.reshape(len(batch), 3, 4, 8, 4, 8).mean((3, 5), dtype=np.float32)
    vectors: NDArray[np.float32] = cells.reshape(len(batch), -1) + np.float32(0.05)
    return vectors


def grey(level: int) -> bytes:
    """A picture as the inference protocol has it: the length of a PNG file, and the file."""
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (level, level, level)).save(out, "PNG")
    return struct.pack("<I", len(out.getvalue())) + out.getvalue()


def seeing(monkeypatch: pytest.MonkeyPatch, simulation: Simulation) -> FakeTrt:
    """Lets --engine tensorrt find a library whose network runs on the simulation, and an engine that is built."""
    trt = FakeTrt(graphs=False)
    trt.tensors = {"pixels": ("in", (-1, 3, 32, 32), "float"), "embedding": ("out", (-1, 48), "float")}
    trt.network, trt.launched = layout, HostWork(simulation)
    made = engine_manifest.Manifest("e", "", 0, "", "tensorrt", "10.9", (90,), Batch(1, 8, 32), "fp32", "")
    monkeypatch.setattr(libraries, "find", lambda name: Library(trt, name, "10.9", ()))
    monkeypatch.setattr(loading, "prepare", lambda *_, **__: prepare.Built(made, b"plan", ""))
    return trt


async def test_a_server_whose_encoder_is_on_the_gpu_too(
    simulation: Simulation, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = replace(config, scan_from=16, still=0.0)
    clips = {f"clip{shade}": [shade, 240 - shade] for shade in (5, 60, 110, 200)}

    async def filled(wire: Wire) -> list[tuple[str, float]]:
        for at, vectors in enumerate(VECTORS):
            await wire.vectors(f"i{at}", vectors)
        for name, shades in clips.items():
            await wire.ingest(name, shades)
        return [(match.item.item_id, match.score) for match in (await wire.clip(60)).matches]

    async with App(coded) as app, grpc.aio.insecure_channel(app.address) as channel:
        wanted = await filled(Wire(channel))
    with simulated_context(KERNELS) as context:
        monkeypatch.setattr(Context, "open", lambda ordinal: context)
        monkeypatch.setattr(Manifest, "read", lambda: context._manifest)
        trt = seeing(monkeypatch, simulation)
        on_gpu = replace(coded, data=config.data.with_name("other"), device="cuda", engine="tensorrt")
        async with App(on_gpu) as app, grpc.aio.insecure_channel(app.address) as channel:
            wire = Wire(channel)
            found = await filled(wire)
            assert [name for name, _ in found] == [name for name, _ in wanted]
            np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=1e-5)
            await wire.ranked_by("cuda-int8", ASKED)
            times = wire.stages(await wire.clip(60))
            assert {name: one.variant for name, one in times.items() if name in ("preprocess", "encode", "pool")} == {
                "preprocess": "cuda-90",
                "encode": "tensorrt-fp32",
                "pool": "cuda-90",
            }
            assert simulation.counts.replays > 0, "the network's launches were never started as one"
            model = oip.ModelInferRequest(model_name="layout-media", raw_input_contents=[grey(90)])
            model.inputs.add(name="media", datatype="BYTES", shape=[1, 1])
            stub: Any = grpc_service_pb2_grpc
            answer = await stub.GRPCInferenceServiceStub(channel).ModelInfer(model)
            np.testing.assert_allclose(
                np.frombuffer(answer.raw_output_contents[0], np.float32),
                np.full(48, (90 - 127) / 128 + 0.05),
                atol=1e-5,
            )
            runs = len(trt.runs)
            simulation.fail_launch(1)  # the next, which preprocesses
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await wire.clip(110)
            assert Wire.told(caught.value) == ("UNAVAILABLE", "DEVICE_LOST", "")
            assert len(trt.runs) <= runs + 1
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
