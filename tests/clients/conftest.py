"""A scripted server, and the two Python clients behind one face, so that each test is written once."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from inspect import isasyncgen, iscoroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from matchcut.client import AsyncClient, Client, Retry
from support.fake_server import FakeServer, SecureServer, serving

QUICK = Retry(initial=0.001, maximum=0.5)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server in plaintext."""
    fake = FakeServer()
    with serving(fake) as (fake.target,):
        yield fake


@pytest.fixture
def secure_server(tmp_path: Path) -> Iterator[SecureServer]:
    """A fake server whose certificate is signed by `authorities`, as is the caller's `certificate`."""
    authority = trustme.CA()
    ours, theirs = authority.issue_cert("localhost"), authority.issue_cert("caller")
    fake = SecureServer()
    fake.authorities = tmp_path / "ca.pem"
    fake.certificate = tmp_path / "caller.pem", tmp_path / "caller.key"
    authority.cert_pem.write_to_path(fake.authorities)
    theirs.cert_chain_pems[0].write_to_path(fake.certificate[0])
    theirs.private_key_pem.write_to_path(fake.certificate[1])
    pair = [(ours.private_key_pem.bytes(), ours.cert_chain_pems[0].bytes())]
    plain = grpc.ssl_server_credentials(pair)
    mutual = grpc.ssl_server_credentials(pair, authority.cert_pem.bytes(), require_client_auth=True)
    with serving(fake, plain, mutual) as (fake.target, fake.mutual):
        yield fake


FILM = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="session")
def film() -> bytes:
    """What all containers contain here."""
    return FILM


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[tuple[Any, bool]]:
    """The film in every form that a container may have, and whether it can be read twice."""
    path = tmp_path / "film.mp4"
    path.write_bytes(FILM)
    return iter(
        [
            (path, True),
            (str(path), True),
            (FILM, True),
            (bytearray(FILM), True),
            (memoryview(FILM).cast("I"), True),
            (io.BytesIO(FILM), False),
            ([FILM[:700_000], b"", FILM[700_000:]], False),
            ((FILM[i : i + 99_999] for i in range(0, len(FILM), 99_999)), False),
        ]
    )


class Driven:
    """An AsyncClient with the methods of a Client: an event loop of its own runs each call to its end."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **settings)

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._runner.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **options: Any) -> Any:
            result = getattr(self._client, name)(*args, **options)
            if isasyncgen(result):
                return self._steps(result)
            return self._run(result) if iscoroutine(result) else result

        return method

    def _run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def _steps(self, generator: Any) -> Generator[Any, None, None]:
        async def step() -> list[Any]:
            return [item async for item in _first(generator)]

        try:
            while items := self._run(step()):
                yield from items
        finally:
            self._run(generator.aclose())


async def _first(generator: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    try:
        yield await anext(generator)
    except StopAsyncIteration:
        return


Make = Callable[..., Any]


@pytest.fixture(params=["sync", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a client, of each kind in turn, and closes it after the test."""
    kind = {"sync": Client, "asyncio": Driven}[request.param]
    made: list[Any] = []

    def make(*args: Any, **settings: Any) -> Any:
        made.append(kind(*args, **{"retry": QUICK, **settings}).__enter__())
        return made[-1]

    yield make
    for client in made:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make: Make, server: FakeServer) -> Any:
    """A client of the fake server, of each kind in turn."""
    return make(server.target, tenant="films")
