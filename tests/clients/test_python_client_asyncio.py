"""What only asyncio has: cancelled tasks, asynchronous media, and a status that grpc.aio loses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from matchcut.client import AsyncClient, Cancelled, Client, Error, FailedPrecondition, ServerError
from matchcut.client.status import LOST, Status
from matchcut.client.steps import Steps
from matchcut.v1 import catalog_pb2


class Oops(Exception):
    """What the callers' own code raises here."""


@pytest.fixture
async def client(server: Any) -> AsyncIterator[AsyncClient]:
    """A client of the fake server."""
    async with AsyncClient(server.target, retry=None) as client:
        yield client


async def gone(server: Any) -> bool:
    """Whether the server saw its first call cancelled, waited for off the loop."""
    return await asyncio.to_thread(server.call().gone.wait, 10)


async def chunks(closed: asyncio.Event, *parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """Asynchronous media, which ends with `error` or, without parts, never."""
    try:
        for part in parts:
            await asyncio.sleep(0)
            yield part
        while not parts:
            yield b"x"
            await asyncio.sleep(0)
        if error is not None:
            raise error
    finally:
        closed.set()


async def test_media_may_be_asynchronous(client: AsyncClient, server: Any) -> None:
    closed = asyncio.Event()
    await client.ingest("film", chunks(closed, b"ab", b"cd"))
    assert server.call().data == b"abcd"
    assert closed.is_set()
    assert [r.revision async for r in client.live(chunks(closed, b"ab", b"cd"))] == [1, 2, 3]
    assert (await client.recommend(clip=chunks(closed, b"ab"))).final

    async def frames() -> AsyncIterator[tuple[float, Any]]:
        yield 0.0, np.zeros((2, 4, 3), np.uint8)

    assert [r.final async for r in client.live_frames(frames())] == [False, True]
    form = server.call(3).requests[0].header.media.frames
    assert (form.width, form.height) == (4, 2)


async def test_errors_of_asynchronous_media_pass_through_and_cancel(client: AsyncClient, server: Any) -> None:
    server.patient = True
    error, closed = Oops("mine"), asyncio.Event()
    with pytest.raises(Oops) as caught:
        await client.ingest("film", chunks(closed, b"ab", error=error))
    assert caught.value is error
    assert await gone(server)
    assert not server.call().ended.is_set()


async def test_progress_is_told_in_the_event_loop(client: AsyncClient, tmp_path: Any) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    threads = []
    await client.ingest("film", tmp_path / "a.mp4", progress=lambda *_: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def stuck(requests: Iterator[Any], seen: Any, context: Any) -> list[Any]:
    """Answers nobody, until the caller is gone."""
    next(requests, None)  # None: the caller was gone before the first one came
    assert seen.gone.wait(10)
    context.abort(grpc.StatusCode.CANCELLED, "Nobody is left to be answered.")
    return []


@pytest.mark.parametrize("way", ["get", "ingest", "live", "endless"])
async def test_cancelling_the_task_cancels_the_call(client: AsyncClient, server: Any, way: str) -> None:
    for method in ("GetItem", "Ingest", "RecommendLive"):
        server.on(method, stuck)
    begun, closed = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async for _ in client.live(b"x"):
            pass

    calls: dict[str, Any] = {
        "get": lambda: client.get("a"),
        "ingest": lambda: client.ingest("a", b"x"),
        "live": live,
        "endless": lambda: client.ingest("a", chunks(closed), progress=lambda *_: begun.set()),
    }
    task = asyncio.create_task(calls[way]())
    await asyncio.to_thread(server.call)
    if way == "endless":
        await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(server)
    if way == "endless":  # the source is let go of soon, not before the call has ended
        async with asyncio.timeout(10):
            await closed.wait()


async def test_breaking_out_of_a_live_loop_cancels_the_call(client: AsyncClient, server: Any) -> None:
    server.patient = True
    closed = asyncio.Event()
    async for ranking in client.live(chunks(closed)):
        assert ranking.revision == 1
        break
    assert await gone(server)
    async with asyncio.timeout(10):
        await closed.wait()


@pytest.mark.parametrize("way", ["get", "ingest", "live"])
async def test_closing_the_client_ends_calls_but_no_task(server: Any, way: str) -> None:
    for method in ("GetItem", "Ingest", "RecommendLive"):
        server.on(method, stuck)
    client = AsyncClient(server.target, retry=None)

    async def live() -> None:
        async for _ in client.live(b"x"):
            pass

    calls: dict[str, Any] = {"get": lambda: client.get("a"), "ingest": lambda: client.ingest("a", b"x"), "live": live}
    task = asyncio.create_task(calls[way]())
    await asyncio.to_thread(server.call)
    await client.close()
    with pytest.raises(Cancelled):
        await task
    assert await gone(server)


@pytest.mark.parametrize("way", ["get", "ingest", "live"])
def test_closing_the_ordinary_client_ends_the_calls_of_other_threads(server: Any, way: str) -> None:
    for method in ("GetItem", "Ingest", "RecommendLive"):
        server.on(method, stuck)
    client = Client(server.target, retry=None)

    def close() -> None:
        server.call()
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    calls: dict[str, Any] = {
        "get": lambda: client.get("a"),
        "ingest": lambda: client.ingest("a", b"x"),
        "live": lambda: list(client.live(b"x")),
    }
    with pytest.raises(Cancelled):
        calls[way]()
    closer.join()
    assert server.call().gone.wait(10)


def test_the_ordinary_client_refuses_asynchronous_media(server: Any) -> None:
    async def media() -> AsyncIterator[bytes]:
        yield b"x"

    with Client(server.target) as client, pytest.raises(TypeError, match="AsyncClient"):
        client.ingest("a", media())


async def test_calls_run_at_the_same_time(client: AsyncClient, server: Any) -> None:
    together = threading.Barrier(8, timeout=10)

    def meet(requests: Iterator[Any], seen: Any, context: Any) -> list[Any]:
        together.wait()
        return [catalog_pb2.GetItemResponse(item=catalog_pb2.Item(item_id=next(requests).item_id))]

    server.on("GetItem", meet)
    found = await asyncio.gather(*(client.get(str(i)) for i in range(8)))
    assert [stored.item.id for stored in found] == list("01234567")


# --- the status that grpc.aio loses ------------------------------------------------------------------------------


class FakeCall:
    """A call whose status changes as told, and which says so to its callback each time, as grpc.aio does."""

    def add_done_callback(self, callback: Any) -> None:
        self.callback = callback

    def set(self, code: grpc.StatusCode, details: str) -> None:
        self._status = code, details
        self.callback(self)

    async def code(self) -> grpc.StatusCode:
        return self._status[0]

    async def details(self) -> str:
        return self._status[1]

    async def trailing_metadata(self) -> tuple[()]:
        return ()


MADE_UP = grpc.StatusCode.INTERNAL, LOST
REAL = grpc.StatusCode.FAILED_PRECONDITION, "Not so."


@pytest.mark.parametrize("order", [[REAL, MADE_UP], [MADE_UP, REAL]])
async def test_the_servers_status_comes_before_the_made_up_one(order: list[tuple[grpc.StatusCode, str]]) -> None:
    call = FakeCall()
    status = Status(call)
    call.set(*order[0])
    shown = ServerError(LOST, code="INTERNAL")
    waiting = asyncio.create_task(status.corrected(shown))
    await asyncio.sleep(0)
    call.set(*order[1])
    meant = await waiting
    assert isinstance(meant, FailedPrecondition)
    assert meant.message == "Not so."


async def test_a_made_up_error_after_ok_is_none() -> None:
    call = FakeCall()
    status = Status(call)
    call.set(grpc.StatusCode.OK, "")
    call.set(*MADE_UP)
    assert await status.corrected(ServerError(LOST, code="INTERNAL")) is None


async def test_a_status_that_never_comes_leaves_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.client.status.PATIENCE", 0.001)
    shown = ServerError(LOST, code="INTERNAL")
    call = FakeCall()
    status = Status(call)
    call.set(*MADE_UP)
    assert await status.corrected(shown) is shown
    other: Error = ServerError("Broken.", code="INTERNAL")
    assert await status.corrected(other) is other


# --- an iterator that two threads share --------------------------------------------------------------------------


def test_steps_end_right_after_the_step_under_way() -> None:
    entered, release, closed = threading.Event(), threading.Event(), threading.Event()

    def generator() -> Generator[int, None, None]:
        try:
            entered.set()
            release.wait(10)
            yield 1
            yield 2
        finally:
            closed.set()

    steps = Steps(generator())
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(next(steps)))
    thread.start()
    assert entered.wait(10)
    steps.close()
    assert not closed.is_set()
    release.set()
    thread.join()
    assert closed.is_set()
    assert taken == [1]
    assert list(steps) == []
