"""How fast users' states are made anew after a model swap, and how long one event takes to reach the state.

    python tests/bench/users.py [users] [events]

A GRU over item vectors of 64 dimensions, as `matchcut train session` exports one, and the decaying mean; 100,000 items.
The log is on disk. All runs on one core. The baseline of a rebuild is the same model with the same log, user after
user, one step an event; that of an event is to replay the user's whole history. Rows are appended to
results/users.csv.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import cpu, keep, pin, versions

from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.events import EventLog, open_log
from matchcut.server.records import EncoderIdentity, Event, EventKind, Item, Segment, TimeRange
from matchcut.server.session import DecayingMean, OnnxSession, SessionModel
from matchcut.server.users import Galleries, Users
from matchcut.server.users.fold import fold, further
from support import onnx_models, session_models

DIMENSIONS, ITEMS = 64, 100_000
ENCODER = EncoderIdentity("bench", "1", "0" * 64, DIMENSIONS)
COLUMNS = ("users", "events", "what", "median", "unit", "ratio_to_baseline", "versions")
MODELS = {"GRU, width 64": 64, "GRU, width 128": 128, "decaying mean": 0}
ALONE = 200  # users of the baseline

NEWER = count(1)  # events after all others
Row = tuple[str, float, str, float]


def main() -> None:
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    pin()
    print(f"{cpu()}, one core, {users} users of {events} events, {ITEMS} items x {DIMENSIONS}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder = Path(name)
        catalog, log = open_catalog(None), open_log(folder / "events.sqlite", days=0)
        opened.callback(catalog.close)
        opened.callback(log.close)
        fill(catalog)
        append(log, users, events)
        for what, width in MODELS.items():
            rows += measured(folder, catalog, log, what, width, users, events)
    used = versions("numpy", "onnxruntime")
    print(f"appended to {keep('users', COLUMNS, [(users, events, *row, used) for row in rows])}")


def fill(catalog: Catalog) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ITEMS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for at, vector in enumerate(vectors):
        catalog.put("", Item(f"item-{at}"), [Segment(TimeRange(0, 1), vector)], ENCODER, b"")


def append(log: EventLog, users: int, events: int) -> None:
    random = np.random.default_rng(1)
    kinds = [EventKind.CLICK, EventKind.WATCH, EventKind.LIKE]
    for start in range(0, users, 100):
        batch = [
            Event(f"{user}/{at}", f"user {user}", f"item-{item}", kinds[at % 3], 1 + at)
            for user in range(start, min(start + 100, users))
            for at, item in enumerate(random.integers(ITEMS, size=events).tolist())
        ]
        log.append("", batch)


def measured(
    folder: Path, catalog: Catalog, log: EventLog, what: str, width: int, users: int, events: int
) -> list[Row]:
    before = time.perf_counter()
    galleries = Galleries(catalog, log, model(folder, width, 0), clock_us=lambda: 0)
    galleries.wait_ready()
    filled = ITEMS / (time.perf_counter() - before)
    print(f"{what}: gallery filled at {filled:.0f} items/s")
    known = Users(log, galleries, cache_bytes=1 << 40)
    try:
        for user in range(users):
            known.recall("", f"user {user}")
        alone, reading = one_by_one(log, galleries, users)
        rates = []
        for seed in range(1, 4):
            fresh = Galleries(catalog, log, model(folder, width, seed), clock_us=lambda: 0)
            fresh.wait_ready()
            began, done = time.process_time(), known.sizes().replayed
            known.swap(fresh)
            known.rebuilt()
            rates.append(users / (time.process_time() - began))
            assert known.sizes().replayed - done == users, "some were not rebuilt in the background"
        rate = statistics.median(rates)
        print(
            f"  rebuilt: {rate:.0f} users/s of CPU, {rate * events:.0f} events/s; one by one {alone:.0f} users/s: "
            f"{rate / alone:.1f} x; reading the log alone takes {reading * rate:.0%} of it"
        )
        event, replay = one_event(log, known, events)
        print(f"  one event into the state: {event[0]:.3f} ms, p99 {event[1]:.3f}; replay of it all {replay:.3f} ms")
    finally:
        known.close()
    return [
        (f"gallery filled, {what}", filled, "items/s", 1.0),
        (f"rebuilt after a swap, {what}", rate, "users/s of CPU", rate / alone),
        (f"event into the state p50, {what}", event[0], "ms", event[0] / replay),
        (f"event into the state p99, {what}", event[1], "ms", event[1] / replay),
    ]


def model(folder: Path, width: int, seed: int) -> SessionModel:
    if not width:
        return DecayingMean(ENCODER, 4 + seed)
    version = folder / f"{width}-{seed}"
    session_models.write(version, ENCODER, dimensions=DIMENSIONS, seed=seed, width=width, graphs=gru(width, seed))
    return OnnxSession(version, ENCODER)


def gru(width: int, seed: int) -> dict[str, object]:
    """step.onnx of a whole GRU, with the operators that torch exports; see server/models/gru.py for the equations."""
    random, d, node = np.random.default_rng(seed), DIMENSIONS, onnx_models.node
    draw = {"Wi": (d, 3 * width), "bi": (3 * width,), "Wh": (width, 3 * width), "bh": (3 * width,), "Q": (width, d)}
    weights = {key: (random.standard_normal(size) / 8).astype(np.float32) for key, size in draw.items()}
    nodes = [
        node("Gemm", ["x", "Wi", "bi"], ["given"]),
        node("Gemm", ["h", "Wh", "bh"], ["own"]),
        node("Split", ["given"], ["ir", "iz", "in"], axis=1),
        node("Split", ["own"], ["hr", "hz", "hn"], axis=1),
        node("Add", ["ir", "hr"], ["sr"]),
        node("Sigmoid", ["sr"], ["r"]),
        node("Mul", ["r", "hn"], ["rhn"]),
        node("Add", ["in", "rhn"], ["sn"]),
        node("Tanh", ["sn"], ["n"]),
        node("Add", ["iz", "hz"], ["sz"]),
        node("Neg", ["sz"], ["nz"]),
        node("Sigmoid", ["nz"], ["gate"]),
        node("Sub", ["n", "h"], ["nh"]),
        node("Mul", ["w", "gate"], ["share"]),
        node("Mul", ["share", "nh"], ["moved"]),
        node("Add", ["h", "moved"], ["h_next"]),
        node("MatMul", ["h_next", "Q"], ["query"]),
    ]
    inputs: dict[str, onnx_models.Spec] = {
        "x": ("FP32", ("n", d)),
        "h": ("FP32", ("n", width)),
        "w": ("FP32", ("n", 1)),
    }
    outputs: dict[str, onnx_models.Spec] = {"h_next": ("FP32", ("n", width)), "query": ("FP32", ("n", d))}
    return {"step.onnx": onnx_models.model(nodes, inputs, outputs, weights)}


def one_by_one(log: EventLog, galleries: Galleries, users: int) -> tuple[float, float]:
    """Users a second of CPU, each alone, one step an event; and seconds of CPU that reading one of many takes."""
    keys = [log.key("", f"user {user}") for user in range(min(users, ALONE))]
    gallery = galleries.gallery("")
    began = time.process_time()
    for key in keys:
        start = fold(galleries.model, gallery, [[]], 50)[0]
        further(galleries.model, gallery, start, log.events(key), 50)
    alone = len(keys) / (time.process_time() - began)
    began = time.process_time()
    log.events_of(keys)
    return alone, (time.process_time() - began) / len(keys)


def one_event(log: EventLog, known: Users, events: int) -> tuple[Sequence[float], float]:
    """Milliseconds of a recall after one more event, p50 and p99; and what a replay of all takes."""
    times, replays = [], []
    for at in range(400):
        number = next(NEWER)
        known.record("", [Event(f"newer {number}", "user 0", f"item-{at}", EventKind.LIKE, events + number)])
        began = time.perf_counter()
        known.recall("", "user 0")
        times.append((time.perf_counter() - began) * 1e3)
    with known.using() as galleries:
        for _ in range(20):
            began = time.perf_counter()
            fold(galleries.model, galleries.gallery(""), [log.events(log.key("", "user 0"))], 50)
            replays.append((time.perf_counter() - began) * 1e3)
    return np.percentile(times, [50, 99]).tolist(), statistics.median(replays)


if __name__ == "__main__":
    main()
