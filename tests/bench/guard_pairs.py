"""The pairs that the guard measures: something of matchcut and the plain way to do the same, or the least it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from compare_goals import PLAIN, PLAIN_BARE
from compare_systems import Bare, Matchcut, Step
from decode import bare, decode
from serving_peers import Starter

from matchcut.client import Client
from matchcut.kernels.bench import contenders
from matchcut.kernels.bench.synthetic import power_law, structured
from matchcut.kernels.device import open_device
from matchcut.server import engines, models
from matchcut.server.records import Sampling, ShotMode

ROWS, DIMENSIONS, K = 100_000, 512, 10
FRAMES, SIDE = 16, 224
CALLS = 40  # of what takes a millisecond, in one side of a round
CLIPS = ("b", "carphone", "bikes")  # short ones, where what a server adds weighs most
LOOK = "bigbuckbunny"  # the clip that is decoded: 720p


@dataclass(frozen=True, slots=True)
class Pair:
    """Two things to do in turns. clock: CPU seconds that count, else those of this process."""

    what: str
    ours: Callable[[], object]
    baseline: Callable[[], object]
    clocks: tuple[Callable[[], float], Callable[[], float]] = (time.process_time, time.process_time)


def decoding() -> Iterator[Pair]:
    """Every frame, two a second, and key frames where they are near, beside PyAV's bare loop."""
    data = common.clip(LOOK).read_bytes()
    samplings = {
        "decode, every frame": Sampling(1000.0),
        "decode, 2 fps": Sampling(2.0, shots=ShotMode.COARSE),
    }
    for what, sampling in samplings.items():
        yield Pair(f"{what} : PyAV", lambda s=sampling: decode(data, s, "rgb"), lambda: bare(data))  # type: ignore[misc]
    many = common.clip("world").read_bytes()
    near = Sampling(2.0, tolerance_us=1_000_000, shots=ShotMode.COARSE)
    yield Pair("decode, 2 fps within 1 s : PyAV", lambda: decode(many, near, "rgb"), lambda: bare(many))


def ranking() -> Iterator[Pair]:
    """The exact scan beside a read of its codes, and beside a product and a partition in NumPy."""
    rows, asked = np.empty((ROWS, DIMENSIONS), np.float32), np.empty((8, DIMENSIONS), np.float32)
    source = structured(power_law(DIMENSIONS))
    source.fill(rows, 1)
    source.fill(asked, 2)
    device, groups = open_device("cpu", threads=1), np.arange(ROWS, dtype=np.int64)
    codes = device.coding(rows)
    if codes is not None:
        coded = contenders.coded_rows(codes, rows)
        read = contenders.PlainRead(coded, codes.nbytes)

        def scan() -> None:
            for query in asked:
                device.search(query[None], rows, groups=groups, k=K, coded=coded)

        def product() -> None:
            for query in asked:
                scores = rows @ query
                np.argpartition(scores, -K)

        yield Pair("scan of 100,000 x 512, k=10 : reading the codes", scan, lambda: [read.ask(asked, K) for _ in asked])
        yield Pair("scan of 100,000 x 512, k=10 : NumPy", scan, product)


def encoding() -> Iterator[Pair]:
    """Preprocessing beside NumPy, pooling beside a loop of means, the engine beside its library."""
    import onnxruntime

    encoder = models.load(models.default_encoder(common.CACHE))
    device = open_device("cpu", threads=1)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    mean, scale = np.float32(encoder.mean[0]), np.float32(1 / encoder.std[0])
    yield Pair(
        "preprocess 16 frames : NumPy",
        lambda: device.preprocess(frames, encoder.mean, encoder.std, encoder.layout),
        lambda: np.ascontiguousarray(((frames.astype(np.float32) - mean) * scale).transpose(0, 3, 1, 2)),
    )
    vectors, offsets = random.normal(size=(512, 1280)).astype(np.float32), np.arange(0, 513, 8, dtype=np.int64)
    yield Pair(
        "pool 64 segments of 8 : NumPy",
        lambda: [device.pool(vectors, offsets, weights=np.ones(512, np.float32)) for _ in range(CALLS)],
        lambda: [vectors.reshape(64, 8, 1280).mean(axis=1, dtype=np.float64) for _ in range(CALLS)],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(encoder.path), options, providers=["CPUExecutionProvider"])
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    pixels = np.ascontiguousarray(device.preprocess(frames[:4], encoder.mean, encoder.std, encoder.layout))
    exact = engines.load(encoder, engine="onnxruntime", threads=1)
    chosen = engines.load(encoder, engine="auto", threads=1, cache=common.CACHE)
    for what, engine in (("onnxruntime", exact), ("chosen", chosen)):
        yield Pair(
            f"encode 4 frames, engine {what} : ONNX Runtime",
            lambda e=engine: e.run(pixels),  # type: ignore[misc]
            lambda: session.run([output], {given: pixels}),
        )


def serving(stack: ExitStack, folder: Path, core: int) -> Iterator[Pair]:
    """A server's CPU time for clips beside the bare loop's; for a query by item beside a health check's."""
    encoder = models.default_encoder(common.CACHE)
    loop = Bare(stack, core, encoder, PLAIN_BARE, "onnxruntime", 0.0)
    server = Matchcut(
        Starter(stack, folder, folder, [core]), encoder, Step(PLAIN, {"engine": "onnxruntime", "still": 0})
    )
    asks = [stack.enter_context(system.caller()) for system in (server, loop)]
    client = stack.enter_context(Client(server.address))
    for clip in CLIPS:
        server.add(clip)
        loop.add(clip)
    ours, baseline = ((lambda ask=ask: [ask(clip) for clip in CLIPS]) for ask in asks)
    yield Pair("serve three clips : the bare loop", ours, baseline, (server.cpu, loop.cpu))
    yield Pair(
        "serve 40 queries by item : health checks",
        lambda: [client.recommend(items=[CLIPS[0]]) for _ in range(CALLS)],
        lambda: [client.health() for _ in range(CALLS)],
        (server.cpu, server.cpu),
    )
