"""The simulated driver from Python: what it is set to, what it counted, and the kernels that it runs."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import struct
import threading
import traceback
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuda_sim.build import built
from matchcut.kernels.cuda.manifest import Binary
from matchcut.kernels.gpu.spec import Kernel

StandIn = Callable[..., None]

_FORMATS = {"i1": "B", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q"}
_FORMATS |= {"fp32": "f", "fp64": "d"}
_DTYPES = {"i1": "?", "fp16": "f2", "bf16": "u2", "fp32": "f4", "fp64": "f8"}  # the others as in _FORMATS
_PLAIN_SHARED = 48 << 10
_CHECK, _RUN, _FIND = 0, 1, 2


class Settings(Structure):
    """struct settings of driver.h."""

    _fields_ = (
        *((name, c_int) for name in ("capability", "driver", "devices", "initial")),
        ("memory", c_uint64),
        *((name, c_int) for name in ("fail_allocation", "fail_pinned", "fail_launch", "launch_code")),
        *((name, c_int) for name in ("launch_deferred", "lost", "broken_pop", "immediate", "fail_graph")),
    )


class Counts(Structure):
    """struct counts of driver.h."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            *("used", "blocks", "pinned", "streams", "events", "modules", "loads", "operations"),
            *("overruns", "misuses", "contexts", "leaked", "graphs", "replays"),
        )
    )


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel that can be launched. binary: the file that has to be loaded for it. run: what it does."""

    kernel: Kernel
    binary: Binary
    run: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch that passed all checks. values: the arguments as they were packed, pointers as addresses."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    values: tuple[Any, ...]


class Simulation:
    """The simulated driver of this process; `load` gives the one that there is.

    settings: may be changed at any time, see driver.h. counts: what it counted since `reset`. programs: by their
    kernel's name. launches: all since `reset`. problems: what was wrong with a launch, or went wrong in a kernel.
    """

    settings: Any
    counts: Any

    def __init__(self) -> None:
        # Before PyCUDA, and for all: PyCUDA's own library finds its symbols, and libcuda.so.1, here.
        self.library = ctypes.CDLL(str(built()), mode=ctypes.RTLD_GLOBAL)
        self.library.matchcut_simulation_settings.restype = POINTER(Settings)
        self.library.matchcut_simulation_counts.restype = POINTER(Counts)
        self.library.matchcut_simulation_extent.restype = c_uint64
        self.library.matchcut_simulation_extent.argtypes = [c_void_p]
        self.settings = self.library.matchcut_simulation_settings().contents
        self.counts = self.library.matchcut_simulation_counts().contents
        self.programs: dict[str, Program] = {}
        self._numbers: list[str] = []  # the names of those that were found in a file
        self.launches: list[Launch] = []
        self.problems: list[BaseException] = []
        self._interpreter = threading.Lock()  # Triton's has global state
        threes = POINTER(c_uint)
        kind = CFUNCTYPE(c_int, c_int, c_int, c_char_p, threes, threes, c_uint, c_int, c_void_p, c_size_t)
        self._callback = kind(self._called)  # kept, as C keeps only its address
        self.library.matchcut_simulation_callback(self._callback)

    def reset(self, *, capability: int = 90, memory: int = 1 << 30) -> None:
        """As after a start, with one device. No context may be open."""
        self.library.matchcut_simulation_clear()
        ctypes.memset(ctypes.byref(self.settings), 0, ctypes.sizeof(Settings))
        ctypes.memset(ctypes.byref(self.counts), 0, ctypes.sizeof(Counts))
        self.settings.capability, self.settings.driver, self.settings.devices = capability, 13000, 1
        self.settings.memory = memory
        self.programs.clear()
        self._numbers.clear()
        self.launches.clear()
        self.problems.clear()

    def fail_launch(self, nth: int = 1, code: int = 719, *, deferred: bool = True) -> None:
        """Lets the nth launch from now fail, and lose the device unless the code is 701.

        Args:
            code: of cuda.h. deferred: whether the launch itself says nothing, as is usual, and what comes after does.
        """
        self.settings.launch_code, self.settings.launch_deferred = code, deferred
        self.settings.fail_launch = nth

    def lose(self, code: int = 719, *, broken_pop: bool = False) -> None:
        """Lets every call fail from now on.

        Args:
            code: of cuda.h. broken_pop: also those that push and pop contexts.
        """
        self.settings.broken_pop, self.settings.lost = broken_pop, code

    def _called(
        self,
        phase: int,
        number: int,
        entry: bytes,
        grid: Any,
        block: Any,
        shared: int,
        largest: int,
        data: int,
        size: int,
    ) -> int:
        """launched of driver.h. ctypes would swallow what is raised here: it is kept for the test."""
        try:
            if phase == _FIND:
                return self._find(entry.decode(), hashlib.sha256(ctypes.string_at(data, size)).hexdigest())
            program = self.programs[self._numbers[number - 1]]
            values = _unpacked(program.kernel, ctypes.string_at(data, size))
            if phase == _CHECK:
                launch = Launch(program.kernel.name, tuple(grid[:3]), tuple(block[:3]), shared, values)
                self._check(program, launch, largest)
                self.launches.append(launch)
            elif phase == _RUN:
                kinds = program.kernel.arguments.values()
                arguments = [self._argument(kind, value) for kind, value in zip(kinds, values, strict=False)]
                with self._interpreter:
                    program.run(tuple(grid[:3]), *arguments)
        except BaseException as problem:
            traceback.print_exc()
            self.problems.append(problem)
            return 1 if phase == _CHECK else 719
        return 0

    def _find(self, entry: str, sha256: str) -> int:
        """Names of functions are not unique among files, so the file decides."""
        for name, program in self.programs.items():
            if (program.binary.entry, program.binary.sha256) == (entry, sha256):
                self._numbers.append(name)
                return len(self._numbers)
        return 0

    def _check(self, program: Program, launch: Launch, largest: int) -> None:
        """What cuLaunchKernel cannot see and a GPU would not forgive."""
        kernel = program.kernel
        assert launch.block == (32 * kernel.warps, 1, 1), f"{kernel.name}: a block of {launch.block}"
        assert launch.shared == program.binary.shared, f"{kernel.name}: {launch.shared} bytes of shared memory"
        assert launch.shared <= largest, f"{kernel.name}: {launch.shared} bytes of shared memory, {largest} allowed"
        assert launch.values[-2:] == (0, 0), f"{kernel.name}: scratch memory that it does not use"
        for (name, kind), value in zip(kernel.arguments.items(), launch.values, strict=False):
            if kind.startswith("*"):
                assert value % 16 == 0, f"{kernel.name}: {name} at {value:#x}"
                assert self.library.matchcut_simulation_extent(value), f"{kernel.name}: {name} is no device memory"
            elif name in kernel.aligned:
                assert value % 16 == 0, f"{kernel.name}: {name} is {value}"

    def _argument(self, kind: str, value: Any) -> Any:
        """A number, or device memory from an address to the end of its allocation, as the interpreter takes it."""
        if not kind.startswith("*"):
            return value
        dtype = np.dtype(_DTYPES.get(kind[1:]) or _FORMATS[kind[1:]])
        extent = self.library.matchcut_simulation_extent(value)
        memory: NDArray[Any] = np.frombuffer((ctypes.c_char * extent).from_address(value), np.uint8)
        return memory[: extent // dtype.itemsize * dtype.itemsize].view(dtype)


def _unpacked(kernel: Kernel, packed: bytes) -> tuple[Any, ...]:
    """The arguments and the two scratch pointers, from where the ABI has them: each at a multiple of its own size."""
    values, at = [], 0
    for kind in (*kernel.arguments.values(), "*", "*"):
        layout = struct.Struct("=" + ("Q" if kind.startswith("*") else _FORMATS[kind]))
        at = -(-at // layout.size) * layout.size
        values.append(layout.unpack_from(packed, at)[0])
        at += layout.size
    assert at == len(packed), f"{kernel.name}: {len(packed)} bytes of arguments rather than {at}"
    return tuple(values)


@functools.cache
def load() -> Simulation:
    """The simulated driver; from now on this process has a GPU."""
    return Simulation()
