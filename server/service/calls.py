"""Runs the work of calls in worker threads: admission, deadline, cancellation, and what arrives meanwhile.

Decoding and inference do not run on the event loop, but for runs that are known to be shorter than the way to a thread.
A call is admitted at once or refused at once. Of those that are admitted, whole clips take turns at computing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from matchcut.server.config import Config
from matchcut.server.engines import cores
from matchcut.server.errors import Cancelled, DeadlineExceeded, InvalidInput, MatchcutError
from matchcut.server.feed import Caller, Feed
from matchcut.server.job import Job
from matchcut.server.records import Container, Media
from matchcut.server.service import watching
from matchcut.server.service.held import Held, Pool
from matchcut.server.turns import Purpose, Turn, Turns

T = TypeVar("T")
Context = Any  # grpc.aio.ServicerContext; grpcio ships no types
END: Any = object()
FEED_BYTES = 8 << 20  # of one upload waits in memory while its worker is busy


def advance(results: Iterator[T]) -> T:
    """The next result, or END."""
    return next(results, END)


def in_turn(work: Callable[[Job], T], job: Job) -> T:
    """The result of work(job), once it is its turn."""
    assert job.turn is not None
    with job.turn.taken():
        return work(job)


class Calls:
    """The calls under way. All methods run on the event loop."""

    def __init__(self, config: Config) -> None:
        self._pause = config.receive_timeout
        self._turns = Turns(config.turns or cores(), seconds=config.turn_seconds)
        self._media = Pool(config.max_media_requests, "media", "--max-media-requests")
        self._quick = Pool(config.max_requests, "quick", "--max-requests")

    async def run(
        self,
        context: Context,
        work: Callable[[Job], T],
        *,
        media: Media | None = None,
        purpose: Purpose = Purpose.ASK,
        job: Job | None = None,
    ) -> T:
        """The result of work(job), run in a thread.

        Args:
            media: what the work is mostly about; a container takes turns with those of other calls.
            purpose: of these turns.
        """
        job = job or self.job(context)
        held = Held(self._media if media else self._quick, job)
        if media is not None and isinstance(media.form, Container):
            job.turn = Turn(self._turns, job.caller, job.clock, purpose=purpose, client=job.client)
            work = partial(in_turn, work)
        try:
            result = await held.work(work, job)
            held.replied()
            return result
        finally:
            held.leave()

    def at_once(self, context: Context, work: Callable[[Job], T | None]) -> T | None:
        """The result of work(job), run on the event loop: only for what takes less time than to ask a thread for it.

        It takes no place, since there is never more than one. None where work gives none: then it has done nothing, and
        is to be done by run().

        Raises:
            MatchcutError: what work raises.
        """
        job = self.job(context, told=False)
        watched = watching.work(self._quick.name)
        try:
            result = work(job)
        except Exception:
            watched.over(job)
            raise
        finally:
            job.caller.leave()
        if result is not None:
            watched.over(job)
        return result

    async def each(
        self,
        context: Context,
        work: Callable[[Job], Iterator[T]],
        *,
        media: bool = False,
        job: Job | None = None,
    ) -> AsyncGenerator[T, None]:
        """The results of work(job) one by one, each produced in a thread when it is asked for.

        Raises:
            Overloaded: there is no place free.
            MatchcutError: what work raises; DeadlineExceeded also where the deadline passed before it began.
        """
        job = job or self.job(context)
        held = Held(self._media if media else self._quick, job)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        try:
            held.results = await held.work(work, job)
            while True:
                result = await held.work(advance, held.results)
                if result is END:
                    return
                # A reader that does not read would keep its place for ever: writing waits for it.
                stalled = loop.call_later(self._pause, task.cancel)
                try:
                    yield result
                finally:
                    stalled.cancel()
                held.replied()
        finally:
            held.leave()

    async def first(self, messages: AsyncIterator[Any]) -> Any:
        """The first message of a stream, which must be its header and come in time."""
        try:
            message = await asyncio.wait_for(anext(messages, None), self._pause)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no header arrived for {self._pause:g} s; send it when the call begins", reason="UPLOAD_STALLED"
            ) from None
        if message is None or message.WhichOneof("message") != "header":
            raise InvalidInput(
                "the first message of the stream must be the header", reason="HEADER_MISSING", field="header"
            )
        return message

    def job(self, context: Context, *, told: bool = True) -> Job:
        """A fresh job with the call's deadline; told: whether the reply tells the stage times."""
        remaining = context.time_remaining()
        caller = Caller(None if remaining is None else time.monotonic() + remaining)
        return Job(caller, watching.clock(told=told), client=context.peer())

    def feed(self, job: Job, *, latest: int = 0) -> Feed[Any]:
        """A feed for what the job's caller sends; latest: see Feed."""
        return Feed(
            asyncio.get_running_loop(),
            job.caller,
            weight=FEED_BYTES,
            pause=self._pause,
            latest=latest,
            aside=job.aside,
        )

    async def close(self) -> None:
        """Waits for the threads; call it when no call is under way any more."""
        for pool in (self._media, self._quick):
            await pool.close()


@asynccontextmanager
async def receiving(
    messages: AsyncIterator[Any], feed: Feed[Any], convert: Callable[[Any], tuple[Any, int]], *, sealed: bool = False
) -> AsyncIterator[None]:
    """While the block runs, what arrives goes into the feed; convert() gives each message's piece and weight.

    sealed: the stream is complete only with its end message; a cancelled call may look like one that was ended.
    """
    task = asyncio.create_task(_receive(messages, feed, convert, sealed))
    try:
        yield
    finally:
        feed.end(Cancelled("the call is over"))
        feed.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _receive(
    messages: AsyncIterator[Any], feed: Feed[Any], convert: Callable[[Any], tuple[Any, int]], sealed: bool
) -> None:
    try:
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "end":
                sealed = False
                break
            if kind != "chunk":
                raise InvalidInput("after the header a stream carries chunks only", field="header")
            await feed.put(*convert(message))
        if sealed:
            raise InvalidInput(
                "the stream stopped before its end message; nothing is kept of it", reason="END_MISSING", field="end"
            )
        feed.end()
    except MatchcutError as error:
        feed.end(error)
    except Exception:  # whatever breaks the stream ends it; what the worker sees is that nobody waits any longer
        feed.end(Cancelled("the caller cancelled the request or lost the connection"))
