"""matchcut with a large catalogue: `python tests/bench/scale.py [segments ...]`, by default 10000 100000 1000000.

For each size a catalogue is made whose segments are spread as the default encoder spreads crops of the demo's frames
(their mean and covariance, normal), ten segments an item. Then a server starts on it, on one core with the client on
another, and this is measured: from process start to SERVING; until every row is coded, while it serves already; memory
after that; and queries, by a vector and by the bytes of a real clip, with the server's own time for ranking.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matchcut.client import Client, Ranking
from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines, models
from matchcut.server.catalog import open_catalog
from matchcut.server.engines import Engine
from matchcut.server.records import Item, Segment, TimeRange

SIZES = (10_000, 100_000, 1_000_000)
SEGMENTS = 10  # of an item
CROPS = 4_000
BATCH = 8
WAIT_S = 1_200.0
COLUMNS = ("segments", "what", "value", "unit", "versions")

Floats = NDArray[np.float32]


def crops(random: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Random parts of the frames of the demo's clips, (224, 224, 3) each."""
    frames: list[Image.Image] = []
    for name in common.CLIPS:
        with av.open(str(common.clip(name))) as container:
            for at, frame in enumerate(container.decode(video=0)):
                if at % 12 == 0:
                    frames.append(Image.fromarray(frame.to_ndarray(format="rgb24")))
    for _ in range(CROPS):
        whole = frames[random.integers(len(frames))]
        side = int(random.uniform(0.35, 1.0) * min(whole.size))
        left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
        yield np.asarray(whole.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BOX))


def embeddings(engine: Engine) -> Floats:
    """What the default encoder makes of the crops, of unit length."""
    found: list[Floats] = []
    waiting: list[NDArray[np.uint8]] = []
    encoder = engine.encoder
    for crop in crops(np.random.default_rng(0)):
        waiting.append(crop)
        if len(waiting) == BATCH:
            found.append(engine.run(preprocess(np.stack(waiting), encoder.mean, encoder.std, encoder.layout)))
            waiting.clear()
    vectors = np.concatenate(found)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def fill(data: Path, segments: int, sample: Floats, engine: Engine) -> None:
    """Makes the catalogue."""
    mean = sample.mean(axis=0)
    _, sizes, axes = np.linalg.svd(sample - mean, full_matrices=False)
    shape = (axes * (sizes / np.sqrt(len(sample)))[:, np.newaxis]).astype(np.float32)
    catalog, encoder = open_catalog(data), engine.encoder.identity

    def put(first: int) -> None:
        random = np.random.default_rng(first)
        vectors = mean + random.standard_normal((SEGMENTS * 100, len(shape)), np.float32) @ shape
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for at in range(100):
            parts = [
                Segment(TimeRange(i * 1_000_000, (i + 1) * 1_000_000), vector)
                for i, vector in enumerate(vectors[at * SEGMENTS : (at + 1) * SEGMENTS])
            ]
            number = first * 100 + at
            catalog.put("", Item(f"item-{number:07}"), parts, encoder, number.to_bytes(32, "big"))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(put, first) for first in range(segments // SEGMENTS // 100)]:
            done.result()
    catalog.close()


def rank(answer: Ranking) -> tuple[str, float]:
    """What ranked, and the milliseconds that it took."""
    (stage,) = [stage for stage in answer.times.stages if stage.name == "rank"]
    return stage.variant, stage.wall * 1e3


def resident_mib(pid: int) -> float:
    """Memory that the process holds now, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(data: Path, sample: Floats, core: int) -> Iterator[tuple[str, float, str]]:
    """What, how much, unit."""
    command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", "--threads", "1"]
    began = time.perf_counter()
    with (
        common.started([*command, "--data", str(data), "--cache", str(common.CACHE)], core) as (pid, address),
        Client(address, timeout=60.0) as client,
    ):
        assert client.health() == "SERVING"
        yield "start to SERVING", time.perf_counter() - began, "s"
        first, slow = rank(client.recommend(vector=sample[0]))
        yield f"rank by a vector, {first}, before codes", slow, "ms"
        while (variant := rank(client.recommend(vector=sample[0]))[0]) == "cpu-numpy":
            if time.perf_counter() - began > WAIT_S:
                raise SystemExit("the rows were not coded in time")
            time.sleep(0.2)
        yield "start to all rows coded", time.perf_counter() - began, "s"
        yield "resident", resident_mib(pid), "MiB"
        yield "peak", common.peak_mib(pid), "MiB"
        walls, ranks = [], []
        for vector in sample[::100]:
            clock = time.perf_counter()
            answer = client.recommend(vector=vector)
            walls.append((time.perf_counter() - clock) * 1e3)
            ranks.append(rank(answer)[1])
        yield f"rank by a vector, {variant}", statistics.median(ranks), "ms"
        yield "vector to top 10 through gRPC", statistics.median(walls), "ms"
        (stage,) = [stage for stage in answer.times.stages if stage.name == "rank"]
        for name, count in stage.counts.items():
            yield f"the last query's {name}", float(count), ""
        clip = common.clip("carphone")
        walls, ranks, spent = [], [], []
        for _ in range(15):
            clock, cpu = time.perf_counter(), common.cpu_seconds(pid)
            answer = client.recommend(clip=clip)
            walls.append((time.perf_counter() - clock) * 1e3)
            spent.append((common.cpu_seconds(pid) - cpu) * 1e3)
            ranks.append(rank(answer)[1])
        yield "clip's bytes to top 10 through gRPC", statistics.median(walls), "ms"
        yield "clip's bytes to top 10, CPU", statistics.median(spent), "ms"
        yield "of that, rank", statistics.median(ranks), "ms"


def main() -> None:
    """Measures, prints and appends to the results."""
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    cores = sorted(os.sched_getaffinity(0))
    common.pin(cores[-1])
    engine = engines.load(models.load(models.default_encoder(common.CACHE)), threads=1, cache=common.CACHE)
    sample = embeddings(engine)
    versions = common.versions("grpcio", "numpy")
    print(f"{common.cpu()}, server on core {cores[0]}; {versions}")
    for segments in sizes:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), segments, sample, engine)
            rows = []
            for what, value, unit in measure(Path(folder), sample, cores[0]):
                print(f"{segments:>9}  {what:45} {value:10.2f} {unit}", flush=True)
                rows.append((segments, what, f"{value:.3f}", unit, versions))
        common.keep("scale", COLUMNS, rows)
    engine.close()


if __name__ == "__main__":
    main()
