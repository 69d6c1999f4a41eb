"""What the benchmarks share: the machine's name, one core, the demo's clips, CPU time of a process, rows of results."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "build" / "media"
CACHE = ROOT / "build" / "cache"
CLIPS = ("a", "b", "bigbuckbunny", "bikes", "carphone", "world")
RESULTS = Path(__file__).parent / "results"
SERVING = "serving on "


def clip(name: str) -> Path:
    """One of CLIPS; SystemExit that says what to do where it is missing."""
    path = MEDIA / f"{name}.mp4"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: python clients/demo/media.py build/media")
    return path


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def pin(core: int | None = None) -> int:
    """Ties this process, and those that it starts, to one core, the last one by default; returns its number."""
    core = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {core})
    return core


def cpu_seconds(pid: int) -> float:
    """What a process and its threads have used, user and system: the kernel's clock of that process."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid() makes of a pid on Linux


def versions(*packages: str) -> str:
    """The versions of packages, for the results."""
    return " ".join(f"{package}={metadata.version(package)}" for package in packages)


def peak_mib(pid: int) -> float:
    """The most memory that a process has held, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that are started inside run on this core."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


@contextmanager
def started(command: Sequence[str], core: int) -> Iterator[tuple[int, str]]:
    """Starts a server on one core; gives its pid and the address that it prints, and ends it afterwards."""
    with on_core(core):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        try:
            address = next((line.partition(SERVING)[2].strip() for line in lines if SERVING in line), "")
            if not address:
                raise SystemExit(f"it does not start: {' '.join(command)}")
            yield process.pid, address
        finally:
            process.terminate()
            process.wait()


def keep(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Appends rows to results/<name>.csv, each with the date and the processor before it."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(["date", "cpu", *columns])
        writer.writerows([date.today().isoformat(), cpu(), *row] for row in rows)
    return path
