"""What a processor's way with bytes means for encoders in int8."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["saturates"]

CPUINFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "amd64")
DOTS = {"avx512_vnni", "avx_vnni"}


def saturates() -> bool:
    """Whether ONNX Runtime's fastest products of bytes may overflow here: on x86 without VNNI.

    Two products of a byte without and one with a sign are added in 16 bits there (the instruction VPMADDUBSW), which
    large weights exceed. Where it is not known, it is assumed.
    """
    if platform.machine().lower() not in X86:
        return False
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return True
    return not DOTS & set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
