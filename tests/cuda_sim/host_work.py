"""Work of the host in its turn on a stream of the simulated driver: what a library's kernels are there."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_void_p
from typing import Any

from cuda_sim.simulation import Simulation


class HostWork:
    """Puts functions on streams, also while they are recorded; the functions live as long as this does."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._kept: list[Any] = []
        self.done = 0

    def __call__(self, stream: int, work: Callable[[], None]) -> None:
        def called(_: int | None) -> None:
            try:
                work()
                self.done += 1
            except BaseException as problem:  # ctypes would swallow it
                self._simulation.problems.append(problem)

        callback = CFUNCTYPE(None, c_void_p)(called)
        self._kept.append(callback)
        code = self._simulation.library.cuLaunchHostFunc(c_void_p(stream), ctypes.cast(callback, c_void_p), c_void_p())
        assert code == 0, f"cuLaunchHostFunc returned {code}"
