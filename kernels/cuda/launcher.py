"""A GPU that runs the compiled kernels: opened once, used by any number of threads, each on a lane of its own.

with closing(Context.open()) as context:
    rows = context.allocate(4 * n * d)
    with context.lane() as lane:
        lane.upload(values, rows)
        found = lane.temporary(4 * n)
        lane.launch("score_f32", (blocks,), rows, found, n)
        scores = lane.download(found, (n,), np.float32)
    scores.array()
"""

from __future__ import annotations

import atexit
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from matchcut.kernels.cuda.errors import CudaAbsent, CudaError, DeviceLost, typed
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.manifest import Binary, Manifest
from matchcut.kernels.cuda.memory import Buffer, Memory, Pending
from matchcut.kernels.cuda.modules import Modules
from matchcut.kernels.cuda.probe import Absent, Gpu, pop_current, probe

__all__ = ["LANES", "Buffer", "Context", "Lane", "Pending"]

LANES = 8  # at once: more streams than that make the device no busier
_AT_EXIT = 5.0  # seconds that the end of the process waits for lanes in use


class Context:
    """The primary context of one GPU. Safe to be used by several threads at once.

    name: what the device calls itself. capability: compute capability, 10 * major + minor. total_memory: bytes.
    multiprocessors: how many blocks, or more, it takes to keep all of it busy.
    """

    @classmethod
    def open(cls, ordinal: int = 0, *, manifest: Manifest | None = None, lanes: int = LANES) -> Context:
        """Takes hold of a GPU; takes a second, or less.

        Args:
            ordinal: which one, as the driver counts them.
            manifest: of the kernels; None: those compiled with this matchcut.
            lanes: at most so many at once.

        Raises:
            CudaAbsent: there is no such GPU, or something is missing to use it; the message says what.
        """
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}")
        found = probe()
        if isinstance(found, Absent):
            raise CudaAbsent(found.why)
        if not 0 <= ordinal < len(found.gpus):
            raise CudaAbsent(f"there is no GPU {ordinal}: the driver sees {len(found.gpus)}, from 0 on")
        manifest = manifest or Manifest.read()
        manifest.check(found.gpus[ordinal].capability, found.driver)
        return cls(_pycuda(), found.gpus[ordinal], manifest, lanes)

    def __init__(self, driver: Any, gpu: Gpu, manifest: Manifest, lanes: int) -> None:
        self.name, self.capability, self.total_memory = gpu.name, gpu.capability, gpu.memory
        self.multiprocessors = gpu.multiprocessors
        self._driver, self._manifest = driver, manifest
        self._free = threading.Condition()
        self._idle: list[Lane] = []
        self._unmade, self._out = lanes, 0
        self._closed = False
        self._lost: DeviceLost | None = None
        try:
            driver.init()
            device = driver.Device(gpu.ordinal)
            self._raw = device.retain_primary_context()
            # What lanes leave behind stays for the next ones, up to an eighth of the memory.
            self._memory = Memory(driver, self.total_memory // 8)
            self._modules = Modules(driver, device, manifest, self.capability)
        except driver.Error as error:
            raise typed(error) from error
        atexit.register(self._at_exit)

    def binary(self, name: str) -> Binary:
        """Which file of a kernel is used on this device.

        Raises:
            CudaAbsent: none.
        """
        return self._manifest.entry(name).binary(self.capability)

    def load(self, *names: str) -> None:
        """Loads kernels now, so that no request has to wait for it.

        Raises:
            CudaAbsent: one of them is not there for this device.
        """
        with self._current():
            for name in names:
                try:
                    self._modules.load(name)
                except CudaError as error:
                    raise self._noted(error) from error.__cause__

    def allocate(self, nbytes: int) -> Buffer:
        """Device memory, with whatever was in it, aligned to 256 bytes; freed when nothing refers to it any more.

        Raises:
            OutOfDeviceMemory: also after freeing all that is not used.
            DeviceLost, CudaError: the context is lost, or closed.
        """
        with self._current():
            try:
                return self._memory.allocate(nbytes)
            except self._driver.Error as error:
                raise self._fault(error) from error

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A stream of work, for this thread and the time of a `with`; waits while all are in use.

        Leaving waits for what the lane still does; what it downloaded can be read afterwards, its temporary buffers
        cannot be used. A thread that holds one must not wait for another: it may never come.

        Raises:
            DeviceLost: the context is lost; on leaving: something that was under way went wrong.
            CudaError: it is closed.
        """
        with self._current():
            lane = self._taken()
            try:
                yield lane
            except BaseException:
                with suppress(CudaError):  # whatever it is, the first failure is the one to tell
                    lane.leave()
                raise
            else:
                lane.leave()
            finally:
                with self._free:
                    self._idle.append(lane)
                    self._out -= 1
                    self._free.notify_all()

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and all; what idle lanes keep for later counts as used."""
        with self._current():
            try:
                free, total = self._driver.mem_get_info()
            except self._driver.Error as error:
                raise self._fault(error) from error
            return int(free), int(total)

    def close(self) -> None:
        """Waits for the lanes in use and gives everything back; buffers are void. Closing again does nothing."""
        self._close(None)

    @property
    def lost(self) -> bool:
        """Whether nothing works here any more; see DeviceLost."""
        return self._lost is not None

    def _taken(self) -> Lane:
        with self._free:
            while True:
                self._check()
                if self._idle:
                    self._out += 1
                    return self._idle.pop()
                if self._unmade:
                    self._unmade -= 1
                    self._out += 1
                    break
                self._free.wait()
        try:
            return Lane(self._driver, self._memory, self._modules, self._fault)
        except BaseException as error:
            with self._free:
                self._unmade += 1
                self._out -= 1
                self._free.notify_all()
            if isinstance(error, self._driver.Error):
                raise self._fault(error) from error
            raise

    def _check(self) -> None:
        if self._lost is not None:
            raise DeviceLost(f"the GPU was lost before: {self._lost}")
        if self._closed:
            raise CudaError("the context is closed")

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Makes the context the thread's own, inside."""
        self._check()
        try:
            self._raw.push()
        except self._driver.Error as error:
            raise self._fault(error) from error
        try:
            yield
        finally:
            self._pop()

    def _pop(self) -> None:
        try:
            self._driver.Context.pop()
        except self._driver.Error as error:
            # PyCUDA ends the process if a thread ends with a context on PyCUDA's own stack. After a loss even the
            # driver's pop may fail; then `detach` declares the context invalid, and looking at the stack removes it.
            self._lost = self._lost or DeviceLost(str(error))
            with suppress(self._driver.Error):
                self._raw.detach()
            self._driver.Context.get_current()

    def _fault(self, error: Exception) -> CudaError:
        return self._noted(error if isinstance(error, CudaError) else typed(error))

    def _noted(self, error: CudaError) -> CudaError:
        if isinstance(error, DeviceLost):
            self._lost = self._lost or error
        return error

    def _at_exit(self) -> None:
        self._close(_AT_EXIT)

    def _close(self, timeout: float | None) -> None:
        with self._free:
            if self._closed:
                return
            self._closed = True
            self._free.notify_all()  # those that wait for a lane get none
            if not self._free.wait_for(lambda: self._out == 0, timeout):
                return
        atexit.unregister(self._at_exit)
        pushed = False
        with suppress(self._driver.Error):
            self._raw.push()
            pushed = True
            if self._lost is None:
                self._drop()
                self._memory.free()
        with suppress(self._driver.Error):
            self._raw.detach()
        if pushed:
            pop_current()  # `detach` releases a primary context and leaves it on the driver's stack
        # What is left after a loss PyCUDA does not try to free, as the context is detached.
        self._drop()

    def _drop(self) -> None:
        for lane in self._idle:
            lane.destroy()
        self._idle.clear()
        self._modules.functions.clear()


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pycuda":
            raise CudaAbsent(f"PyCUDA needs {error.name}, which is not installed: pip install pycuda") from error
        raise CudaAbsent(
            "PyCUDA is not installed: pip install pycuda, or, without a CUDA toolkit, "
            "pip install $(python -m matchcut.kernels.cuda.build_pycuda .)"
        ) from error
    except ImportError as error:
        raise CudaAbsent(f"PyCUDA does not fit the driver, build it again or update the driver: {error}") from error
