"""What the Python client offers, and what it does without."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import matchcut.client
from matchcut.client import (
    AsyncClient,
    Client,
)


def test_names_are_sorted_and_there() -> None:
    assert list(matchcut.client.__all__) == sorted(matchcut.client.__all__)
    assert all(hasattr(matchcut.client, name) for name in matchcut.client.__all__)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_shows_what_a_method_returns(kind: Any) -> None:
    assert inspect.signature(kind.recommend).return_annotation == "Ranking"
    assert inspect.signature(kind.health).return_annotation == "str"
    prefix = "Async" if kind is AsyncClient else ""
    assert inspect.signature(kind.live).return_annotation == f"{prefix}Generator[Ranking]"
    assert inspect.signature(kind.items).return_annotation == f"{prefix}Iterator[Item]"
    assert list(inspect.signature(kind.get).parameters) == ["session", "item_id", "vectors", "options"]


def test_both_clients_have_the_same_methods() -> None:
    names = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert names[0] == names[1]
    assert {"ingest", "recommend", "live", "items", "remove", "close"} <= names[0]


def test_the_client_loads_neither_the_server_nor_numpy() -> None:
    code = "import sys, matchcut.client; print([m for m in sys.modules if m in ('numpy', 'matchcut.server', 'av')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Peers(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """A health service that remembers the connections of its callers."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.seen.append(context.peer())
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def test_each_client_of_a_process_has_a_connection_of_its_own() -> None:
    """The server is fair between connections: two clients on one would be one to it."""
    peers, server = Peers(), grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(peers, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()

    async def ask() -> None:
        async with AsyncClient(target) as first, AsyncClient(target) as second:
            assert [await first.health(), await second.health(), await first.health()] == ["SERVING"] * 3

    try:
        with Client(target) as first, Client(target) as second:
            assert [first.health(), second.health(), first.health()] == ["SERVING"] * 3
        asyncio.run(ask())
    finally:
        server.stop(None).wait()
    assert len(set(peers.seen[:3])) == len(set(peers.seen[3:])) == 2
    assert len(set(peers.seen)) == 4
    assert peers.seen[0] == peers.seen[2]
