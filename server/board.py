"""What serving would use on an aarch64 board, told on any machine: of the board itself nothing is known here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata

from matchcut.kernels.cuda import CudaAbsent, Manifest
from matchcut.server import models
from matchcut.server.checkup import Finding, profile
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.models.default import NAME

__all__ = ["MACHINE", "ORIN", "SCANS", "base", "examine"]

MACHINE = "aarch64"
ORIN = "87"  # compute capability of Jetson Orin, as the manifest of the kernels has it

# The variants of kernels/native for it, best first, and which processors have what they need. From Arm's technical
# reference manuals: FEAT_I8MM is in Neoverse V1 and N2, FEAT_DotProd in Cortex-A76 and A78AE, and in A72 is neither.
SCANS = {
    "i8mm": "where the processor has Armv8.6 i8mm: Neoverse V1, N2 and newer",
    "dotprod": "where it has Armv8.2 dot products, and no i8mm: Cortex-A76 (Raspberry Pi 5), A78AE (Jetson Orin)",
    "scalar": "where it has neither: Cortex-A72 (Raspberry Pi 4)",
    "numpy": "where the scan library was not built: it takes a C compiler when matchcut is installed on the board",
}


def examine(settings: Config) -> list[Finding]:
    """All that can be said of such a board with these options."""
    return [*platform(), *profile(settings), *scans(settings), *engines(settings), encoder(settings), orin()]


def platform() -> Iterator[Finding]:
    """What matchcut can be installed on."""
    yield Finding("platform", "found", f"any {MACHINE} with Linux, glibc 2.28 or newer, and Python 3.11 or newer")
    yield Finding("packages", "found", f"{', '.join(base(MACHINE))}; each has a wheel for it, nothing else is built")


def base(machine: str) -> list[str]:
    """What matchcut needs on such a machine, extras aside: names of packages with their versions."""
    wanted = []
    for one in metadata.requires("matchcut") or []:
        requirement, _, marker = (part.strip() for part in one.partition(";"))
        machines = re.findall(r"platform_machine == ['\"](\w+)['\"]", marker)
        if "extra ==" not in marker and (not machines or machine in machines):
            wanted.append(requirement)
    return wanted


def scans(settings: Config) -> Iterator[Finding]:
    """Each implementation of the ranking there."""
    for name, where in SCANS.items():
        if settings.scan in ("auto", name):
            yield Finding(f"scan {name}", "available", where)
        else:
            yield Finding(f"scan {name}", "absent", f"not what --scan {settings.scan} says")
    if settings.scan != "auto" and settings.scan not in SCANS:
        yield Finding(f"scan {settings.scan}", "broken", f"there is none on {MACHINE}; choose another, or auto")


def engines(settings: Config) -> Iterator[Finding]:
    """Each library that could run the encoder there."""
    there = {re.split(r"[<>=!~]", one)[0] for one in base(MACHINE)}
    for name in ("onnxruntime", "openvino"):
        wanted = settings.engine.partition("-")[0] in ("auto", name)
        if name in there:
            state = "chosen" if wanted else "available"
            yield Finding(f"engine {name}", state, "it comes with matchcut, in float32 and int8")
        else:
            named = settings.engine.startswith(name)
            yield Finding(f"engine {name}", "broken" if named else "absent", f"it does not come with it on {MACHINE}")
    yield Finding(
        "engine tensorrt",
        "available",
        "from JetPack, where its Python is 3.11 or newer; engines for Orin have to be built there: matchcut engine "
        "build --help",
    )


def encoder(settings: Config) -> Finding:
    """The encoder that would be served."""
    if settings.encoder != NOT_GIVEN:
        return Finding("encoder", "found", f"{settings.encoder}: the same file, the same encoder")
    version = models.VERSIONS[models.bits(settings.precision)]
    return Finding("encoder", "found", f"{NAME} {version}, the same bytes as on any machine")


def orin() -> Finding:
    """Whether there are kernels for Jetson Orin's GPU."""
    try:
        manifest = Manifest.read()
    except CudaAbsent as error:
        return Finding("GPU kernels", "absent", str(error))
    count = sum(ORIN in entry.binaries for entry in manifest.kernels.values())
    if not count:
        return Finding("GPU kernels", "absent", "none was compiled for Jetson Orin")
    return Finding("GPU kernels", "available", f"{count}, for compute capability 8.7: Jetson Orin, with PyCUDA")
