"""The client for ordinary programs; each method blocks until it has its result."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
from google.protobuf.message import Message

from matchcut.client import catalog, recommender, users
from matchcut.client.calls import Batches, Call, Last, Live, Pages, Total, Unary, Upload, only, shown
from matchcut.client.dialogue import LiveList
from matchcut.client.errors import Error, from_rpc
from matchcut.client.hedging import first
from matchcut.client.packing import Outgoing
from matchcut.client.retry import Attempts
from matchcut.client.session import Session, Stubs
from matchcut.client.steps import Steps

__all__ = ["Client"]

P = ParamSpec("P")
T = TypeVar("T")


def _once(operation: Callable[Concatenate[Session, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> T:
        return self._answer(operation(self, *args, **options))

    return shown(method, "{}")


def _many(
    operation: Callable[Concatenate[Session, P], Live[T]],
) -> Callable[Concatenate[Client, P], Generator[T, None, None]]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> Generator[T, None, None]:
        return self._replies(operation(self, *args, **options))

    return shown(method, "Generator[{}]")


def _paged(operation: Callable[Concatenate[Session, P], Pages[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return self._entries(operation(self, *args, **options))

    return shown(method, "Iterator[{}]")


def _batched(
    operation: Callable[Concatenate[Session, P], Batches[Total]],
) -> Callable[Concatenate[Client, P], Total]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> Total:
        return self._total(operation(self, *args, **options))

    return shown(method, "{}")


def _live_list(
    operation: Callable[Concatenate[Session, P], users.Dialogue],
) -> Callable[Concatenate[Client, P], LiveList]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> LiveList:
        return LiveList(operation(self, *args, **options), self._replies)

    return shown(method, "LiveList")


class Client(Session):
    """A connection to a matchcut server; threads may share it.

    Use it in a `with` statement, or call close(). The arguments are Session's. Methods raise the errors in
    matchcut.client.errors; what a caller's own iterator or callback raises passes through as it is and cancels the
    call. Media is read, and progress told, in a thread of gRPC's.
    """

    def _connect(self) -> None:
        self._channel = self._open(grpc)
        self._stubs: Stubs | None = self._stubs_of(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is under way and closes the connection."""
        self._stubs = None
        self._channel.close()

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

    def _answer(self, call: Call[T]) -> T:
        attempts = Attempts(self.retry, call.repeatable, call.timeout)
        while True:
            try:
                return call.read(self._try(call, attempts.remaining))
            except Error as error:
                pause = attempts.pause(error)
                if pause is None:
                    raise
            time.sleep(pause)

    def _total(self, batches: Batches[Total]) -> Total:
        total = batches.none
        for call in batches.calls:
            total = batches.add(total, self._answer(call))
        return total

    def _try(self, call: Call[Any], timeout: float | None) -> Any:
        match call:
            case Unary():
                try:
                    return self._ask(call, timeout)
                except grpc.RpcError as error:
                    raise from_rpc(error) from error
            case Upload():
                with self._sending(f"{call.method}.future", call.outgoing, timeout) as answer:
                    return answer.result()
            case Last():
                with self._sending(call.method, call.outgoing, timeout) as replies:
                    return only(deque(replies, maxlen=1))
        raise TypeError(call)

    def _ask(self, call: Unary[Any], timeout: float | None) -> Any:
        hedge, request = self.retry.hedge, call.request()
        if hedge is None or not call.cheap:
            return self._start(self._stubs, call.method, timeout, request)

        def start(later: float) -> Any:
            left = None if timeout is None else max(0.0, timeout - later)
            return self._start(self._stubs, f"{call.method}.future", left, request)

        return first(start, hedge)

    def _replies(self, live: Live[T]) -> Generator[T, None, None]:
        with self._sending(live.method, live.outgoing, live.timeout) as replies:
            for reply in replies:
                yield live.read(reply)

    def _entries(self, pages: Pages[T]) -> Iterator[T]:
        token: str | None = ""
        while token is not None:
            page = self._answer(pages.page(token))
            yield from page.items
            token = page.next or None

    @contextmanager
    def _sending(self, method: str, outgoing: Outgoing[Any], timeout: float | None) -> Iterator[Any]:
        """A call for which a thread of gRPC's takes the messages; leaving the block ends it, answered or not."""
        feed = _Feed(outgoing)
        call = self._start(self._stubs, method, timeout, feed)
        feed.belongs_to(call)
        failed: Exception | None = None
        try:
            yield call
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            failed = error
        finally:
            call.cancel()
            feed.close()
        if failed is not None:
            if feed.failure is not None:
                raise feed.failure
            raise from_rpc(call) from failed


class _Feed(Iterator[Message]):
    """What gRPC's thread iterates over: the messages of a call, and whatever failed in making them."""

    def __init__(self, outgoing: Outgoing[Any]) -> None:
        self.failure: BaseException | None = None
        self._steps = Steps(_metered(outgoing))
        self._call: Any = None
        self._started = threading.Event()

    def belongs_to(self, call: Any) -> None:
        """Tells the call, which a failure cancels."""
        self._call = call
        self._started.set()

    def __next__(self) -> Message:
        try:
            return next(self._steps)
        except StopIteration:
            raise
        except BaseException as error:
            self.failure = error
            self._started.wait()
            self._call.cancel()  # first: an end of the iteration alone would pass for the end of the media
            raise StopIteration from None

    def close(self) -> None:
        """No more messages are wanted."""
        self._steps.close()


def _metered(outgoing: Outgoing[Any]) -> Generator[Message, None, None]:
    pieces = outgoing.pieces()
    if not isinstance(pieces, Iterable):
        raise TypeError("Client takes media from ordinary iterables; AsyncClient from asynchronous ones, too")
    outgoing.meter.restart()
    for message in outgoing.messages(pieces):
        yield message
        outgoing.meter.add(message)  # gRPC comes for the next one when this one has left
