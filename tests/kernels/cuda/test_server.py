"""A running server on the simulated driver: all of the way, from the call to the launch, with its threads."""

from __future__ import annotations

import threading
from dataclasses import replace

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Context
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.gpu import exact, pool, preprocess, score, topk
from matchcut.server.app import App
from matchcut.server.config import Config
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
