"""Pictures to vectors on a GPU by TensorRT, beside the same in two steps and beside the CPU.

    python tests/bench/gpu_encode.py [--encoder encoders/fp16/encoder.onnx] [--engine tensorrt] [--results FOLDER]

Needs a GPU, PyCUDA, the compiled kernels and TensorRT; without --encoder it is the default one, in float32. *chain* is
what the server does: bytes up, preprocessed and encoded there, vectors down. *apart* preprocesses on the GPU and passes
the pixels through the host. *cpu* is the engine that `auto` takes on this CPU, on one core. Milliseconds by the wall
clock, Python included; batches and ways take turns. Before anything is timed, vectors are compared with the CPU's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import common
import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.device import Cpu, NoDevice, open_device
from matchcut.server import engines, models
from matchcut.server.engines import choose, registry, trial
from matchcut.server.errors import MatchcutError

BATCHES = (1, 4, 8, 16, 32)
LEAST = 0.995  # cosine to the CPU's vectors, which an int8 engine keeps, too
COLUMNS = ("card", "driver", "encoder", "engine", "batch", "way", "p50_ms", "p99_ms", "pictures_per_s", "versions")

Way = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def failed(error: Exception) -> NoReturn:
    """Ends the program where the GPU fails."""
    raise SystemExit(f"the GPU failed: {error}")


def ways(encoder: models.Encoder, name: str) -> tuple[dict[str, Way], str]:
    """What is compared, and what the engine on the GPU is called."""
    device = open_device("cuda")
    assert device.context is not None
    engine = engines.load(encoder, engine=name, gpu=engines.OpenGpu(device.context, failed))
    beside = choose.measure(encoder, 1)[0]
    assert isinstance(engine, engines.SeeingEngine)
    seeing, how = engine, (encoder.mean, encoder.std, encoder.layout)
    made: dict[str, Way] = {
        "chain": lambda pictures: seeing.see(pictures).vectors,
        "apart": lambda pictures: seeing.run(device.preprocess(pictures, *how)),
        "cpu": lambda pictures: beside.run(Cpu.preprocess(pictures, *how)),
    }
    return made, engine.variant


def shown(count: int, encoder: models.Encoder) -> NDArray[np.uint8]:
    """Real pictures of the encoder's size, each with some noise of its own."""
    random = np.random.default_rng(count)
    base = trial.frames(encoder).transpose(0, 2, 3, 1) if encoder.layout == "NCHW" else trial.frames(encoder)
    pictures = np.clip(base * np.array(encoder.std) + np.array(encoder.mean), 0, 255)
    noisy = pictures[np.arange(count) % len(pictures)] + random.integers(-8, 9, (count, *pictures.shape[1:]))
    made: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return made


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least of all rows."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / norms).min())


def measured(made: dict[str, Way], encoder: models.Encoder, rounds: int) -> dict[tuple[int, str], list[float]]:
    """Seconds by batch and way, after all ways gave the same."""
    took: dict[tuple[int, str], list[float]] = defaultdict(list)
    for batch in BATCHES:
        pictures = shown(batch, encoder)
        wanted = made["cpu"](pictures)
        for name in ("chain", "apart"):
            assert (least := cosine(made[name](pictures), wanted)) >= LEAST, f"{name}, {batch}: cosine {least}"
    for turn in range(rounds):
        for batch in BATCHES:
            pictures = shown(batch, encoder)
            for name in made:
                for _ in range(1 if name == "cpu" else 20):
                    began = time.perf_counter()
                    made[name](pictures)
                    took[batch, name].append(time.perf_counter() - began)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return took


def card() -> list[str]:
    """Its name and its driver's version."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return [value.strip() for value in line.split(",")]


def main() -> None:
    """Measures, prints and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--engine", default="tensorrt", choices=list(registry.ON_GPU))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--results", type=Path, help="folder for gpu_encode.csv; default: tests/bench/results")
    options = parser.parse_args()
    encoder = models.load(options.encoder or models.default_encoder(common.CACHE))
    try:
        made, variant = ways(encoder, options.engine)
    except (NoDevice, MatchcutError) as error:
        raise SystemExit(f"nothing is measured: {error}") from error
    rows: list[list[Any]] = []
    versions = common.versions(registry.ON_GPU[options.engine].library, "numpy")
    for (batch, name), seconds in measured(made, encoder, options.rounds).items():
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
        figures = (round(p50, 3), round(p99, 3), round(batch / p50 * 1e3))
        rows.append([*card(), encoder.identity.name, variant, batch, name, *figures, versions])
        print(f"batch {batch:3} {name:6} {p50:8.3f} ms, p99 {p99:8.3f}, {batch / p50 * 1e3:8.0f} pictures/s")
    if options.results:
        common.RESULTS = options.results
    print(common.keep("gpu_encode", COLUMNS, rows))


if __name__ == "__main__":
    main()
