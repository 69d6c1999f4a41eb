"""The health service: what it says of the server, its services and its models, and to whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from matchcut.server.health import NOT_SERVING, SERVING, UNKNOWN, Health
from matchcut.server.serving import IndexEntry, ModelState
from support.fake_models import FakeRepository, repository


class Watched:
    """A health service, the models that it follows, and a caller."""

    def __init__(self, health: Health, models: FakeRepository, channel: grpc.aio.Channel) -> None:
        self.health, self.models = health, models
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def check(self, name: str) -> int:
        reply = await self._stub.Check(health_pb2.HealthCheckRequest(service=name))
        return int(reply.status)

    def watch(self, name: str) -> Any:
        return self._stub.Watch(health_pb2.HealthCheckRequest(service=name))


@pytest_asyncio.fixture
async def watched() -> AsyncIterator[Watched]:
    """Not serving yet."""
    models = repository()
    health = Health(["a.B"])
    health.follow(models.index)
    server = grpc.aio.server()
    health.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Watched(health, models, channel)
    await health.end()
    await server.stop(None)


async def next_status(call: Any) -> int:
    return int((await asyncio.wait_for(call.read(), 30)).status)


async def test_it_serves_from_serve_to_end(watched: Watched) -> None:
    health = watched.health
    calls = [watched.watch(name) for name in ("", "a.B", "model/double")]
    assert [await next_status(call) for call in calls] == [NOT_SERVING] * 3
    ready = [health.ready]
    await health.serve()
    assert [await next_status(call) for call in calls] == [SERVING] * 3
    ready.append(health.ready)
    await health.end()
    assert [*ready, health.ready] == [False, True, False]
    assert [await next_status(call) for call in calls] == [NOT_SERVING] * 3
    assert await watched.check("") == NOT_SERVING
    for call in calls:
        call.cancel()


async def test_a_failure_is_final(watched: Watched) -> None:
    await watched.health.serve()
    call = watched.watch("model/double")
    assert await next_status(call) == SERVING
    threading.Thread(target=watched.health.fail).start()
    assert await next_status(call) == NOT_SERVING
    assert [await watched.check(name) for name in ("", "a.B", "model/double")] == [NOT_SERVING] * 3
    assert not watched.health.ready
    call.cancel()


async def test_a_failure_before_it_serves_is_kept(watched: Watched) -> None:
    watched.health.fail()
    await asyncio.sleep(0)
    await watched.health.serve()
    assert [await watched.check(name) for name in ("", "a.B", "model/double")] == [NOT_SERVING] * 3


async def test_models_come_and_go(watched: Watched) -> None:
    await watched.health.serve()
    first, second = watched.watch("model/double"), watched.watch("model/double")
    assert [await next_status(first), await next_status(second)] == [SERVING, SERVING]
    watched.models.unload("double")
    assert await watched.check("model/double") == NOT_SERVING, "it looks when it is asked"
    assert [await next_status(first), await next_status(second)] == [NOT_SERVING, NOT_SERVING]
    first.cancel()  # one who leaves takes nothing from the other
    watched.models.load("double")
    assert await next_status(second) == SERVING, "it looks by itself, too"
    assert await watched.check("model/broken") == NOT_SERVING
    second.cancel()


async def test_a_model_that_comes_later_is_unknown_until_then(watched: Watched) -> None:
    await watched.health.serve()
    call = watched.watch("model/nothing")
    assert await next_status(call) == UNKNOWN
    watched.health.follow(lambda: [IndexEntry("nothing", "1", ModelState.LOADING)])
    assert await next_status(call) == NOT_SERVING
    watched.health.follow(lambda: [IndexEntry("nothing", "1", ModelState.READY)])
    assert await next_status(call) == SERVING
    call.cancel()


async def test_a_name_that_was_never_known_is_not_found(watched: Watched) -> None:
    await watched.health.serve()
    for name in ("nothing", "model/nothing", "double", "model/"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watched.check(name)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_models_that_cannot_be_listed_are_looked_at_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    looked = threading.Semaphore(0)
    index = watched.models.index

    def broken() -> Any:
        looked.release()
        raise OSError("the disk is gone")

    await watched.health.serve()
    call = watched.watch("model/double")
    assert await next_status(call) == SERVING
    watched.health.follow(broken)
    assert await asyncio.to_thread(looked.acquire, timeout=30)
    assert await watched.check("model/double") == SERVING, "what was known last"
    watched.models.unload("double")
    watched.health.follow(index)
    assert await next_status(call) == NOT_SERVING
    assert "cannot tell which models are ready" in caplog.text
    call.cancel()
