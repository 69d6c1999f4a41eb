"""Device memory and page-locked host memory of one context: allocated, pooled, and freed where CUDA allows it.

Freeing needs the context to be current, and waits for the device. Python drops objects on any thread at any time, so
what is dropped is only noted down, and freed when memory is next asked for. PyCUDA holds the GIL while it allocates and
frees: hence the pools, from which a request gets its memory, and what lives long should seldom be replaced.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from matchcut.kernels.cuda.errors import OutOfDeviceMemory

ALIGNMENT = 256  # bytes: what cuMemAlloc promises, and more than the 16 that the kernels are compiled for
STALE = -1  # address of what must not be used any more; no kernel takes it
_SMALLEST = 1024
_PINNED_IDLE = 256 << 20  # bytes of page-locked memory that are kept for later

Block = TypeVar("Block")


class Buffer:
    """A stretch of device memory, which lives as long as it, or what `at` made of it, is referred to.

    address: on the device. nbytes: its length.
    """

    __slots__ = ("__weakref__", "_keep", "address", "nbytes")

    def __init__(self, address: int, nbytes: int, keep: object = None) -> None:
        self.address = address
        self.nbytes = nbytes
        self._keep = keep

    def at(self, offset: int, nbytes: int | None = None) -> Buffer:
        """A part of it, from a byte on: to its end, or `nbytes` long.

        Raises:
            ValueError: that is not within it.
        """
        self.check(offset, nbytes := self.nbytes - offset if nbytes is None else nbytes)
        return Buffer(self.address + offset, nbytes, self)

    def check(self, offset: int, nbytes: int) -> None:
        """Raises:
        ValueError: bytes offset to offset + nbytes are not all within it, or it was a lane's and the lane was left.
        """
        if self.address == STALE:
            raise ValueError("this temporary buffer's lane has been left")
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"bytes {offset} to {offset + nbytes} are not within a buffer of {self.nbytes}")

    def __repr__(self) -> str:
        return f"Buffer({self.address:#x}, {self.nbytes} bytes)"


class _Owned(Buffer):
    """Memory of its own, rather than a part of another's."""

    __slots__ = ("_discard",)

    def __init__(self, address: int, nbytes: int, discard: Callable[[int], None]) -> None:
        super().__init__(address, nbytes)
        self._discard = discard

    def __del__(self) -> None:
        self._discard(self.address)


class Pending:
    """An array on its way from the device; Lane.download makes it."""

    __slots__ = ("_array", "_dtype", "_ready", "_release", "_shape", "_source")

    def __init__(
        self, source: NDArray[np.uint8], shape: tuple[int, ...], dtype: DTypeLike, release: Callable[[], None]
    ) -> None:
        self._source: NDArray[np.uint8] | None = source
        self._shape, self._dtype, self._release = shape, np.dtype(dtype), release
        self._array: NDArray[Any] | None = None
        self._ready = False

    def array(self) -> NDArray[Any]:
        """The array, in ordinary memory of its own.

        Raises:
            RuntimeError: the lane has not been synchronized, or failed before it was.
        """
        if self._array is None:
            if self._source is None or not self._ready:
                raise RuntimeError("the array has not arrived: call synchronize() of its lane first")
            self._array = self._source.view(self._dtype).reshape(self._shape).copy()
            self._source = None
            self._release()
        return self._array

    def arrived(self) -> None:
        """Called by the lane once the copy is done."""
        self._ready = True

    def lost(self) -> list[NDArray[np.uint8]]:
        """Called by the lane when it is left: what the copy still has, which is something only if it failed."""
        source, self._source = self._source, None
        return [] if source is None else [source]


def rounded(nbytes: int) -> int:
    """The size that is allocated for a pooled block: 1, 1.25, 1.5 or 1.75 times a power of two, at least 1 KiB."""
    if nbytes <= _SMALLEST:
        return _SMALLEST
    step = 1 << ((nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


class Pool(Generic[Block]):
    """Blocks that are not used now, by size; any thread may ask.

    Args:
        idle: bytes that it keeps at most; what would be more is for the caller to free.
    """

    def __init__(self, idle: int) -> None:
        self._idle = idle
        self._lock = threading.Lock()
        self._blocks: dict[int, list[Block]] = {}
        self.nbytes = 0

    def take(self, size: int) -> Block | None:
        """A block of exactly that size, or None."""
        with self._lock:
            blocks = self._blocks.get(size)
            if not blocks:
                return None
            self.nbytes -= size
            return blocks.pop()

    def give(self, size: int, block: Block) -> bool:
        """Whether it was taken back."""
        with self._lock:
            if self.nbytes + size > self._idle:
                return False
            self.nbytes += size
            self._blocks.setdefault(size, []).append(block)
            return True

    def empty(self) -> list[Block]:
        """Takes all blocks out."""
        with self._lock:
            blocks = [block for some in self._blocks.values() for block in some]
            self._blocks.clear()
            self.nbytes = 0
            return blocks


class Memory:
    """All memory of one context, which has to be current on the calling thread, unless a method says otherwise.

    Args:
        driver: pycuda.driver. idle: bytes of device memory that are kept for temporary buffers, at most.
    """

    def __init__(self, driver: Any, idle: int) -> None:
        self._driver = driver
        self._live: dict[int, Any] = {}  # by address: PyCUDA's allocations
        self._dropped: deque[int] = deque()
        self._device: Pool[Buffer] = Pool(idle)
        self._pinned: Pool[NDArray[np.uint8]] = Pool(_PINNED_IDLE)
        self._surplus: deque[NDArray[np.uint8]] = deque()  # page-locked, and more than the pool keeps
        self._abandoned: list[NDArray[np.uint8]] = []

    def allocate(self, nbytes: int) -> Buffer:
        """See Context.allocate."""
        if nbytes < 0:
            raise ValueError(f"a buffer of {nbytes} bytes cannot be")
        self.sweep()
        size = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        try:
            made = self._driver.mem_alloc(size)
        except self._driver.MemoryError:
            self.reclaim()
            try:
                made = self._driver.mem_alloc(size)
            except self._driver.MemoryError as error:
                free, total = self._driver.mem_get_info()
                raise OutOfDeviceMemory(
                    f"{nbytes} bytes of device memory are not to be had: {free} of {total} are free"
                ) from error
        address = int(made)
        self._live[address] = made
        return _Owned(address, nbytes, self._dropped.append)

    def temporary(self, nbytes: int) -> Buffer:
        """A block from the pool, or a new one; goes back with `give`."""
        if nbytes < 0:
            raise ValueError(f"a buffer of {nbytes} bytes cannot be")
        size = rounded(nbytes)
        return self._device.take(size) or self.allocate(size)

    def give(self, block: Buffer) -> None:
        """Puts back what `temporary` gave and nothing uses any more."""
        self._device.give(block.nbytes, block)

    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, at least so much; goes back with `unpin`.

        Raises:
            OutOfDeviceMemory: the system lets no more be locked.
        """
        size = rounded(nbytes)
        if (block := self._pinned.take(size)) is not None:
            return block
        try:
            made: NDArray[np.uint8] = self._driver.pagelocked_empty(size, np.uint8)
        except self._driver.MemoryError:
            self.reclaim()
            try:
                made = self._driver.pagelocked_empty(size, np.uint8)
            except self._driver.MemoryError as error:
                raise OutOfDeviceMemory(f"{size} bytes of host memory cannot be page-locked") from error
        return made

    def unpin(self, block: NDArray[np.uint8]) -> None:
        """Puts back what `pinned` gave and no copy uses any more; on any thread."""
        if not self._pinned.give(block.nbytes, block):
            self._surplus.append(block)

    def abandon(self, block: NDArray[np.uint8]) -> None:
        """Keeps what a copy may still use on a device that was lost, until the context is closed."""
        self._abandoned.append(block)

    def sweep(self) -> None:
        """Frees what has been dropped."""
        with suppress(IndexError):  # another thread was quicker
            while self._dropped:
                self._live.pop(self._dropped.popleft()).free()
            while self._surplus:
                _free(self._surplus.popleft())

    def reclaim(self) -> None:
        """Frees all that is not used now."""
        gc.collect()
        self._device.empty()
        self.sweep()
        for block in self._pinned.empty():
            _free(block)

    def free(self) -> None:
        """Frees all, used or not."""
        self._surplus.extend(self._pinned.empty())
        self._abandoned.clear()
        self._device.empty()
        self.sweep()
        while self._live:
            self._live.popitem()[1].free()
        self._dropped = deque(maxlen=0)  # buffers that are dropped later have nothing left to free


def _free(block: NDArray[np.uint8]) -> None:
    base: Any = block.base
    base.free()
