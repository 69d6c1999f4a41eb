"""A launch and the memory that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Slot:
    """An array on the device that the plan only names; the launcher finds, or makes, a buffer for it.

    name: unique within the plan. dtype: NumPy's name of it; "uint16" also for the bits of a bfloat16. zeroed: it has
    to hold zeros before the launch, which leaves zeros in it, so a buffer that is kept is cleared once.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    zeroed: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Argument: TypeAlias = "Slot | NDArray[Any] | int | float"


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """One launch.

    kernel: the name in the manifest. grid: programs, 1 to 3 sizes, each at least 1. arguments: those of the kernel
    that are not constants, in order: a Slot, a table to be copied to the device, or a number.
    """

    kernel: str
    grid: tuple[int, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Launches in order, on one stream.

    inputs: slots to be filled first, by the caller or because the data is on the device already. outputs: slots whose
    content is the answer. moved: bytes that the memory has to move at least, each input once and each output once.
    """

    launches: tuple[Launch, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    moved: int
