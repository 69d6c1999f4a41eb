"""A server of the open inference protocol with models made of NumPy, and its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from matchcut.inference import grpc_service_pb2_grpc
from matchcut.server import oip
from matchcut.server.config import Config
from matchcut.server.service.calls import Calls
from support.apart import Apart
from support.fake_models import FakeRepository, repository


@dataclass
class Served:
    """A running server: where, of what, and a caller of it that knows nothing but the messages."""

    address: str
    models: FakeRepository
    stub: grpc_service_pb2_grpc.GRPCInferenceServiceStub


class Serving:
    """Starts such servers, each with options of its own; the fixture stops them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stops: list[Callable[[], Awaitable[Any]]] = []

    async def __call__(self, *, ready: bool = True, **options: Any) -> Served:
        config, models = replace(self._config, **options), repository()
        server, calls = (
            grpc.aio.server(options=[("grpc.max_receive_message_length", config.max_message)]),
            Calls(config),
        )
        regions = oip.add_service(server, models, calls, config, ready=lambda: ready)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        address = f"127.0.0.1:{port}"
        channel = grpc.aio.insecure_channel(address)

        async def stop() -> None:
            await channel.close()
            await server.stop(None)
            await calls.close()
            regions.close()

        self._stops.append(stop)
        return Served(address, models, grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel))

    async def stop(self) -> None:
        for stop in self._stops:
            await stop()


@pytest_asyncio.fixture
async def serving(config: Config) -> AsyncIterator[Serving]:
    """Starts servers."""
    made = Serving(config)
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def served(serving: Serving) -> Served:
    """A server with the default options."""
    return await serving()


@pytest.fixture(scope="session")
def triton() -> Iterator[Apart]:
    """tritonclient, by the functions of support/triton_calls.py."""
    client = Apart("support.triton_calls")
    yield client
    client.close()
