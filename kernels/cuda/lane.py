"""One stream of work on a GPU, used by one thread at a time: copies, launches, and the time between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from matchcut.kernels.cuda.errors import CudaError
from matchcut.kernels.cuda.graphs import Graph, Recording, recorded
from matchcut.kernels.cuda.memory import STALE, Buffer, Memory, Pending
from matchcut.kernels.cuda.modules import Modules

# The driver stages what is not page-locked: up to 64 KiB at once and without waiting, large arrays in a pipeline of
# its own. In between, page-locked memory of ours keeps the copy asynchronous.
_AT_ONCE = 64 << 10
_STAGED = 16 << 20
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, which others may use

Thing = TypeVar("Thing")


class Lane:
    """Work in order on one stream; `Context.lane()` gives one, for one thread, and takes it back.

    All methods but `synchronize` return at once, before the device has done anything: what they upload has been read,
    what they download arrives with `synchronize`. A mistake that only the device finds raises there too.

    Launches that stay the same can be recorded and started together, as an engine's are. Those of a ranking are not:
    a graph has its arguments built in, and rows, k, filters and buffers differ from one query to the next, so that it
    would have to be built or updated for each; what it would save is the host's time for each launch, for which the
    device does not wait while the kernel before is still at work.
    """

    def __init__(self, driver: Any, memory: Memory, modules: Modules, fault: Callable[[Exception], CudaError]) -> None:
        self._driver, self._memory, self._modules, self._fault = driver, memory, modules, fault
        self._functions = modules.functions
        self._stream = driver.Stream(_NON_BLOCKING)
        self._events: list[Any] = []  # for marks, used again
        self._marks: list[tuple[str, Any]] = []
        self._temporaries: list[tuple[Buffer, Buffer]] = []
        self._staging: list[NDArray[np.uint8]] = []
        self._pending: list[Pending] = []
        self._held: list[object] = []  # what a copy may still read or write

    def temporary(self, nbytes: int) -> Buffer:
        """Device memory, with whatever was in it, until the lane is left.

        Raises:
            OutOfDeviceMemory: also after freeing all that is not used.
        """
        block = self._made(lambda: self._memory.temporary(nbytes))
        buffer = Buffer(block.address, nbytes, block)
        self._temporaries.append((buffer, block))
        return buffer

    def upload(self, array: ArrayLike, into: Buffer | None = None, offset: int = 0) -> Buffer:
        """Copies an array, row-major, to the device; it may be changed or dropped as soon as this returns.

        Args:
            array: of any dtype; not contiguous: copied first.
            into: where to, from byte `offset` on; None: a temporary buffer.

        Returns:
            That buffer.

        Raises:
            ValueError: it does not fit.
            OutOfDeviceMemory: there is no room.
        """
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        into = into or self.temporary(flat.nbytes)
        into.check(offset, flat.nbytes)
        if not flat.nbytes:
            return into
        if _AT_ONCE < flat.nbytes <= _STAGED:
            block = self._pinned(flat.nbytes)
            self._staging.append(block)
            block[: flat.nbytes] = flat
            flat = block[: flat.nbytes]
        else:
            self._held.append(flat)
        try:
            self._driver.memcpy_htod_async(into.address + offset, flat, self._stream)
        except self._driver.Error as error:
            raise self._fault(error) from error
        return into

    def fill(self, buffer: Buffer, value: int, nbytes: int | None = None, *, offset: int = 0, width: int = 1) -> None:
        """Sets bytes, or words of 32 bits, to one value.

        Args:
            value: 0 to 255; for words 0 to 2**32 - 1.
            nbytes: how many bytes, from byte `offset` on; None: to the end. For words both are multiples of 4.
            width: bytes that the value has: 1, or 4 for words.

        Raises:
            ValueError: they are not within the buffer, or value or size do not fit.
        """
        nbytes = buffer.nbytes - offset if nbytes is None else nbytes
        buffer.check(offset, nbytes)
        if width not in (1, 4) or not 0 <= value < 256**width or nbytes % width or (buffer.address + offset) % width:
            raise ValueError(f"cannot fill {nbytes} bytes at {offset} with {value} of {width} bytes")
        if not nbytes:
            return
        memset = self._driver.memset_d8_async if width == 1 else self._driver.memset_d32_async
        try:
            memset(buffer.address + offset, value, nbytes // width, self._stream)
        except self._driver.Error as error:
            raise self._fault(error) from error

    def copy(self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, nbytes: int) -> None:
        """Copies bytes from buffer to buffer; the two stretches must not overlap.

        Raises:
            ValueError: they are not within the buffers.
        """
        source.check(source_offset, nbytes)
        target.check(target_offset, nbytes)
        if not nbytes:
            return
        try:
            self._driver.memcpy_dtod_async(
                target.address + target_offset, source.address + source_offset, nbytes, self._stream
            )
        except self._driver.Error as error:
            raise self._fault(error) from error

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> Pending:
        """Copies an array, row-major, from the device, from byte `offset` of the buffer on.

        Returns:
            What gives the array once `synchronize` has returned, or the lane has been left.

        Raises:
            ValueError: it is not within the buffer.
        """
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer.check(offset, nbytes)
        if nbytes > _STAGED:  # page-locking so much takes longer than it saves
            block = np.empty(nbytes, np.uint8)
            pending = Pending(block, shape, dtype, lambda: None)
        else:
            block = self._pinned(nbytes)
            pending = Pending(block[:nbytes], shape, dtype, lambda: self._memory.unpin(block))
        self._pending.append(pending)
        if nbytes:
            try:
                self._driver.memcpy_dtoh_async(block[:nbytes], buffer.address + offset, self._stream)
            except self._driver.Error as error:
                raise self._fault(error) from error
        return pending

    def launch(self, name: str, grid: tuple[int, ...], *arguments: Any) -> None:
        """Launches a kernel.

        Args:
            name: as its spec has it. grid: 1 to 3 sizes. arguments: those of its spec that are not constants, in
                order: for a pointer a Buffer, or an address as an int; for the others numbers.

        Raises:
            LaunchRefused: the arguments or the grid do not fit.
            CudaAbsent: it is not compiled for this device (only the first time).
        """
        function = self._functions.get(name) or self._load(name)
        if not (len(grid) == 1 and 0 < grid[0] < 65536):  # the usual one, at little cost
            function.refuse_grid(grid)
        packed = function.pack(arguments)
        try:
            function.launch(grid, function.block, packed, function.shared, self._stream)
        except self._driver.Error as error:
            raise self._fault(error) from error

    @contextmanager
    def record(self) -> Iterator[Recording]:
        """Records what is launched, filled and copied on the lane inside, instead of doing it; see graphs.recorded.

        Kernels that were never launched before have to be loaded first, see Context.load; what they are given has to
        be there already, and to stay there.

        Raises:
            CudaError: it cannot be recorded; the lane can be used as before.
        """
        try:
            with recorded(self.stream) as recording:
                yield recording
        except CudaError as error:
            raise self._fault(error) from error.__cause__

    def replay(self, graph: Graph) -> None:
        """Starts recorded work.

        Raises:
            CudaError: the driver refuses.
        """
        try:
            graph.launch(self.stream)
        except CudaError as error:
            raise self._fault(error) from error.__cause__

    def _load(self, name: str) -> Any:
        try:
            return self._modules.load(name)
        except CudaError as error:
            raise self._fault(error) from error.__cause__

    def mark(self, name: str) -> None:
        """Notes the time on the device at which all work before this is done; see `times`."""
        event: Any = self._events.pop() if self._events else self._made(self._driver.Event)
        self._marks.append((name, event))
        try:
            event.record(self._stream)
        except self._driver.Error as error:
            raise self._fault(error) from error

    def times(self) -> dict[str, float]:
        """Seconds on the device from each mark to the next, under the name of the latter, and forgets the marks.

        The first mark only starts the clock. A name that comes more than once has the sum.

        Raises:
            RuntimeError: the lane has not been synchronized since the last mark.
        """
        spent: dict[str, float] = {}
        if self._marks and not self._made(self._marks[-1][1].query):
            raise RuntimeError("the marks have not been reached: call synchronize() first")
        for (_, before), (name, after) in zip(self._marks, self._marks[1:], strict=False):
            spent[name] = spent.get(name, 0.0) + after.time_since(before) / 1e3
        self._forget()
        return spent

    @property
    def stream(self) -> int:
        """The CUDA stream's handle, for libraries that enqueue on it."""
        return int(self._stream.handle)

    def synchronize(self) -> None:
        """Waits until all is done; other Python threads run meanwhile.

        Raises:
            DeviceLost: something on the device went wrong.
        """
        try:
            self._stream.synchronize()
        except self._driver.Error as error:
            raise self._fault(error) from error
        for pending in self._pending:
            pending.arrived()
        for block in self._staging:
            self._memory.unpin(block)
        self._staging.clear()
        self._held.clear()

    def _pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return self._made(lambda: self._memory.pinned(nbytes))

    def _made(self, make: Callable[[], Thing]) -> Thing:
        try:
            return make()
        except self._driver.Error as error:
            raise self._fault(error) from error

    def _forget(self) -> None:
        self._events.extend(event for _, event in self._marks)
        self._marks.clear()

    def leave(self) -> None:
        """Called by the context when the lane is given back: waits, and gives all memory back.

        Raises:
            DeviceLost: something on the device went wrong.
        """
        try:
            self.synchronize()
            for pending in self._pending:
                pending.array()
            for _, block in self._temporaries:
                self._memory.give(block)
        finally:
            # After a failure the device may still write: its memory is not used again, but freed with the context.
            for used in (*self._staging, *(source for pending in self._pending for source in pending.lost())):
                self._memory.abandon(used)
            for buffer, _ in self._temporaries:
                buffer.address = STALE
            for kept in (self._pending, self._temporaries, self._staging, self._held):
                kept.clear()
            self._forget()

    def destroy(self) -> None:
        """Called by the context when it is closed, however long somebody still refers to the lane."""
        self._forget()
        self._events.clear()
        self._stream = None
