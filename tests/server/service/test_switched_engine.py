"""After a switch the old encoder's engine goes, but not before the last request that uses it is over."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as inference
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.v1 import catalog_pb2, media_pb2
from matchcut.v1 import recommender_pb2 as pb
from support.encoders import write_coarse
from support.wire import Wire


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Those that are made, in order. What goes meanwhile was held by nobody: no garbage is collected."""
    made: list[Any] = []
    make = App._engine

    def kept(self: App, *arguments: Any) -> Any:
        made.append(make(self, *arguments))
        return made[-1]

    monkeypatch.setattr(App, "_engine", kept)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


async def until_closed(engine: Any) -> None:
    """Waits until an engine is closed."""
    began = time.monotonic()
    while not engine._closed:
        assert time.monotonic() - began < 30, "somebody still holds it"
        await asyncio.sleep(0.005)


def embedded(model: str) -> inference.ModelInferRequest:
    """A request for the vector of one grey picture."""
    request = inference.ModelInferRequest(model_name=model)
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 3, 32, 32])
    request.raw_input_contents.append(np.ones((1, 3, 32, 32), np.float32).tobytes())
    return request


@pytest.mark.parametrize("oip", ["on", "off"])
async def test_it_is_closed_when_its_last_request_is_over(
    config: Config, tmp_path: Path, engines: list[Any], oip: str
) -> None:
    config = replace(config, next_encoder=write_coarse(tmp_path / "next"), oip=oip)
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, go_on = Wire(channel), asyncio.Event()
        old, new = engines
        assert (await wire.ingest("a", [1])).item.item_id == "a"
        await wire.send(
            catalog_pb2.IngestHeader(
                item=catalog_pb2.Item(item_id="a"), media=wire.frame_header(), for_next_encoder=True
            ),
            wire.chunks(1),
        )

        async def camera() -> AsyncIterator[media_pb2.MediaChunk]:
            for chunk in wire.chunks(1, 2):
                yield chunk
            await go_on.wait()
            for chunk in wire.chunks(1, 2, 3)[2:]:
                yield chunk

        header = pb.RecommendLiveHeader(media=wire.frame_header(), options=pb.RankOptions(frames_per_update=1))
        live = wire.live(header, camera())
        replies = aiter(live)
        assert (await anext(replies)).encoder.name == "layout"
        assert (await wire.catalog.SwitchEncoder(catalog_pb2.SwitchEncoderRequest())).switched
        assert (await wire.clip(1)).encoder.name == "coarse"
        await asyncio.sleep(0.1)
        assert not old._closed, "a request that began before uses it still"
        go_on.set()
        last = [reply async for reply in replies][-1]
        assert (last.final, last.encoder.name) == (True, "layout")
        await until_closed(old)
        assert not new._closed
        assert (await wire.clip(1)).encoder.name == "coarse"
    assert new._closed


async def test_clients_of_the_inference_protocol_get_the_encoder_that_answers(
    config: Config, tmp_path: Path, engines: list[Any]
) -> None:
    config = replace(config, next_encoder=write_coarse(tmp_path / "next"))
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        wire, stub = Wire(channel), grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ready() -> set[str]:
            found = await stub.RepositoryIndex(inference.RepositoryIndexRequest(ready=True))
            return {one.name for one in found.models} - {"gru"}

        assert await ready() == {"layout", "layout-media"}
        assert (await stub.ModelInfer(embedded("layout"))).outputs[0].shape == [1, 48]
        await wire.catalog.SwitchEncoder(catalog_pb2.SwitchEncoderRequest(force=True))
        assert await ready() == {"coarse", "coarse-media"}
        assert (await stub.ModelInfer(embedded("coarse"))).outputs[0].shape == [1, 12]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(embedded("layout"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await until_closed(engines[0])


async def test_without_a_switch_both_are_there_to_the_end(config: Config, tmp_path: Path, engines: list[Any]) -> None:
    async with App(replace(config, next_encoder=write_coarse(tmp_path / "next"))) as app:
        assert app.address
        await asyncio.sleep(0.1)
        assert [engine._closed for engine in engines] == [False, False]
    assert [engine._closed for engine in engines] == [True, True]
