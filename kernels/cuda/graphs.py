"""CUDA graphs: work of a stream that is recorded once and then started, all of it, by one call.

PyCUDA 2026.1 wraps none of the calls that this takes, so the driver itself is asked, on PyCUDA's streams. Source: CUDA
Driver API, the chapters on stream and graph management.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_int, c_uint64, c_void_p

from matchcut.kernels.cuda.errors import CudaError, coded
from matchcut.kernels.cuda.probe import LIBRARY

__all__ = ["Graph", "Recording", "recorded"]

_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile spoils no recording


class Graph:
    """Recorded work, which can be started again and again; one start at a time is under way.

    The memory that it uses has to live as long as it does. `destroy` frees it.
    """

    def __init__(self, driver: ctypes.CDLL, handle: c_void_p) -> None:
        self._driver, self._handle = driver, handle

    def launch(self, stream: int) -> None:
        """Starts all of it on a stream, of its context, and returns at once.

        Raises:
            CudaError: the driver refuses, or the graph was destroyed.
        """
        if not self._handle:
            raise CudaError("the graph has been destroyed")
        _call(self._driver, "cuGraphLaunch", self._handle, c_void_p(stream))

    def destroy(self) -> None:
        """Frees it, once what is under way has ended; its context has to be current. Again does nothing."""
        if self._handle:
            handle, self._handle = self._handle, c_void_p()
            self._driver.cuGraphExecDestroy(handle)


class Recording:
    """What `recorded` gives. graph: is there once the block has ended well."""

    graph: Graph


@contextmanager
def recorded(stream: int, library: str = LIBRARY) -> Iterator[Recording]:
    """Records what is put on a stream inside instead of doing it.

    Kernels and copies within the device can be recorded. Inside, this thread may neither ask for device memory nor wait
    for the stream. What fails spoils the recording; the stream can be used as before afterwards.

    Raises:
        CudaError: what was done cannot be recorded.
    """
    driver = ctypes.CDLL(library)
    recording, drawn, made = Recording(), c_void_p(), c_void_p()
    _call(driver, "cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THIS_THREAD))
    try:
        yield recording
    except BaseException:
        driver.cuStreamEndCapture(c_void_p(stream), byref(drawn))
        if drawn:
            driver.cuGraphDestroy(drawn)
        raise
    _call(driver, "cuStreamEndCapture", c_void_p(stream), byref(drawn))
    try:
        _call(driver, "cuGraphInstantiateWithFlags", byref(made), drawn, c_uint64(0))
    finally:
        driver.cuGraphDestroy(drawn)
    recording.graph = Graph(driver, made)


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = driver[name](*arguments)
    if code:
        raise coded(name, code, driver)
