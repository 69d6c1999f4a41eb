"""A place that a call holds: its thread, and what has to end before another call gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from matchcut.server.errors import Overloaded
from matchcut.server.job import Job
from matchcut.server.service import watching
from matchcut.server.service.places import Places
from matchcut.server.service.threads import Threads

__all__ = ["Held", "Pool"]

T = TypeVar("T")


class Pool:
    """Threads, and as many calls at once as there are threads.

    cleaning: how many calls left while their thread was at work, or have something left to close.
    """

    def __init__(self, size: int, name: str, flag: str) -> None:
        self.name = name
        self.places = Places(size, name, flag)
        self.threads = Threads(size, f"matchcut-{name}")
        self.cleaning = 0
        self._clean = asyncio.Event()

    def cleaned(self) -> None:
        """One of those is done."""
        self.cleaning -= 1
        self._clean.set()

    async def close(self) -> None:
        """Waits for the threads; call it when no call is under way any more."""
        while self.cleaning:
            self._clean.clear()
            await self._clean.wait()
        await asyncio.to_thread(self.threads.close)


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
        self._at_work = self._left = False
        job.caller.check()
        try:
            pool.places.enter(job.client)
        except Overloaded:
            self._watched.refused()
            raise
        self._watched.taken(pool.places.taken)

    async def work(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function gives, in the call's thread; a call that is cancelled does not wait for it.

        Raises:
            Overloaded: there is no thread to be had; the call may leave.
        """
        # The future has no name here: an error would hold this frame, it the future, and that the error.
        return await self._begun(function, *arguments)

    def _begun(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """What work() waits for."""
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            self._at_work = False
            if self._left:
                self._clean(result if error is None else None)
            elif waiting.done():  # cancelled, and to leave in a moment
                self.results = self.results if self.results is not None else result
            elif error is None:
                waiting.set_result(result)
            else:
                waiting.set_exception(error)

        self._pool.threads.start(partial(function, *arguments), done)
        self._at_work = True
        return waiting

    def replied(self) -> None:
        """A reply was made."""
        self._watched.replied(self._job)

    def leave(self) -> None:
        """The call is over. Its place is free once its thread is idle again and the generator is closed."""
        self._job.caller.leave()
        self._left = True
        if not self._at_work and self.results is None:
            self._free()
            return
        self._pool.cleaning += 1
        if not self._at_work:
            self._clean(None)

    def _clean(self, produced: Any) -> None:
        """The thread is idle, after the call has left: what it gave last, or works at, is closed there."""
        close = getattr(self.results if self.results is not None else produced, "close", None)
        if close is None:
            self._cleaned(None, None)
        else:
            self._pool.threads.start(close, self._cleaned, waits=True)

    def _cleaned(self, _: Any, error: BaseException | None) -> None:
        self._free()
        self._pool.cleaned()

    def _free(self) -> None:
        self._pool.places.leave(self._job.client)
        self._watched.taken(self._pool.places.taken)
        self._watched.over(self._job)
