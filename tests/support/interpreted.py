"""A context without a device: what kernels.cuda.launcher.Context is to kernels.cuda.home, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from matchcut.kernels.cuda.errors import CudaError


class Interpreted:
    """All lanes are one, and one thread at a time has it.

    only: the lane, which counts what it has launched. fails: raised by every lane and every allocation from now on.
    """

    name, capability, total_memory = "interpreter", 90, 0

    def __init__(self) -> None:
        from matchcut.kernels.gpu import exact, pool, preprocess, score, topk
        from support.numpy_lane import NumpyLane  # not where only the GPU is tested, and Triton may be another one

        modules: tuple[Any, ...] = (exact, pool, preprocess, score, topk)
        self.only = NumpyLane([kernel for module in modules for kernel in module.KERNELS])
        self.fails: CudaError | None = None
        self.closed = False
        self._lock = Lock()

    @contextmanager
    def lane(self) -> Iterator[Any]:
        with self._lock:
            self._check()
            yield self.only
            self._check()

    def allocate(self, nbytes: int) -> Any:
        self._check()
        return self.only.allocate(nbytes)

    def load(self, *names: str) -> None:
        """All are there."""

    def binary(self, name: str) -> None:
        """All are there."""

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.fails is not None:
            raise self.fails
