"""A place that a call holds: its thread, and what has to end before another call gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from matchcut.server.errors import Overloaded
from matchcut.server.pipeline import Job
from matchcut.server.service import watching
from matchcut.server.service.places import Places

__all__ = ["Held", "Pool"]

T = TypeVar("T")


class Pool:
    """Threads, and as many calls at once as there are threads.

    cleaning: what goes on after calls that left while their thread was at work.
    """

    def __init__(self, size: int, name: str, flag: str) -> None:
        self.name = name
        self.places = Places(size, name, flag)
        self.threads = ThreadPoolExecutor(size, thread_name_prefix=f"matchcut-{name}")
        self.cleaning: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Waits for the threads; call it when no call is under way any more."""
        while self.cleaning:
            await asyncio.gather(*self.cleaning, return_exceptions=True)
        await asyncio.to_thread(self.threads.shutdown)


class Held:
    """One call's place, from its making to leave(). All methods run on the event loop.

    results: a generator that the thread advances, and closes in the end; None: there is none.

    Raises:
        MatchcutError: nobody waits any longer, or there is no place free.
    """

    def __init__(self, pool: Pool, job: Job) -> None:
        self.results: Any = None
        self._pool = pool
        self._job = job
        self._watched = watching.work(pool.name)
        self._running: asyncio.Future[Any] | None = None
        job.caller.check()
        try:
            pool.places.enter(job.client)
        except Overloaded:
            self._watched.refused()
            raise
        self._watched.taken(pool.places.taken)

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function gives, in the call's thread; a call that is cancelled does not wait for it."""
        self._running = asyncio.get_running_loop().run_in_executor(self._pool.threads, function, *arguments)
        result: T = await asyncio.shield(self._running)
        return result

    def replied(self) -> None:
        """A reply was made."""
        self._watched.replied(self._job)

    def leave(self) -> None:
        """The call is over. Its place is free once its thread is idle again and the generator is closed."""
        self._job.caller.leave()
        if self.results is None and (self._running is None or self._running.done()):
            self._free()
            return
        cleaning = asyncio.get_running_loop().create_task(self._clean())
        self._pool.cleaning.add(cleaning)
        cleaning.add_done_callback(self._pool.cleaning.discard)

    async def _clean(self) -> None:
        if self._running is not None:
            with suppress(Exception):
                produced = await self._running
                self.results = self.results if self.results is not None else produced
        close = getattr(self.results, "close", None)
        if close is not None:
            with suppress(Exception):
                await asyncio.get_running_loop().run_in_executor(self._pool.threads, close)
        self._free()

    def _free(self) -> None:
        self._pool.places.leave(self._job.client)
        self._watched.taken(self._pool.places.taken)
        self._watched.over(self._job)
