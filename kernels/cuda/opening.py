"""A GPU opened as a device, with all that it may run loaded; or why that cannot be."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matchcut.kernels.cuda.errors import CudaAbsent, CudaError
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.cuda.probe import LIBRARY, Absent, probe

if TYPE_CHECKING:
    from matchcut.kernels.cuda.home import Cuda


@dataclass(frozen=True, slots=True)
class Refused:
    """why: what is missing, and what to do. odd: a driver is there, so a GPU may be, too."""

    why: str
    odd: bool


def open_cuda(ordinal: int, scan: str) -> Cuda | Refused:
    """The GPU as a device. Takes next to nothing where there is no driver, and up to some seconds where there is.

    Args:
        ordinal: which one, as the driver counts them, from 0.
        scan: see Cuda.

    Raises:
        ValueError: it cannot scan like that.
    """
    found = probe()
    if isinstance(found, Absent):
        return Refused(found.why, odd=_has_driver())
    from matchcut.kernels.cuda.home import Cuda  # only where there is a GPU

    try:
        device = Cuda(scan=scan, ordinal=ordinal)
        try:
            device.context.load(*_needed(device))
        except BaseException:
            device.close()
            raise
    except CudaError as error:
        return Refused(str(error), odd=True)
    return device


def _needed(device: Cuda) -> list[str]:
    """The kernels of all ops, save those that scan in other ways or do not run there.

    Loaded at the start, as the driver may have to compile one, for seconds, in which no other thread of Python runs.
    """
    manifest, own = Manifest.read(), device.scan.replace("cuda-", "scan_")
    return [
        name
        for name in manifest.kernels
        if (name.startswith(own) or not name.startswith("scan_")) and _runs(device, name)
    ]


def _runs(device: Cuda, name: str) -> bool:
    try:
        device.context.binary(name)
    except CudaAbsent:
        return False
    return True


def _has_driver() -> bool:
    """Whether the driver's library can be loaded at all, be it that it works or not."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True
