"""What can go wrong on a GPU, typed by what the caller can do about it.

CudaError
├── CudaAbsent          there is no GPU to use here; rank on the CPU
├── OutOfDeviceMemory   this one did not fit (also a MemoryError); the context is as good as before
├── DeviceLost          the context is unusable from now on; open another one, or rank on the CPU
└── LaunchRefused       the arguments do not fit the kernel (a mistake of the caller); nothing was launched
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CudaError(RuntimeError):
    """The driver refused; the message is its own."""


class CudaAbsent(CudaError):
    """There is no driver, no device, no PyCUDA or no kernel for this device; the message says which, and what to do."""


class OutOfDeviceMemory(CudaError, MemoryError):
    """So much device memory (or page-locked host memory) is not free."""


class DeviceLost(CudaError):
    """A launch failed, an address was illegal, an ECC error ...: nothing works in this context any more."""


class LaunchRefused(CudaError):
    """Number, type, range or alignment of the arguments, or the grid, do not fit the kernel; see the manifest."""


# Codes of cuda.h. PyCUDA reports cuGetErrorString's text in place of the code, which is looked up again below.
OUT_OF_MEMORY = 2
_ABSENT = {
    3: "CUDA could not be initialised",
    34: "libcuda is a stub for linking, not a driver",
    100: "there is no CUDA device",
    101: "there is no such CUDA device",
    200: "the driver does not accept the kernel's file; it may be older than the compiler",
    209: "no kernel is compiled for this device",
    218: "the driver does not accept the kernel's PTX",
    222: "the driver is older than the PTX; update it",
    803: "the driver's kernel module and its libcuda do not match; reboot, or reinstall the driver",
    804: "this driver cannot run this version of CUDA on this device; update it",
}
_REFUSED = {701}  # more registers, threads or shared memory than there are
_LOST = {
    *(4, 46, 709),  # deinitialised, device unavailable, context destroyed
    *(214, 220, 226),  # ECC, NVLink, contained ECC
    *(700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 999),  # illegal address, timeout, ..., launch failed, unknown
}


@functools.cache
def _codes(library: str) -> dict[str, int]:
    """The driver's texts of the errors above, and their codes."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return {}
    known, text = {}, ctypes.c_char_p()
    for code in (1, OUT_OF_MEMORY, *_ABSENT, *_REFUSED, *_LOST):
        if driver.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value:
            known[text.value.decode()] = code
    return known


def typed(error: BaseException, *, library: str = "libcuda.so.1") -> CudaError:
    """What an exception of pycuda.driver is among the errors above.

    Args:
        library: whose texts of errors these are.
    """
    message = str(error)
    words = message.partition(" failed: ")[2]
    # With modules PyCUDA adds the compiler's log after " - ".
    code = _codes(library).get(words.partition(" - ")[0], _codes(library).get(words, 0))
    if type(error).__name__ == "MemoryError":
        return OutOfDeviceMemory(message)
    return _of(code, message)


def coded(call: str, code: int, driver: ctypes.CDLL) -> CudaError:
    """What a code that a call of the driver returned is among the errors above."""
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return _of(code, f"{call} failed: {(text.value or b'no text').decode(errors='replace')} ({code})")


def _of(code: int, message: str) -> CudaError:
    if code == OUT_OF_MEMORY:
        return OutOfDeviceMemory(message)
    if code in _ABSENT:
        return CudaAbsent(f"{_ABSENT[code]} ({message})")
    if code in _REFUSED:
        return LaunchRefused(message)
    if code in _LOST:
        return DeviceLost(message)
    return CudaError(message)


@contextmanager
def translated(driver: Any) -> Iterator[None]:
    """Inside, what pycuda.driver raises comes out as one of the errors above."""
    try:
        yield
    except driver.Error as error:
        raise typed(error) from error
