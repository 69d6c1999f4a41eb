"""An event in, a new list out: `python tests/bench/recommend.py [--items 100000] [--events 300] [--rounds 5]`.

A server on one core has so many items of 64 dimensions and a GRU of 64 as its session model. In each round a user with
a history of 200 events tells of one event after the other on one stream (RecommendForUserLive), each durable before it
is answered with a new list; the client has the other core. Beside it, interleaved, what one would write without a
state: all of the user's events through ONNX Runtime's GRU operator, and FAISS IndexFlatIP over all items, both in this
process on one core, with no server, no durability, no list made of what was found. So the ratio is printed twice: of
the whole way, and of what both do, which is the step and the scan (the stages recall and rank of the replies).

The server's disk decides how long an event takes to be durable: that is the stage `store`, printed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import common
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(common.ROOT / "tests"))

from matchcut.client import Client, Event
from matchcut.server import models
from matchcut.server.catalog import open_catalog
from matchcut.server.records import Item, Segment, TimeRange
from support import session_models

try:
    import faiss
except ImportError:
    faiss = None

DIMENSIONS = 64
HISTORY = 200  # events of the user, and of a replay
TOP = 10
COLUMNS = ("items", "what", "value", "unit", "versions")
TOML = """\
name = "bench"
version = "1"
dimensions = 64

[input]
width = 32
height = 32
fit = "stretch"
layout = "NCHW"
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
"""

Floats = NDArray[np.float32]


def encoder(folder: Path) -> Path:
    """An encoder of 64 dimensions; only its name and size matter here."""
    weight = np.random.default_rng(1).standard_normal((48, DIMENSIONS)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["cells"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
        ],
        "bench",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIMENSIONS])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = folder / "bench.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_suffix(".toml").write_text(TOML)
    return path


def fill(folder: Path, path: Path, vectors: Floats) -> None:
    """A catalogue with one item a vector."""
    identity = models.load(path).identity
    catalog = open_catalog(folder)

    def put(number: int) -> None:
        segment = Segment(TimeRange(0, 1_000_000), vectors[number])
        catalog.put("", Item(f"item{number}", duration_us=1_000_000), [segment], identity, number.to_bytes(8, "big"))

    with ThreadPoolExecutor(128) as threads:  # many share one commit
        for _ in threads.map(put, range(len(vectors)), chunksize=64):
            pass
    catalog.close()


def replay_graph() -> bytes:
    """ONNX Runtime's own GRU over (events, 1, 64), as a replay would use it."""
    random = np.random.default_rng(2)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) / 8).astype(np.float32), name)

    size = 3 * DIMENSIONS
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r", "b"], ["", "last"], hidden_size=DIMENSIONS, linear_before_reset=1)],
        "replay",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", 1, DIMENSIONS])],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 1, DIMENSIONS])],
        [weight("w", 1, size, DIMENSIONS), weight("r", 1, size, DIMENSIONS), weight("b", 1, 2 * size)],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made


def replaying(vectors: Floats) -> Callable[[int], None]:
    """What one does without a state: the whole history through the GRU, and all items through FAISS."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(replay_graph(), options, providers=["CPUExecutionProvider"])
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(vectors)

    def once(number: int) -> None:
        history = vectors[number : number + HISTORY, np.newaxis]
        (last,) = session.run(["last"], {"x": history})
        index.search(last[0], TOP + HISTORY)  # what the user has seen is among them

    return once


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return statistics.median(values), float(np.quantile(values, 0.99))


def measure(items: int, events: int, rounds: int) -> Iterator[tuple[str, float, str]]:
    """(what, value, unit) of everything."""
    vectors = np.random.default_rng(0).standard_normal((items, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole: list[float] = []
    inside: dict[str, list[float]] = defaultdict(list)
    beside: list[float] = []
    once = None if faiss is None else replaying(vectors)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = encoder(folder)
        fill(folder / "data", path, vectors)
        identity = models.load(path).identity
        session_models.write(folder / "session" / "1", identity, dimensions=DIMENSIONS, width=DIMENSIONS)
        (folder / "session" / "CURRENT").write_text("1\n")
        core = common.pin()
        command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", "--threads", "1"]
        command += ["--data", str(folder / "data"), "--cache", str(common.CACHE), "--encoder", str(path)]
        command += ["--session", str(folder / "session"), "--scan-threads", "1", "--engine", "onnxruntime"]
        pid, address = stack.enter_context(common.started(command, 0 if core else 1))
        client = stack.enter_context(Client(address))
        now = time.time() - 86_400
        for user in range(rounds):
            client.record(Event(f"u{user}", f"item{n}", "like", time=now + n, id=f"{user}-{n}") for n in range(HISTORY))
        while not _filled(client, items):
            time.sleep(0.5)
        number = 0
        for user in range(rounds):
            cpu = common.cpu_seconds(pid)
            with client.recommend_live_for(f"u{user}", limit=TOP) as lists:
                for _ in range(events):
                    number += 1
                    began = time.perf_counter()
                    ranking = lists.event(f"item{HISTORY + number}", "watch", fraction=0.8)
                    whole.append((time.perf_counter() - began) * 1e3)
                    for stage in ranking.times.stages:
                        inside[stage.name].append(stage.wall * 1e3)
            yield "server CPU an event", (common.cpu_seconds(pid) - cpu) / events * 1e3, "ms"
            for n in range(events if once else 0):
                assert once is not None
                began = time.perf_counter()
                once(n % (items - HISTORY))
                beside.append((time.perf_counter() - began) * 1e3)
    yield "event in, list out p50", percentiles(whole)[0], "ms"
    yield "event in, list out p99", percentiles(whole)[1], "ms"
    for name, values in inside.items():
        yield f"stage {name} p50", percentiles(values)[0], "ms"
        yield f"stage {name} p99", percentiles(values)[1], "ms"
    if beside:
        replay = percentiles(beside)[0]
        yield "replay and FAISS flat p50", replay, "ms"
        yield "replay and FAISS flat p99", percentiles(beside)[1], "ms"
        yield "replay to whole way", replay / percentiles(whole)[0], "x"
        both = [a + b for a, b in zip(inside["recall"], inside["rank"], strict=True)]
        yield "replay to recall and rank", replay / percentiles(both)[0], "x"


def _filled(client: Client, items: int) -> bool:
    """Whether all items can be recommended, and are coded for the scan."""
    ranked = next(stage for stage in client.recommend_for("u0").times.stages if stage.name == "rank")
    return ranked.variant not in ("", "numpy") and ranked.counts["rows"] > 0.99 * (items - HISTORY)


def main() -> None:
    """Measures, prints and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="append to results/recommend.csv")
    options = parser.parse_args()
    if faiss is None:
        print('FAISS is not installed, so that there is nothing to compare with: pip install "matchcut[bench]"')
    packages = ["numpy", "onnxruntime", *(["faiss-cpu"] if faiss else [])]
    rows = []
    for what, value, unit in measure(options.items, options.events, options.rounds):
        print(f"{what:32} {value:10.3f} {unit}")
        rows.append((options.items, what, round(value, 4), unit, common.versions(*packages)))
    if options.keep:
        print(common.keep("recommend", COLUMNS, rows))


if __name__ == "__main__":
    main()
