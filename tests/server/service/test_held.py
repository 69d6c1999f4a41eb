"""A call's thread and its place: results come back, and a place is free when the thread is, and not before."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from matchcut.server.errors import Cancelled, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.job import Job
from matchcut.server.service.held import Held, Pool
from matchcut.server.service.threads import Threads


async def done_by(threads: Threads, work: Callable[[], Any]) -> Any:
    """The result of work done there."""
    future = asyncio.get_running_loop().create_future()

    def done(result: Any, error: BaseException | None) -> None:
        assert asyncio.get_running_loop() is future.get_loop(), "it is told on the event loop"
        future.set_result((result, error))

    threads.start(work, done)
    result, error = await future
    if error is not None:
        raise error
    return result


async def test_threads_are_started_as_they_are_needed_and_used_again() -> None:
    threads = Threads(3, "some")
    assert (await done_by(threads, lambda: threading.current_thread().name)) == "some_0"
    for _ in range(5):
        assert (await done_by(threads, lambda: threading.current_thread().name)) == "some_0"
    together = threading.Barrier(3)
    ids = await asyncio.gather(
        *(done_by(threads, lambda: together.wait(30) * 0 + threading.get_ident()) for _ in range(3))
    )
    assert len(set(ids)) == len(threads._threads) == 3
    await asyncio.to_thread(threads.close)
    assert not any(thread.is_alive() for thread in threads._threads)


class Fault(BaseException):
    """Of no class that is foreseen."""


@pytest.mark.parametrize(("raised", "told"), [(ValueError, ValueError), (Fault, Fault), (StopIteration, RuntimeError)])
async def test_what_work_raises_is_told_and_the_thread_goes_on(
    raised: type[BaseException], told: type[BaseException]
) -> None:
    threads = Threads(1, "some")

    def fail() -> None:
        raise raised("on purpose")

    with pytest.raises(told, match="on purpose"):
        await done_by(threads, fail)
    assert await done_by(threads, lambda: 7) == 7
    await asyncio.to_thread(threads.close)


async def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Large:
        pass

    threads, made = Threads(1, "some"), Large()
    gone = weakref.ref(made)

    def work(large: Large = made) -> Large:
        return large

    await done_by(threads, work)
    del work, made
    await done_by(threads, lambda: None)
    assert gone() is None
    await asyncio.to_thread(threads.close)


def exhausted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the system gives no threads."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


async def test_where_the_system_gives_no_thread_the_call_is_refused_and_nothing_is_kept() -> None:
    pool = Pool(2, "quick", "--max-requests")
    with pytest.MonkeyPatch.context() as patched:
        exhausted(patched)
        for _ in range(3):  # more often than there are places
            held = Held(pool, job())
            with pytest.raises(Overloaded) as caught:
                await held.work(lambda: 1)
            assert caught.value.reason == "THREADS_EXHAUSTED"
            held.leave()
            assert pool.places.taken == pool.cleaning == 0
    held = Held(pool, job())
    assert await held.work(lambda: 2) == 2
    held.leave()
    await asyncio.wait_for(pool.close(), 30)


async def test_what_is_to_be_closed_waits_for_a_thread_where_the_system_gives_no_other() -> None:
    pool, results, finish, began = Pool(2, "quick", "--max-requests"), Results(), threading.Event(), threading.Event()
    first, second = Held(pool, job()), Held(pool, job())
    first.results = await first.work(results)
    assert await first.work(next, first.results) == 1

    def work() -> int:
        began.set()
        assert finish.wait(30)
        return 2

    with pytest.MonkeyPatch.context() as patched:
        exhausted(patched)
        busy = asyncio.create_task(second.work(work))
        while not began.is_set():
            await asyncio.sleep(0.001)
        first.leave()
        assert (pool.cleaning, results.closed_by) == (1, [])
        finish.set()
        assert await busy == 2
        second.leave()
        await free(pool)
    assert len(results.closed_by) == 1
    await asyncio.wait_for(pool.close(), 30)


@pytest.fixture
def pool() -> Pool:
    """Of one place."""
    return Pool(1, "quick", "--max-requests")


def job() -> Job:
    return Job(Caller(), client="c")


def full(pool: Pool) -> bool:
    """Whether the only place is taken."""
    try:
        held = Held(pool, job())
    except Overloaded:
        return True
    held.leave()
    return False


async def free(pool: Pool) -> None:
    async with asyncio.timeout(30):
        while full(pool) or pool.places.taken:
            await asyncio.sleep(0.001)


async def test_a_place_is_free_when_its_call_has_left(pool: Pool) -> None:
    held = Held(pool, job())
    assert full(pool)
    assert await held.work(lambda a, b: a + b, 1, 2) == 3
    held.leave()
    assert not full(pool)
    await pool.close()


async def test_a_call_that_is_cancelled_leaves_at_once_and_its_place_is_free_when_its_thread_is(pool: Pool) -> None:
    mine, began, finish = job(), threading.Event(), threading.Event()

    def work() -> int:
        began.set()
        assert finish.wait(30)
        return 1

    async def call() -> None:
        held = Held(pool, mine)
        try:
            await held.work(work)
        finally:
            held.leave()

    task = asyncio.create_task(call())
    assert await asyncio.to_thread(began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    with pytest.raises(Cancelled):
        mine.caller.check()
    assert full(pool)
    assert pool.cleaning == 1
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0.02)
    assert not closing.done(), "the thread is at work"
    finish.set()
    await asyncio.wait_for(closing, 30)
    assert pool.places.taken == pool.cleaning == 0


class Large:
    """What one would not have stay."""


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_that_the_work_has_used_outlives_the_call(pool: Pool, fails: bool) -> None:
    """An error must not be part of a cycle: what its frames hold would stay until the garbage collector comes."""
    used: list[weakref.ref[Large]] = []

    def work() -> int:
        large = Large()
        used.append(weakref.ref(large))
        if fails:
            raise ValueError("on purpose")
        return 1

    async def call() -> int:
        held = Held(pool, job())
        try:
            return await held.work(work)
        finally:
            held.leave()

    gc.disable()
    try:
        for _ in range(3):
            with suppress(ValueError):
                assert await call() == 1
        await pool.close()  # the threads have let go, too
        assert [each() for each in used] == [None] * 3
    finally:
        gc.enable()


class Results:
    """Results one by one, which say in which thread they are closed; the second waits until it may go on."""

    def __init__(self, *, fails: bool = False) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.closed_by: list[int] = []
        self._fails = fails

    def __call__(self) -> Iterator[int]:
        try:
            yield 1
            self.began.set()
            assert self.go_on.wait(30)
            if self._fails:
                raise ValueError("on purpose")
            yield 2
        finally:
            self.closed_by.append(threading.get_ident())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_generator_is_closed_in_a_thread_once_it_is_idle(pool: Pool, fails: bool) -> None:
    results = Results(fails=fails)

    async def call() -> None:
        held = Held(pool, job())
        try:
            held.results = await held.work(results)
            assert await held.work(next, held.results) == 1
            await held.work(next, held.results)
        finally:
            held.leave()

    task = asyncio.create_task(call())
    assert await asyncio.to_thread(results.began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not results.closed_by
    assert full(pool)
    results.go_on.set()
    await free(pool)
    assert len(results.closed_by) == 1
    assert results.closed_by[0] != threading.get_ident()
    await pool.close()


async def test_one_that_is_made_after_its_call_has_left_is_closed_too(pool: Pool) -> None:
    results, began, finish = Results(), threading.Event(), threading.Event()

    def make() -> Iterator[int]:
        began.set()
        assert finish.wait(30)
        made = results()
        next(made)
        return made

    async def call() -> None:
        held = Held(pool, job())
        try:
            held.results = await held.work(make)
        finally:
            held.leave()

    task = asyncio.create_task(call())
    assert await asyncio.to_thread(began.wait, 30)
    task.cancel()
    finish.set()  # the thread ends in the moment in which the call is cancelled
    with pytest.raises(asyncio.CancelledError):
        await task
    await free(pool)
    assert len(results.closed_by) == 1
    await pool.close()


async def test_a_generator_that_cannot_be_closed_frees_the_place_all_the_same(pool: Pool) -> None:
    class Broken:
        def close(self) -> None:
            raise RuntimeError("on purpose")

    held = Held(pool, job())
    held.results = await held.work(Broken)
    held.leave()
    assert full(pool)
    await free(pool)
    await pool.close()
    assert pool.cleaning == 0
