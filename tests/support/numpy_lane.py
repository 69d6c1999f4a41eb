"""A lane without a device: memory is NumPy's, and kernels run in Triton's interpreter, each before `launch` returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.gpu.spec import Kernel
from support.triton_interpreter import _DTYPES, interpret


class NumpyLane:
    """What kernels.cuda.lane.Lane does, here and now. launched: how often each kernel has run."""

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        self._kernels = {kernel.name: kernel for kernel in kernels}
        self.launched: Counter[str] = Counter()
        self._marks: list[str] = []

    def allocate(self, nbytes: int) -> Buffer:
        """Of a context."""
        space = np.full(nbytes + 256, 0xA5, np.uint8)  # whatever was in it
        start = -space.ctypes.data % 256
        return Buffer(space.ctypes.data + start, nbytes, _Space(space[start : start + nbytes]))

    temporary = allocate

    def upload(self, array: ArrayLike, into: Buffer | None = None, offset: int = 0) -> Buffer:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        into = into or self.temporary(flat.nbytes)
        into.check(offset, flat.nbytes)
        _bytes(into)[offset : offset + flat.nbytes] = flat
        return into

    def fill(self, buffer: Buffer, value: int, nbytes: int | None = None, *, offset: int = 0, width: int = 1) -> None:
        nbytes = buffer.nbytes - offset if nbytes is None else nbytes
        buffer.check(offset, nbytes)
        _bytes(buffer)[offset : offset + nbytes].view(f"u{width}")[...] = value

    def copy(self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, nbytes: int) -> None:
        source.check(source_offset, nbytes)
        target.check(target_offset, nbytes)
        _bytes(target)[target_offset : target_offset + nbytes] = _bytes(source)[source_offset : source_offset + nbytes]

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> Any:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer.check(offset, nbytes)
        made = _bytes(buffer)[offset : offset + nbytes].view(dtype).reshape(shape).copy()
        return SimpleNamespace(array=lambda: made)

    def mark(self, name: str) -> None:
        """Takes no time here."""
        self._marks.append(name)

    def times(self) -> dict[str, float]:
        spent, self._marks = dict.fromkeys(self._marks[1:], 0.0), []
        return spent

    def launch(self, name: str, grid: tuple[int, ...], *arguments: Any) -> None:
        kernel = self._kernels[name]
        self.launched[name] += 1
        values = []
        for value, kind in zip(arguments, kernel.arguments.values(), strict=True):
            if kind.startswith("*"):
                dtype = np.dtype(_DTYPES[kind[1:]])
                space = _bytes(value)
                value = space[: len(space) // dtype.itemsize * dtype.itemsize].view(dtype)
            values.append(value)
        interpret(kernel, grid, *values)

    def synchronize(self) -> None:
        """All is done."""


class _Space:
    def __init__(self, space: NDArray[np.uint8]) -> None:
        self.space = space


def _bytes(buffer: Buffer) -> NDArray[np.uint8]:
    """What a buffer holds."""
    owner: Any = buffer
    while not isinstance(owner, _Space):
        owner = owner._keep
    first = buffer.address - owner.space.ctypes.data
    return owner.space[first : first + buffer.nbytes]
