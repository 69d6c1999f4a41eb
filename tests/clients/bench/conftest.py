"""Simulated time: an event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Selector(selectors.SelectSelector):
    """Turns the loop's clock where it would wait."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen: the loop would wait forever"
        self.loop.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own; `now` may be turned by a test, too, as if the loop had been busy."""

    def __init__(self) -> None:
        selector = Selector()
        selector.loop = self
        self.now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


Simulate = Callable[[Callable[[VirtualLoop], Coroutine[Any, Any, T]]], T]


@pytest.fixture
def simulate() -> Simulate[Any]:
    """Runs a coroutine function in simulated time; it gets the loop."""

    def run(make: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
        loop = VirtualLoop()
        try:
            return loop.run_until_complete(make(loop))
        finally:
            loop.close()

    return run
