"""A launcher's context on the simulated driver."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cuda_sim.simulation import Program, StandIn, load
from matchcut.kernels.cuda.errors import CudaError
from matchcut.kernels.cuda.launcher import LANES, Context
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.gpu.spec import Kernel


@contextmanager
def simulated_context(
    kernels: Sequence[Kernel] = (),
    *,
    capability: int = 90,
    memory: int = 1 << 30,
    stand_ins: Mapping[str, StandIn] | None = None,
    shared: Mapping[str, int] | None = None,
    manifest: Manifest | None = None,
    lanes: int = LANES,
) -> Iterator[Context]:
    """A context, closed in the end; `cuda_sim.simulation.load()` is its driver, for failures and counts.

    Args:
        kernels: those that can be launched. capability, memory: of the device; memory in bytes.
        stand_ins: by a kernel's name, what runs in its stead: called with the grid and the arguments, a NumPy array to
            the end of the allocation for each pointer. All others run in Triton's interpreter.
        shared: bytes of dynamic shared memory, by a kernel's name. manifest: of kernels that have really been compiled;
            None: one that is made up.

    Raises:
        AssertionError: in the end, if a launch was wrong, a kernel failed or wrote out of bounds, or something leaked.
    """
    simulation = load()
    simulation.reset(capability=capability, memory=memory)
    with tempfile.TemporaryDirectory() as folder:
        # A device for which there is no kernel at all is refused.
        some = kernels or [Kernel("idle", lambda: None, {}, {})]
        manifest = manifest or Manifest.read(write_manifest(Path(folder), some, shared=shared))
        for kernel in [one for one in kernels if one.fits(capability)]:
            entry = manifest.entry(kernel.name)
            assert (entry.arguments, entry.warps, entry.aligned, dict(entry.constants)) == (
                *(tuple(kernel.arguments.items()), kernel.warps, kernel.aligned, dict(kernel.constants)),
            ), f"{kernel.name} was compiled from another source: run ./build.sh kernels"
            run = (stand_ins or {}).get(kernel.name) or functools.partial(_interpret, kernel)
            simulation.programs[kernel.name] = Program(kernel, entry.binary(capability), run)
        context = Context.open(manifest=manifest, lanes=lanes)
        try:
            yield context
        except CudaError as error:
            if simulation.problems:
                raise AssertionError(f"in the simulation: {simulation.problems[0]!r}") from simulation.problems[0]
            raise error from None
        finally:
            with suppress(CudaError):
                context.close()
        lost = simulation.settings.lost
        simulation.settings.lost = 0
        simulation.library.matchcut_simulation_clear()
    assert not simulation.problems, simulation.problems
    assert not simulation.counts.overruns, "a kernel wrote behind its memory"
    assert not simulation.counts.misuses, "the driver was misused"
    assert lost or not simulation.counts.leaked, f"{simulation.counts.leaked} things were not given back"


def write_manifest(
    folder: Path,
    kernels: Sequence[Kernel],
    *,
    targets: Sequence[str] = ("75", "80", "86", "87", "89", "90", "100", "120", "ptx80"),
    shared: Mapping[str, int] | None = None,
    ptxas: str = "12.9.86",
) -> Path:
    """A manifest as the compiler writes it, and files that are cubins to the simulation only.

    Returns:
        The manifest's path.
    """
    entries: dict[str, Any] = {}
    for kernel in kernels:
        made: dict[str, Any] = {}
        for target in targets:
            if not kernel.fits(int(target.removeprefix("ptx"))):
                continue
            code = _ptx(target, kernel.name) if target.startswith("ptx") else _cubin(int(target), kernel.name)
            name = f"{target}-{kernel.name}"
            (folder / name).write_bytes(code)
            made[target] = {
                "file": name,
                "entry": kernel.name,
                "shared": (shared or {}).get(kernel.name, 0),
                "registers": 32,
                "spills": 0,
                "bytes": len(code),
                "sha256": hashlib.sha256(code).hexdigest(),
            }
        entries[kernel.name] = {
            "arguments": list(kernel.arguments.items()),
            "aligned": sorted(kernel.aligned),
            "constants": dict(kernel.constants),
            "warps": kernel.warps,
            "block": 32 * kernel.warps,
            "scratch": 2,
            "targets": made,
        }
    path = folder / "manifest.json"
    path.write_text(json.dumps({"version": 1, "triton": "3.9.0", "ptxas": ptxas, "kernels": entries}))
    return path


def _cubin(capability: int, name: str) -> bytes:
    """The head of an ELF file for CUDA, which is what the simulation looks at, and a name to tell it from others."""
    specific = 0x800 if capability >= 90 else 0
    end = 64 + len(name.encode())
    head = b"\x7fELF\x02\x01\x01\x33" + bytes(8)
    return head + struct.pack("<HHIQQQI", 2, 190, 1, 0, 0, end, capability | specific) + bytes(12) + name.encode()


def _ptx(target: str, name: str) -> bytes:
    return f"// {name}\n.version 8.0\n.target sm_{target.removeprefix('ptx')}\n.address_size 64\n".encode()


def _interpret(kernel: Kernel, grid: tuple[int, ...], *arguments: Any) -> None:
    # Imported only here: it puts Triton into its interpreter for the rest of the process.
    from support.triton_interpreter import interpret

    interpret(kernel, grid, *arguments)
