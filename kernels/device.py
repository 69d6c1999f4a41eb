"""Where the ops run: one interface, one home for each kind of processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.pool import pool
from matchcut.kernels.preprocess import Layout, preprocess
from matchcut.kernels.topk import Ranked, search


class Device(Protocol):
    """A processor that runs the ops; each is documented in its module. Safe to be used by several threads at once.

    name: what `open_device` takes. variant: which implementation runs, for the stage times.
    """

    @property
    def name(self) -> str: ...

    @property
    def variant(self) -> str: ...

    def preprocess(
        self, frames: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], layout: Layout
    ) -> NDArray[np.float32]:
        """See preprocess.preprocess."""
        ...

    def pool(
        self,
        vectors: NDArray[np.float32],
        offsets: NDArray[np.int64],
        *,
        weights: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        normalise: bool = True,
    ) -> NDArray[np.float32]:
        """See pool.pool."""
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: NDArray[np.int64],
        k: int,
        eligible: NDArray[np.bool_] | None = None,
        minimum: float | None = None,
        radius: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> Ranked:
        """See topk.search."""
        ...


class Cpu:
    """The NumPy references, on the cores that the process may use."""

    name: ClassVar[str] = "cpu"
    variant: ClassVar[str] = "cpu-numpy"
    preprocess = staticmethod(preprocess)
    pool = staticmethod(pool)
    search = staticmethod(search)


_HOMES: dict[str, type[Cpu]] = {"auto": Cpu, Cpu.name: Cpu}


def open_device(name: str = "auto") -> Device:
    """The device of that name; "auto" is the fastest that this machine has.

    Raises:
        ValueError: there is no such device; the message lists those that there are.
    """
    if name not in _HOMES:
        raise ValueError(f"there is no device {name!r}; choose one of {', '.join(map(repr, _HOMES))}")
    return _HOMES[name]()
