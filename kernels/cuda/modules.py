"""The kernels that a context has loaded, and how their arguments are laid out for a launch."""

from __future__ import annotations

import struct
import threading
from typing import Any, NoReturn

from matchcut.kernels.cuda.errors import CudaAbsent, LaunchRefused, typed
from matchcut.kernels.cuda.manifest import SCRATCH, Binary, Entry, Manifest
from matchcut.kernels.cuda.memory import STALE

# As cuLaunchKernel takes them in one buffer: each at a multiple of its size, which is what struct does natively.
_FORMATS = {"i1": "B", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q"}
_FORMATS |= {"fp32": "f", "fp64": "d"}
_POINTER = "Q"
_ALIGNED = 16  # bytes: what the kernels are compiled for
_PLAIN_SHARED = 48 << 10  # bytes of dynamic shared memory that a kernel may have without asking
_LARGEST = (2**31 - 1, 65535, 65535)  # sizes of a grid


class Function:
    """A loaded kernel.

    block: threads. shared: bytes of dynamic shared memory. launch: PyCUDA's own (grid, block, packed, shared, stream).
    """

    __slots__ = ("_entry", "_flags", "_module", "_multiples", "_pointers", "_struct", "binary", "block", "launch")

    def __init__(self, entry: Entry, binary: Binary, module: Any, function: Any) -> None:
        self._entry, self.binary, self._module = entry, binary, module
        kinds = [kind for _, kind in entry.arguments]
        unknown = {kind for kind in kinds if kind[0] != "*"} - _FORMATS.keys()
        if unknown:
            raise LaunchRefused(f"{entry.name} takes {', '.join(sorted(unknown))}, which this launcher cannot pack")
        self._pointers = tuple(index for index, kind in enumerate(kinds) if kind[0] == "*")
        self._flags = tuple(index for index, kind in enumerate(kinds) if kind == "i1")
        names = [name for name, _ in entry.arguments]
        self._multiples = tuple(names.index(name) for name in entry.aligned)
        formats = "".join(_FORMATS.get(kind, _POINTER) for kind in kinds)
        self._struct = struct.Struct(formats + _POINTER * SCRATCH)
        self.block = (32 * entry.warps, 1, 1)
        self.launch = function._launch_kernel

    @property
    def shared(self) -> int:
        return self.binary.shared

    def pack(self, arguments: tuple[Any, ...]) -> bytes:
        """The arguments of a launch in one piece.

        Raises:
            LaunchRefused: they do not fit.
        """
        values = list(arguments)
        bits = 0
        try:
            for index in self._pointers:
                address = values[index].address
                bits |= address
                values[index] = address
            for index in self._multiples:
                bits |= values[index]
            if bits & (_ALIGNED - 1) == 0 and not self._flags:
                return self._struct.pack(*values, 0, 0)
        except (AttributeError, IndexError, TypeError, OverflowError, struct.error):
            pass
        return self._struct.pack(*self._checked(arguments), 0, 0)  # one by one, for the message

    def _checked(self, arguments: tuple[Any, ...]) -> list[Any]:
        if len(arguments) != len(self._entry.arguments):
            names = ", ".join(name for name, _ in self._entry.arguments)
            raise self._refusal(f"takes {len(self._entry.arguments)} arguments ({names}), not {len(arguments)}")
        pairs = zip(self._entry.arguments, arguments, strict=True)
        return [self._one(name, kind, value) for (name, kind), value in pairs]

    def _one(self, name: str, kind: str, value: Any) -> Any:
        if kind[0] == "*":
            address = getattr(value, "address", value)
            if not isinstance(address, int) or isinstance(address, bool):
                raise self._refusal(f"takes a buffer or an address for {name} ({kind}), not {value!r}")
            if address == STALE:
                raise self._refusal(f"got a temporary buffer for {name} whose lane has been left")
            if address <= 0 or address % _ALIGNED:
                raise self._refusal(f"takes an address that is a multiple of {_ALIGNED} for {name}, not {address:#x}")
            return address
        try:
            struct.pack(_FORMATS[kind], value)
        except (struct.error, TypeError, OverflowError) as error:
            raise self._refusal(f"takes {kind} for {name}, not {value!r} ({error})") from error
        if kind == "i1" and value not in (0, 1):
            raise self._refusal(f"takes 0 or 1 for {name}, not {value!r}")
        if name in self._entry.aligned and value % _ALIGNED:
            raise self._refusal(f"was compiled for a multiple of {_ALIGNED} for {name}, not {value!r}")
        return value

    def _refusal(self, reason: str) -> LaunchRefused:
        return LaunchRefused(f"the kernel {self._entry.name} {reason}")

    def refuse_grid(self, grid: tuple[int, ...]) -> None:
        """Raises:
        LaunchRefused: not 1 to 3 sizes, or one of them is less than 1 or more than CUDA allows.
        """
        fits = 1 <= len(grid) <= len(_LARGEST) and all(
            isinstance(size, int) and 1 <= size <= largest for size, largest in zip(grid, _LARGEST, strict=False)
        )
        if not fits:
            raise self._refusal(f"cannot be launched on a grid of {grid!r}: 1 to 3 sizes, at most {_LARGEST}")


class Modules:
    """Loads each kernel once, when it is first needed; any thread may ask, with the context current."""

    def __init__(self, driver: Any, device: Any, manifest: Manifest, capability: int) -> None:
        self._driver, self._manifest, self._capability = driver, manifest, capability
        attribute = driver.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        self._most_shared = int(device.get_attribute(attribute))
        self._lock = threading.Lock()
        self.functions: dict[str, Function] = {}

    def load(self, name: str) -> Function:
        """The kernel of that name. PyCUDA holds the GIL meanwhile: seconds, if the driver has to compile PTX.

        Raises:
            CudaAbsent: there is none for this device, its file is damaged, or the driver does not take it.
        """
        with self._lock:
            if (loaded := self.functions.get(name)) is not None:
                return loaded
            entry = self._manifest.entry(name)
            binary = entry.binary(self._capability)
            if binary.shared > self._most_shared:
                raise CudaAbsent(
                    f"the kernel {name} ({binary.target}) needs {binary.shared} bytes of shared memory, "
                    f"and this device has {self._most_shared} for a block"
                )
            content = binary.read()
            try:
                module = self._driver.module_from_buffer(content)
                raw = module.get_function(binary.entry)
                if binary.shared > _PLAIN_SHARED:
                    raw.set_attribute(self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, binary.shared)
            except self._driver.Error as error:
                self._refuse(binary, error)
            function = Function(entry, binary, module, raw)
            self.functions[name] = function
            return function

    def _refuse(self, binary: Binary, error: Exception) -> NoReturn:
        found = typed(error)
        raise type(found)(f"the driver does not load {binary.path}: {found}") from error
