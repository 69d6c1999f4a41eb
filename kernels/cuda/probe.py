"""Which GPUs there are, asked of the driver itself: without PyCUDA, and without opening a context on any."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer
from dataclasses import dataclass

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16  # CU_DEVICE_ATTRIBUTE_...


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. capability: compute capability, 10 * major + minor. memory: bytes, in all."""

    ordinal: int
    name: str
    capability: int
    memory: int
    multiprocessors: int


@dataclass(frozen=True, slots=True)
class Found:
    """The devices, at least one. driver: the CUDA version that it supports, 1000 * major + 10 * minor."""

    driver: int
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no GPU. why: what is missing and what to do."""

    why: str


class _Failed(Exception):
    pass


def probe(library: str = LIBRARY) -> Found | Absent:
    """What the driver says. Takes up to a second where a driver is, and next to nothing where none is.

    Args:
        library: the driver's library.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Absent(f"there is no NVIDIA driver ({library} is not there); on a machine with a GPU, install it")
    try:
        return _ask(driver)
    except _Failed as failure:
        return Absent(str(failure))
    except AttributeError as error:
        return Absent(f"{library} is not a CUDA driver that is known here ({error})")


def pop_current(library: str = LIBRARY) -> None:
    """Takes the topmost context off the driver's stack for this thread, past PyCUDA's own; errors are ignored."""
    ctypes.CDLL(library).cuCtxPopCurrent_v2(byref(c_void_p()))


def _ask(driver: ctypes.CDLL) -> Found | Absent:
    version, count = c_int(), c_int()
    _call(driver, "cuInit", 0)
    _call(driver, "cuDriverGetVersion", byref(version))
    _call(driver, "cuDeviceGetCount", byref(count))
    if not count.value:
        return Absent("the NVIDIA driver sees no device; check CUDA_VISIBLE_DEVICES and nvidia-smi")
    return Found(version.value, tuple(_gpu(driver, ordinal) for ordinal in range(count.value)))


def _gpu(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    device, memory, name = c_int(), c_size_t(), create_string_buffer(256)
    _call(driver, "cuDeviceGet", byref(device), ordinal)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceTotalMem_v2", byref(memory), device)
    values = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS):
        value = c_int()
        _call(driver, "cuDeviceGetAttribute", byref(value), attribute, device)
        values.append(value.value)
    return Gpu(ordinal, name.value.decode(errors="replace"), 10 * values[0] + values[1], memory.value, values[2])


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = driver[name](*arguments)
    if code:
        text = c_char_p()
        driver.cuGetErrorString(code, byref(text))
        words = (text.value or b"no text").decode(errors="replace")
        raise _Failed(f"the NVIDIA driver does not work: {name} failed with {code}, {words}; check nvidia-smi")
