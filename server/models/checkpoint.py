"""Reads the tensors of a PyTorch checkpoint without PyTorch, and without running anything that the file asks for."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import EngineFailed

__all__ = ["Tensors", "read"]

Tensors = dict[str, NDArray[Any]]

# The first pickle of the file format that torch.save wrote before version 1.6.
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers that follows the pickles; tensors are windows on it."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class Window:
    """How a tensor lies in its storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The tensor as a contiguous array.

        Raises:
            ValueError: it does not lie within the storage.
        """
        extents = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in extents)
        inside = 0 <= self.offset <= last < len(numbers) and min(self.strides, default=0) >= 0
        if not inside or min(self.shape, default=1) < 1:
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage")
        steps = tuple(stride * numbers.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)
        return np.ascontiguousarray(view)


def window(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> Window:
    """Stands in for torch._utils._rebuild_tensor_v2; gradients and hooks do not matter here."""
    return Window(storage, offset, tuple(shape), tuple(strides))


class StateDictUnpickler(pickle.Unpickler):
    """Knows the few names that a dict of tensors needs, and refuses all others before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return window
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a dict of tensors")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError(f"an unknown kind of storage: {pid!r}")
        return Storage(str(key), dtype, int(count))


def read(path: Path) -> Tensors:
    """Reads a dict of tensors in the format that torch.save wrote before version 1.6.

    Returns the tensors by name, contiguous, float32 or int64 as stored.

    Raises:
        EngineFailed: the file is missing, damaged, of another format, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return tensors(file)
    except OSError as error:
        raise EngineFailed(f"{path}: cannot read the weights: {error.strerror}", reason="WEIGHTS_MISSING") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise EngineFailed(
            f"{path} is not a plain checkpoint ({error}): install its package again", reason="WEIGHTS_INVALID"
        ) from error


def tensors(file: BinaryIO) -> Tensors:
    """The format itself: magic, protocol, system, dict, storage keys, then each storage as its count and numbers."""
    magic, protocol, system, named = (StateDictUnpickler(file).load() for _ in range(4))
    if magic != MAGIC or protocol != PROTOCOL or not system["little_endian"]:
        raise ValueError("another file format")
    if not isinstance(named, Mapping) or not all(isinstance(value, Window) for value in named.values()):
        raise ValueError("something else than a dict of tensors")
    declared = {value.storage.key: value.storage for value in named.values()}
    numbers = {key: stored(file, declared[key]) for key in StateDictUnpickler(file).load()}
    return {str(name): value.of(numbers[value.storage.key]) for name, value in named.items()}


def stored(file: BinaryIO, storage: Storage) -> NDArray[Any]:
    """The next storage in the file."""
    count = int.from_bytes(file.read(8), "little")
    data = file.read(storage.count * storage.dtype.itemsize)
    if count != storage.count or len(data) != count * storage.dtype.itemsize:
        raise ValueError("the file ends too early")
    return np.frombuffer(data, storage.dtype)
