"""What a frame costs in the default encoder on one core, by library, precision and batch: nothing of serving in it.

The precisions are written into the ONNX file by the program's own tool, at its gate, from the demo's clips, once: they
are kept in build/cache. The same files run in both libraries. OpenVINO's own ways to a lower precision, which need no
other file, are measured as well, and what the server would choose is named.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import common
import numpy as np

from matchcut.server import engines, models, precision
from matchcut.server.engines import Engine, registry, trial
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder

BATCHES = (1, 8)
LIBRARIES = ("onnxruntime", "openvino")
EXACT = "onnxruntime fp32"
RATE, FRAMES = 2.0, 128  # of the clips that int8 is calibrated with
COLUMNS = ("batch", "engine", "cpu_ms_p50", "to_onnxruntime_fp32", "cosine_least")


def encoders() -> Iterator[tuple[str, Encoder]]:
    """The default encoder in each precision; those that cannot be made within the gate are reported."""
    exact = models.load(models.default_encoder(common.CACHE))
    yield "fp32", exact
    frames = None
    for wanted in ("bf16", "int8"):
        out = common.CACHE / f"bench-{exact.identity.version}-{wanted}"
        path = out / exact.path.name
        if not path.is_file():
            clips = [common.clip(name) for name in common.CLIPS]
            frames = frames or precision.read(clips, exact, rate=RATE, most=FRAMES)
            try:
                made = precision.convert(exact, wanted, frames)
                print(f"{wanted}: {made.figures}, {len(made.left)} of {made.products} products in float32", flush=True)
                precision.write(exact, made, frames, out)
            except EngineFailed as error:
                print(f"{wanted} is not measured: {error}", flush=True)
                continue
        yield wanted, models.load(path)


def loaded() -> Iterator[tuple[str, Engine]]:
    """Every engine that there is for one thread."""
    for name, encoder in encoders():
        for library in LIBRARIES:
            try:
                yield f"{library} {name}", engines.load(encoder, engine=library, threads=1)
            except EngineFailed as error:
                print(f"{library} {name} is not measured: {error}", flush=True)
        if name == "fp32":
            for variant in registry.available():
                if not variant.endswith("-fp32"):
                    yield f"{variant} of fp32", engines.load(encoder, engine=variant, threads=1)


def measured(rounds: int) -> list[dict[str, Any]]:
    """CPU milliseconds a frame, in turns; this process should be tied to one core."""
    ready = dict(loaded())
    frames = trial.frames(models.load(models.default_encoder(common.CACHE)))
    exact = ready[EXACT].run(frames)
    cosines = {name: trial.least_cosine(engine.run(frames), exact) for name, engine in ready.items()}
    found = []
    for batch in BATCHES:
        times: dict[str, list[float]] = {name: [] for name in ready}
        for at in range(rounds + 1):
            for name, engine in ready.items():
                spent = trial.cpu_ms(engine, np.ascontiguousarray(frames[:batch]))
                if at:  # the first run of a size prepares it
                    times[name].append(spent)
        for name, taken in times.items():
            ratio = statistics.median(one / other for one, other in zip(taken, times[EXACT], strict=True))
            figures = batch, name, statistics.median(taken), ratio, cosines[name]
            found.append(dict(zip(COLUMNS, figures, strict=True)))
    return found


def gate(name: str) -> float:
    """The least cosine that an engine's name stands for: a file in int8 is held to less than other ways are."""
    return precision.GATES["int8"].cosine if name.endswith(" int8") else trial.GATE


def main(rounds: int) -> list[dict[str, Any]]:
    """Measures and prints."""
    core = common.pin()
    rows = measured(rounds)
    print(f"encoder on core {core}: CPU ms a frame, median of {rounds}; of {EXACT}'s; least cosine to it")
    means: dict[str, list[float]] = {}
    for row in rows:
        batch, name, spent, ratio, cosine = row.values()
        below = cosine < gate(name)
        print(f"  batch {batch}  {name:26} {spent:7.2f}  {ratio:5.2f}  {cosine:.5f}{'  below its gate' * below}")
        if not below:
            means.setdefault(name, []).append(spent)
    fastest = sorted(means, key=lambda name: sum(means[name]))
    of_file = next(name for name in fastest if name.endswith(" fp32"))
    encoder = models.load(models.default_encoder(common.CACHE))
    chosen = engines.load(encoder, engine="auto", threads=1, cache=common.CACHE).variant
    print(f"within the gates {fastest[0]} is the fastest, of the file as it is {of_file}; the server chooses {chosen}")
    return rows
