"""An iterator that two threads share: one takes its steps, another may end it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["Steps"]

T = TypeVar("T")


class Steps(Iterator[T]):
    """Steps of a generator, which is closed by close() at once, or where a step is under way, right after it."""

    def __init__(self, generator: Generator[T, None, None]) -> None:
        self._generator = generator
        self._stepping = threading.Lock()
        self._closed = False

    def __next__(self) -> T:
        try:
            with self._stepping:
                return next(self._generator)
        finally:
            if self._closed:
                self.close()  # it was asked for during the step and could not be done

    def close(self) -> None:
        """Ends the generator, from any thread and without waiting."""
        self._closed = True
        if self._stepping.acquire(blocking=False):
            try:
                self._generator.close()
            finally:
                self._stepping.release()
