"""Work in several threads whose results come one by one, until Ctrl-C ends all of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import current_thread, main_thread
from types import FrameType
from typing import TypeVar

__all__ = ["parallel"]

T = TypeVar("T")
R = TypeVar("R")


def parallel(
    work: Callable[[T], R], items: Sequence[T], *, threads: int, stop: Callable[[], None]
) -> Generator[tuple[T, Future[R]], None, None]:
    """Each item, and what came of its work, as it is done. To be closed.

    Left before its end, by closing it or by Ctrl-C, it begins no more work, and waits for what is under way.

    Args:
        threads: items at once at most.
        stop: makes what is under way end soon.

    Raises:
        KeyboardInterrupt: as the next result is waited for.
    """
    done: SimpleQueue[tuple[T, Future[R]] | None] = SimpleQueue()
    with interrupts(lambda: done.put(None)), ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pool.submit(work, item).add_done_callback(partial(_put, done, item))
            for _ in items:
                one = done.get()
                if one is None:
                    raise KeyboardInterrupt
                yield one
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _put(done: SimpleQueue[tuple[T, Future[R]] | None], item: T, future: Future[R]) -> None:
    done.put((item, future))


@contextmanager
def interrupts(tell: Callable[[], None]) -> Iterator[None]:
    """In the block the first Ctrl-C is told, and raises nothing; it must not be told in vain.

    Python raises KeyboardInterrupt between any two steps of the main thread, and so also when a lock has just been
    taken that is given back by a later step. Whoever waits for that lock then waits for ever, the end of the program
    included. The second Ctrl-C is as it would be without this.
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):  # or it is ignored, as by a shell's jobs
        yield
        return

    def first(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        tell()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
