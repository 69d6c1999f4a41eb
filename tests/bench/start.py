"""From process start to SERVING with many items stored: `python tests/bench/start.py [items] [rounds]`.

A catalogue of 10,000 items, 3 segments of 1280 values each, is made once. Then servers start on it, and as often on
an empty one, in turns, on one core while the client runs on another; the clock stops when grpc.health.v1 says SERVING.
The engine's choice is remembered from a start that does not count; that first start, which measures the engines, is
given too. A breakdown follows: the same steps in a process of their own, and the imports that take longest.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import common
from filled import fill

GOAL_S = 3.0
SEGMENTS = 3
SLOWEST = 8


def start(data: Path, cache: Path, core: int) -> tuple[float, float, float]:
    """Seconds from process start to SERVING, the CPU seconds of the server until then, and its peak memory in MiB."""
    from matchcut.client import Client

    command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", "--threads", "1"]
    began = time.perf_counter()
    with common.started([*command, "--data", str(data), "--cache", str(cache)], core) as (pid, address):
        with Client(address) as client:
            if client.health() != "SERVING":
                raise SystemExit("the server listens but does not serve")
        return time.perf_counter() - began, common.cpu_seconds(pid), common.peak_mib(pid)


def steps(data: Path, cache: Path) -> None:
    """Prints how long each step of a start takes, in this process."""
    clock = time.perf_counter()

    def done(what: str) -> None:
        nonlocal clock
        print(f"  {what:24} {time.perf_counter() - clock:6.3f} s", flush=True)
        clock = time.perf_counter()

    import matchcut.server.app

    assert matchcut.server.app
    done("imports")
    from matchcut.kernels.device import open_device
    from matchcut.server import engines, models
    from matchcut.server.catalog import open_catalog

    encoder = models.load(models.default_encoder(cache))
    done("encoder's description")
    engine = engines.load(encoder, threads=1, cache=cache)
    done(f"engine {engine.variant}")
    catalog = open_catalog(data)
    catalog.view("", encoder.identity)
    open_device()
    done(f"catalogue of {catalog.count('')}")


def slowest_imports() -> list[tuple[float, str]]:
    """Seconds that modules of their own take to import, added up by package, the slowest first."""
    command = [sys.executable, "-X", "importtime", "-c", "import matchcut.server.app"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    taken: dict[str, float] = {}
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():
            parts = name.strip().split(".")
            package = ".".join(parts[: {"matchcut": 3, "google": 2}.get(parts[0], 1)])
            taken[package] = taken.get(package, 0.0) + int(own) / 1e6
    return sorted(((seconds, package) for package, seconds in taken.items()), reverse=True)[:SLOWEST]


def main() -> None:
    """Measures, prints and appends to the results."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    cores = sorted(os.sched_getaffinity(0))
    common.pin(cores[-1])
    with tempfile.TemporaryDirectory() as folder:
        full, empty, cache = (Path(folder) / name for name in ("full", "empty", "cache"))
        fill(full, items, SEGMENTS)
        from matchcut.server import models

        models.default_encoder(cache)
        starts: dict[str, Callable[[], tuple[float, float, float]]] = {
            f"{items} items": partial(start, full, cache, cores[0]),
            "empty": partial(start, empty, cache, cores[0]),
        }
        first, *_ = starts["empty"]()
        found: dict[str, list[tuple[float, float, float]]] = {what: [] for what in starts}
        for _ in range(rounds):
            for what, once in starts.items():
                found[what].append(once())
        versions = common.versions("grpcio", "numpy", "onnxruntime", "openvino")
        print(f"{common.cpu()}, server on core {cores[0]}; {versions}; goal {GOAL_S:g} s")
        print(f"  first start of all, engines measured: {first:.2f} s")
        rows: list[tuple[object, ...]] = [("first start, engines measured", f"{first:.3f}", "", "", "", versions)]
        for what, each in found.items():
            wall, spent, peak = (statistics.median(column) for column in zip(*each, strict=True))
            worst = max(seconds for seconds, _, _ in each)
            print(f"  {what}: {wall:.2f} s to SERVING (worst {worst:.2f}), {spent:.2f} s of CPU, {peak:.0f} MiB")
            rows.append((what, f"{wall:.3f}", f"{worst:.3f}", f"{spent:.3f}", f"{peak:.0f}", versions))
        print("where it goes:", flush=True)
        with common.on_core(cores[0]):
            subprocess.run([sys.executable, __file__, "--steps", str(full), str(cache)], check=True)
            for seconds, package in slowest_imports():
                print(f"  import {package:20} {seconds:.3f} s")
    columns = ("start", "wall_s_p50", "wall_s_worst", "cpu_s_p50", "peak_mib", "versions")
    print(f"appended to {common.keep('start', columns, rows)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--steps"]:
        steps(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
