"""What the compiler wrote about its kernels, and which of a kernel's files a device can run.

A cubin is machine code: one for compute capability X.y runs on X.z, z >= y, of the same major, but
- from 9.0 up Triton compiles for sm_90a, sm_100a ..., which run on that very capability and on no other;
- those for the embedded devices (8.7: Orin) run on these and on nothing else.
PTX is compiled by the driver when it is loaded, which takes seconds, and runs on whatever is as new as its target.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchcut.kernels.cuda.errors import CudaAbsent

CUBINS = Path(__file__).parents[1] / "cubins"
VERSION = 1
SCRATCH = 2  # pointers that Triton adds to a kernel's arguments
_SPECIFIC = 90
_EMBEDDED = frozenset({72, 87, 101, 110})


@dataclass(frozen=True, slots=True)
class Binary:
    """One kernel, compiled for one target.

    target: "90", or "ptx80". entry: the function's symbol. shared: bytes of dynamic shared memory that a block needs.
    toolkit: (major, minor) of CUDA whose assembler made it; PTX: (0, 0), as the driver decides.
    """

    kernel: str
    target: str
    path: Path
    sha256: str
    entry: str
    shared: int
    registers: int
    spills: int
    toolkit: tuple[int, int]

    @property
    def ptx(self) -> bool:
        return self.target.startswith("ptx")

    def read(self) -> bytes:
        """The file.

        Raises:
            CudaAbsent: it is missing, or not what the compiler wrote.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise CudaAbsent(f"the compiled kernel {self.path} cannot be read ({error}): {_REMEDY}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise CudaAbsent(f"the compiled kernel {self.path} is not the one of its manifest: {_REMEDY}")
        return content


_REMEDY = "run ./build.sh kernels, or install matchcut's wheel again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One kernel.

    arguments: name and type as Triton writes it ("*fp32", "i32"), in the order of a launch, without the scratch.
    aligned: the integers among them that have to be multiples of 16. constants: what was compiled in. warps: of 32
    threads each, which make a block. binaries: by target.
    """

    name: str
    arguments: tuple[tuple[str, str], ...]
    aligned: frozenset[str]
    constants: Mapping[str, Any]
    warps: int
    binaries: Mapping[str, Binary]

    def binary(self, capability: int) -> Binary:
        """The file to load on a device.

        Args:
            capability: compute capability, 10 * major + minor.

        Raises:
            CudaAbsent: none of them runs on that device.
        """
        if (exact := self.binaries.get(str(capability))) is not None:
            return exact
        if capability < _SPECIFIC and capability not in _EMBEDDED:
            lower = [int(target) for target in self.binaries if target.isdecimal()]
            lower = [one for one in lower if one // 10 == capability // 10 and one < capability]
            if lower := [one for one in lower if one not in _EMBEDDED]:
                return self.binaries[str(max(lower))]
        older = [int(target[3:]) for target in self.binaries if target.startswith("ptx")]
        if older := [one for one in older if one <= capability]:
            return self.binaries[f"ptx{max(older)}"]
        raise CudaAbsent(
            f"the kernel {self.name} is compiled for compute capability "
            f"{', '.join(sorted(self.binaries, key=_order))}, none of which runs on {capability / 10:.1f}"
        )


def _order(target: str) -> tuple[bool, int]:
    return target.startswith("ptx"), int(target.removeprefix("ptx"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """All kernels, by name. triton, ptxas: the versions that compiled them."""

    path: Path
    triton: str
    ptxas: str
    kernels: Mapping[str, Entry]

    @classmethod
    def read(cls, path: Path | None = None) -> Manifest:
        """The manifest in a file, or, without a path, the one that was compiled with this matchcut.

        Raises:
            CudaAbsent: it is missing, or of another version.
        """
        path = path or CUBINS / "manifest.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CudaAbsent(f"the manifest of the compiled kernels cannot be read ({error}): {_REMEDY}") from error
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise CudaAbsent(f"{path} is of another version than {VERSION}: {_REMEDY}")
        try:
            kernels = {name: _entry(name, one, path.parent, content) for name, one in content["kernels"].items()}
            return cls(path, str(content["triton"]), str(content["ptxas"]), kernels)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CudaAbsent(f"{path} is not a manifest of kernels ({error!r}): {_REMEDY}") from error

    def entry(self, name: str) -> Entry:
        """The kernel of that name.

        Raises:
            CudaAbsent: there is none.
        """
        if name not in self.kernels:
            raise CudaAbsent(f"there is no compiled kernel {name!r} in {self.path}: {_REMEDY}")
        return self.kernels[name]

    def check(self, capability: int, driver: int) -> None:
        """Whether a device and its driver run all of the kernels that are compiled for it at all.

        Args:
            driver: the CUDA version that the driver supports, 1000 * major + 10 * minor.

        Raises:
            CudaAbsent: no kernel runs on that device, or the driver is too old.
        """
        runs = [entry for entry in self.kernels.values() if _runs(entry, capability)]
        if not runs:
            targets = {target for entry in self.kernels.values() for target in entry.binaries}
            raise CudaAbsent(
                f"no kernel runs on compute capability {capability / 10:.1f}; they are compiled for "
                f"{', '.join(sorted(targets, key=_order)) or 'nothing'}"
            )
        needed = max(entry.binary(capability).toolkit[0] for entry in runs)
        if driver // 1000 < needed:
            raise CudaAbsent(
                f"the driver supports CUDA {driver // 1000}.{driver % 1000 // 10}, and the kernels for this device "
                f"were assembled by CUDA {needed}: update the driver"
            )


def _runs(entry: Entry, capability: int) -> bool:
    try:
        entry.binary(capability)
    except CudaAbsent:
        return False
    return True


def _entry(name: str, one: dict[str, Any], folder: Path, content: dict[str, Any]) -> Entry:
    if one.get("scratch", SCRATCH) != SCRATCH or one["block"] != 32 * one["warps"]:
        raise ValueError(f"{name} is to be launched otherwise than this launcher does")
    binaries = {
        target: Binary(
            kernel=name,
            target=target,
            path=folder / file["file"],
            sha256=file["sha256"],
            entry=file["entry"],
            shared=int(file["shared"]),
            registers=int(file.get("registers") or 0),
            spills=int(file.get("spills") or 0),
            toolkit=(0, 0) if target.startswith("ptx") else _toolkit(file.get("ptxas", content["ptxas"])),
        )
        for target, file in one["targets"].items()
    }
    arguments = tuple((str(argument), str(kind)) for argument, kind in one["arguments"])
    aligned = frozenset(one.get("aligned", ()))
    return Entry(name, arguments, aligned, dict(one.get("constants", {})), int(one["warps"]), binaries)


def _toolkit(version: Any) -> tuple[int, int]:
    """The first number with a point in what ptxas says of itself."""
    found = re.search(r"(\d+)\.(\d+)", str(version))
    if found is None:
        raise ValueError(f"no version of ptxas in {version!r}")
    return int(found[1]), int(found[2])
