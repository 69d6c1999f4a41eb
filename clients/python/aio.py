"""The client for asyncio; each method is awaited, or iterated over with `async for`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from matchcut.client import catalog, recommender, users
from matchcut.client.calls import Batches, Call, Last, Live, Pages, Total, Unary, Upload, only, shown
from matchcut.client.dialogue_aio import AsyncLiveList
from matchcut.client.errors import Cancelled, Error, from_rpc
from matchcut.client.hedging import first_async
from matchcut.client.packing import Outgoing
from matchcut.client.retry import Attempts
from matchcut.client.session import Session, Stubs
from matchcut.client.status import Status
from matchcut.client.steps import Steps

__all__ = ["AsyncClient"]

P = ParamSpec("P")
T = TypeVar("T")
END = object()


def _once(
    operation: Callable[Concatenate[Session, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(operation)
    async def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> T:
        return await self._answer(operation(self, *args, **options))

    return shown(method, "{}")


def _many(
    operation: Callable[Concatenate[Session, P], Live[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]]:
    @wraps(operation)
    def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncGenerator[T, None]:
        return self._replies(operation(self, *args, **options))

    return shown(method, "AsyncGenerator[{}]")


def _paged(
    operation: Callable[Concatenate[Session, P], Pages[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    @wraps(operation)
    def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        return self._entries(operation(self, *args, **options))

    return shown(method, "AsyncIterator[{}]")


def _batched(
    operation: Callable[Concatenate[Session, P], Batches[Total]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Total]]:
    @wraps(operation)
    async def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> Total:
        return await self._total(operation(self, *args, **options))

    return shown(method, "{}")


def _live_list(
    operation: Callable[Concatenate[Session, P], users.Dialogue],
) -> Callable[Concatenate[AsyncClient, P], AsyncLiveList]:
    @wraps(operation)
    def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncLiveList:
        return AsyncLiveList(operation(self, *args, **options), self._replies, _messages)

    return shown(method, "AsyncLiveList")


class AsyncClient(Session):
    """A connection to a matchcut server, for the tasks of one event loop.

    Use it in an `async with` statement, or await close(). The arguments are Session's, the methods Client's, and
    media may also come from asynchronous iterables. Ordinary ones and files are read in a thread; progress is told
    in the event loop. A cancelled task cancels its call. To leave a live loop early and have the call end before
    the next line, wrap the generator in contextlib.aclosing.
    """

    _channel: Any = None
    _opened: Stubs | None = None
    _closed = False

    @property
    def _stubs(self) -> Stubs | None:
        """Opened by the first call, so that the client may be made before the event loop runs."""
        if self._opened is None and not self._closed:
            self._channel = self._open(grpc.aio)
            self._opened = self._stubs_of(self._channel)
        return self._opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what is under way and closes the connection."""
        self._closed = True
        self._opened = None
        if self._channel is not None:
            await self._channel.close()

    ingest = _once(catalog.ingest)
    ingest_frames = _once(catalog.ingest_frames)
    ingest_pictures = _once(catalog.ingest_pictures)
    ingest_vectors = _once(catalog.ingest_vectors)
    get = _once(catalog.get)
    page = _once(catalog.page)
    items = _paged(catalog.items)
    remove = _once(catalog.remove)
    switch_encoder = _once(catalog.switch_encoder)
    recommend = _once(recommender.recommend)
    live = _many(recommender.live)
    live_frames = _many(recommender.live_frames)
    live_pictures = _many(recommender.live_pictures)
    record = _batched(users.record)
    forget = _once(users.forget)
    count_events = _once(users.count_events)
    recommend_for = _once(users.recommend_for)
    recommend_live_for = _live_list(users.recommend_live_for)
    health = _once(recommender.health)

    async def _answer(self, call: Call[T]) -> T:
        attempts = Attempts(self.retry, call.repeatable, call.timeout)
        while True:
            try:
                return call.read(await self._try(call, attempts.remaining))
            except Error as error:
                pause = attempts.pause(error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _total(self, batches: Batches[Total]) -> Total:
        total = batches.none
        while (call := await asyncio.to_thread(next, batches.calls, None)) is not None:
            total = batches.add(total, await self._answer(call))
        return total

    async def _try(self, call: Call[Any], timeout: float | None) -> Any:
        match call:
            case Unary():
                request = await asyncio.to_thread(call.request) if call.blocking else call.request()
                with _errors():
                    return await self._ask(call, timeout, request)
            case Upload():
                async with self._sending(call.method, call.outgoing, timeout) as answer:
                    return await answer
            case Last():
                last: deque[Any] = deque(maxlen=1)
                async with self._sending(call.method, call.outgoing, timeout) as replies:
                    async for reply in replies:
                        last.append(reply)
                return only(last)
        raise TypeError(call)

    async def _ask(self, call: Unary[Any], timeout: float | None, request: Message) -> Any:
        hedge = self.retry.hedge

        async def ask(later: float = 0.0) -> Any:
            left = None if timeout is None else max(0.0, timeout - later)
            return await self._start(self._stubs, call.method, left, request)

        return await (ask() if hedge is None or not call.cheap else first_async(ask, hedge))

    async def _replies(self, live: Live[T]) -> AsyncGenerator[T, None]:
        async with self._sending(live.method, live.outgoing, live.timeout) as replies:
            async for reply in replies:
                yield live.read(reply)

    async def _entries(self, pages: Pages[T]) -> AsyncIterator[T]:
        token: str | None = ""
        while token is not None:
            page = await self._answer(pages.page(token))
            for entry in page.items:
                yield entry
            token = page.next or None

    @asynccontextmanager
    async def _sending(self, method: str, outgoing: Outgoing[Any], timeout: float | None) -> AsyncIterator[Any]:
        """A call whose messages a task sends; leaving the block ends both, answered or not."""
        call = self._start(self._stubs, method, timeout)
        status = Status(call)
        sender = asyncio.create_task(_send(call, outgoing))
        failed: Error | None = None
        try:
            with _errors():
                yield call
        except Error as error:
            failed = await status.corrected(error)
        finally:
            call.cancel()
            sender.cancel()
            await asyncio.wait([sender])
            failure = None if sender.cancelled() else sender.exception()
        if failed is not None:
            raise failure or failed


@contextmanager
def _errors() -> Iterator[None]:
    """Turns gRPC's errors into this client's. A call cancelled by closing the client does not cancel the task."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled("The call was cancelled before it had ended.", code="CANCELLED") from error


async def _send(call: Any, outgoing: Outgoing[Any]) -> None:
    """Sends the messages until all are out or the call has its answer; cancels it where one cannot be made."""
    outgoing.meter.restart()
    try:
        async with aclosing(_messages(outgoing)) as messages:
            async for message in messages:
                if not await _sent(call, message):
                    return
                outgoing.meter.add(message)
        with suppress(Exception):  # the call is over, and its status says how
            await call.done_writing()
    except BaseException:
        call.cancel()
        raise


async def _sent(call: Any, message: Message) -> bool:
    """Whether the message left; False once the call is over, whose status says why."""
    if call.done():
        return False
    try:
        await call.write(message)
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True


def _messages(outgoing: Outgoing[Any]) -> AsyncGenerator[Message, None]:
    pieces = outgoing.pieces()
    if isinstance(pieces, AsyncIterable):
        return outgoing.messages_async(pieces)
    return _in_thread(outgoing.messages(pieces))


async def _in_thread(generator: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """The same, each step of it in a thread, since it may read a file or wait for a camera."""
    steps = Steps(generator)
    try:
        while (step := await asyncio.to_thread(next, steps, END)) is not END:
            yield cast(T, step)
    finally:
        steps.close()
