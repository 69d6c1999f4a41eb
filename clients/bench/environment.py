"""Where figures come from: the machine of the generator, versions, time."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

__all__ = ["facts"]

PACKAGES = ("matchcut", "grpcio", "protobuf", "hdrhistogram")


def facts() -> dict[str, str]:
    """Facts by name, fit to be printed."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "generator's CPU": f"{_cpu()}, {usable} of {os.cpu_count()} cores usable",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load average before": load,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
