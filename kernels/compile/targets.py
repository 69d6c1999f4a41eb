"""The GPUs that are compiled for, and what each allows a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FALLBACK = "ptx80"  # portable code of sm_80, which a driver translates for any GPU that is as new or newer


@dataclass(frozen=True, slots=True)
class Gpu:
    """A compute capability.

    warps, blocks: at most at a time on one multiprocessor. shared: bytes of shared memory that one has; a block can ask
    for all but `reserved` of it. columns: of its tensor memory, where it has one. ptx: the version of the intermediate
    language that is compiled through.

    The numbers are those of the CUDA programming guide, "Compute Capabilities", and of cuda_occupancy.h.
    """

    capability: int
    warps: int
    blocks: int
    shared: int
    reserved: int = 1024
    columns: int = 0
    ptx: int = 80

    @property
    def arch(self) -> str:
        """As ptxas writes it. With an "a" the code runs on exactly this capability, on no newer minor one."""
        return f"sm_{self.capability}{'a' if self.capability >= 90 else ''}"


# PTX 8.0 is read by every driver since CUDA 12.0 (525) and says all that these GPUs can do, Hopper's wgmma included;
# Blackwell's instructions came with 8.6 and 8.7. None is above 8.8, so that ptxas 12.9 reads them all: its code is of
# an ABI (7) that the drivers of CUDA 12 and of CUDA 13 load, while that of ptxas 13 (8) takes a driver of CUDA 13.
GPUS = {
    str(gpu.capability): gpu
    for gpu in (
        Gpu(75, warps=32, blocks=16, shared=64 << 10, reserved=0),
        Gpu(80, warps=64, blocks=32, shared=164 << 10),
        Gpu(86, warps=48, blocks=16, shared=100 << 10),
        Gpu(87, warps=48, blocks=16, shared=164 << 10),
        Gpu(89, warps=48, blocks=24, shared=100 << 10),
        Gpu(90, warps=64, blocks=32, shared=228 << 10),
        Gpu(100, warps=64, blocks=32, shared=228 << 10, columns=512, ptx=88),
        Gpu(120, warps=48, blocks=24, shared=100 << 10, ptx=88),
    )
}
TARGETS = (*GPUS, FALLBACK)

REGISTERS = 65536  # of a multiprocessor, in four parts; a warp gets them by the 256
PARTS = 4
UNIT = 256
SHARED_UNIT = {75: 256}  # bytes; 128 everywhere else


def gpu_of(target: str) -> Gpu:
    """The GPU whose compilation gives that target."""
    return GPUS["80" if target == FALLBACK else target]


def blocks_per_multiprocessor(gpu: Gpu, *, warps: int, registers: int, shared: int, columns: int = 0) -> int:
    """How many blocks of so many warps fit on one multiprocessor at a time; 0: not even one."""
    per_warp = _up(registers * 32, UNIT)
    fit = [gpu.blocks, gpu.warps // warps]
    if per_warp:
        fit.append(REGISTERS // PARTS // per_warp * PARTS // warps)
    if taken := _up(shared + gpu.reserved, SHARED_UNIT.get(gpu.capability, 128)):
        fit.append(gpu.shared // taken)
    if columns:
        fit.append(gpu.columns // columns)
    return min(fit)


def occupancy(target: str, warps: int, entry: dict[str, Any]) -> tuple[int, int, int]:
    """Blocks and warps on a multiprocessor, and these in percent of the most, for an entry of the manifest."""
    gpu = gpu_of(target)
    resources = {"registers": entry["registers"], "shared": entry["shared"], "columns": entry["columns"]}
    blocks = blocks_per_multiprocessor(gpu, warps=warps, **resources)
    return blocks, blocks * warps, round(100 * blocks * warps / gpu.warps)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
