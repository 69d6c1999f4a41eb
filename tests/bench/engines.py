"""CPU time of each engine for one frame, by batch size, on one core: `python tests/bench/engines.py`.

The baseline is ONNX Runtime in float32, what most servers run. Engines take turns, so that all meet the same noise.
Also, for each in a process of its own: CPU seconds to import and load, and the memory at its highest.
"""

from __future__ import annotations

import csv
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from matchcut.server import engines, models
from matchcut.server.engines import memory, registry, trial
from matchcut.server.errors import EngineFailed

RESULTS = Path(__file__).parent / "results" / "engines.csv"
BASELINE = "onnxruntime-fp32"
BATCHES = (1, 4, 8, 16)
ROUNDS = 15
COLUMNS = (
    *("date", "cpu", "versions", "engine", "batch", "cpu_ms_p20", "cpu_ms_p50", "cpu_ms_p80", "ratio_to_baseline"),
    *("cosine_min", "load_s", "peak_mb"),
)


def start(path: Path, variant: str) -> tuple[float, float]:
    """CPU seconds from import to first embedding, and peak memory in MB after batches of 8, in a new process."""
    command = [sys.executable, __file__, str(path), variant]
    seconds, megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(megabytes)


def started(path: Path, variant: str) -> None:
    """The new process' part."""
    encoder = models.load(path)
    batch = np.zeros(encoder.shape(8), np.float32)
    began = time.process_time()
    engine = engines.load(encoder, engine=variant, threads=1)
    engine.run(batch[:1])
    seconds = time.process_time() - began
    for _ in range(5):
        engine.run(batch)
    print(seconds, peak_mb())


def peak_mb() -> float:
    """This process' peak memory; getrusage would count the parent's too, from before the start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Measures, prints a table and appends it to the results."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as cache:
        path = models.default_encoder(Path(cache))
        encoder = models.load(path)
        loaded = {}
        for variant in registry.available():
            try:
                loaded[variant] = engines.load(encoder, engine=variant, threads=1)
            except EngineFailed as error:
                print(f"{variant}: {error}")
        starts = {variant: start(path, variant) for variant in loaded}
    frames = np.concatenate([trial.frames(encoder)] * 2)
    exact = loaded[BASELINE].run(frames)
    cosines = {variant: trial.least_cosine(engine.run(frames), exact) for variant, engine in loaded.items()}

    cpu = memory.cpu()["cpu"]
    versions = " ".join(f"{library}={version}" for library, version in registry.versions().items())
    rows = []
    print(f"{cpu}, core {core}, {versions}; CPU ms a frame, median of {ROUNDS}")
    for batch in BATCHES:
        times: dict[str, list[float]] = {variant: [] for variant in loaded}
        for _ in range(ROUNDS + 1):
            for variant, engine in loaded.items():
                times[variant].append(trial.cpu_ms(engine, frames[:batch]))
        for variant, taken in times.items():
            taken = taken[1:]  # the first run of a shape prepares it
            ratio = statistics.median(a / b for a, b in zip(taken, times[BASELINE][1:], strict=True))
            p20, p50, p80 = np.percentile(taken, (20, 50, 80))
            seconds, megabytes = starts[variant]
            print(
                f"  batch {batch:2}  {variant:18} {p50:6.2f} ms  {ratio:.2f} of {BASELINE}  "
                f"cosine {cosines[variant]:.5f}  load {seconds:.2f} s  {megabytes:.0f} MB"
            )
            figures = (f"{p20:.3f}", f"{p50:.3f}", f"{p80:.3f}", f"{ratio:.3f}", f"{cosines[variant]:.6f}")
            today = datetime.date.today().isoformat()
            rows.append((today, cpu, versions, variant, batch, *figures, f"{seconds:.2f}", f"{megabytes:.0f}"))
    RESULTS.parent.mkdir(exist_ok=True)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        started(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
