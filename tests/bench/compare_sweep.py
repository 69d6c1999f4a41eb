"""Finds the settings with which each peer is at its best on one core; every setting tried is kept in the results.

First what its work costs, without a server, one knob after the other: the least CPU time wins. Then how many processes
and requests at once: the shortest wait of eight callers wins, since on one core the CPU time hardly depends on it.
"""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
from compare_load import load
from compare_systems import Glue, Settings, System, Triton, environment
from serving_peers import HERE, Missing, Starter

NAME = "compare_sweep"
COLUMNS = ("peer", "stage", "setting", "cpu_s_per_clip", "longest_wait_ms", "chosen", "note")
CALLERS, ROUNDS = 8, 2
THREADS = (1, 2)
BATCHES = (1, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Peer:
    """One to be tuned. environment: its folder. work, serving: knobs and their values, the first ones to begin with."""

    name: str
    environment: str
    fixed: Settings
    work: dict[str, tuple[Any, ...]]
    serving: tuple[Settings, ...]


ORT = {"batch": BATCHES, "decode_threads": THREADS, "encode_threads": THREADS}
# The compiler makes a program for each size of batch, which takes a minute.
TORCH = {"mode": ("compiled", "traced", "channels_last", "eager"), "batch": (4, 2, 8), "decode_threads": THREADS}
WORKERS = tuple({"workers": workers, "pool": pool} for workers, pool in ((1, 1), (1, 2), (1, 8), (2, 1)))
PEERS = (
    Peer("glue opencv+ort", "glue", {"decoder": "opencv", "encoder": "onnxruntime"}, ORT, WORKERS),
    Peer("glue decord+ort", "glue", {"decoder": "decord", "encoder": "onnxruntime"}, ORT, WORKERS),
    Peer("glue opencv+torch", "glue", {"decoder": "opencv", "encoder": "torch"}, TORCH, WORKERS),
    Peer(
        "triton",
        "triton",
        {"encoder": "onnxruntime"},
        {"decoder": ("opencv", "decord"), **ORT},
        ({"instances": 1}, {"instances": 2}),
    ),
)
Row = tuple[object, ...]


def start(
    stack: ExitStack, peers: Path, starter: Starter, folder: Path, core: int, encoder: Path, peer: str, chosen: Settings
) -> System:
    """A peer with its clips. Raises Missing where it is not there."""
    system: System
    if peer == "triton":
        system = asyncio.run(Triton.started(starter, peers, folder, encoder, chosen))
    else:
        system = Glue(stack, peers, core, encoder, peer, chosen)
    for clip in common.CLIPS:
        system.add(clip)
    return system


def tuned(
    peer: Peer, cost: Callable[[list[Settings]], list[float]], wait: Callable[[Settings], tuple[float, float]]
) -> tuple[Settings, list[Row]]:
    """The best settings and the rows of all that were tried.

    Args:
        cost: CPU seconds a clip of settings of the work, one figure for each.
        wait: the longest wait in seconds and CPU seconds a clip of whole settings, served.
    """
    rows: list[Row] = []
    best = {**peer.fixed, **{name: values[0] for name, values in peer.work.items()}}
    for name, values in peer.work.items():
        tried = [{**best, name: value} for value in values]
        costs = cost(tried)
        best = tried[costs.index(min(costs))]
        rows += [
            (peer.name, name, json.dumps(one), f"{spent:.4f}", "", "yes" if one is best else "no")
            for one, spent in zip(tried, costs, strict=True)
        ]
    served = [{**best, **one} for one in peer.serving]
    waits = [wait(one) for one in served]
    best = served[waits.index(min(waits))]
    rows += [
        (peer.name, "serving", json.dumps(one), f"{spent:.4f}", f"{longest * 1e3:.0f}", "yes" if one is best else "no")
        for one, (longest, spent) in zip(served, waits, strict=True)
    ]
    return best, rows


def sweep(peers: Path, core: int, encoder: Path, note: str) -> dict[str, Settings]:
    """The best settings of every peer that is there, which are kept."""
    clips = [str(common.clip(name)) for name in common.CLIPS]
    found: dict[str, Settings] = {}
    for peer in PEERS:

        def cost(tried: list[Settings], peer: Peer = peer) -> list[float]:
            python = environment(peers, peer.environment)
            command = [str(python), str(HERE / "clips.py"), str(encoder), *map(json.dumps, tried), *clips]
            with common.on_core(core):
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            return [float(line) / len(clips) for line in done.stdout.split()]

        def wait(settings: Settings, peer: Peer = peer) -> tuple[float, float]:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
                starter = Starter(stack, peers, folder, [core])
                system = start(stack, peers, starter, folder, core, encoder, peer.name, settings)
                taken = load(system, CALLERS, common.CLIPS * ROUNDS)
            return max(taken.waits), taken.cpu_per_clip

        try:
            found[peer.name], rows = tuned(peer, cost, wait)
        except Missing as error:
            print(f"not measured: {peer.name}: {error}", flush=True)
            continue
        common.keep(NAME, COLUMNS, [(*row, note) for row in rows])
        print(f"best for {peer.name}: {json.dumps(found[peer.name])}", flush=True)
    return found


def recorded() -> dict[str, Settings]:
    """The settings chosen by the last sweep on such a processor. SystemExit where there was none."""
    path = common.RESULTS / f"{NAME}.csv"
    found = chosen(path) if path.is_file() else {}
    if not found:
        raise SystemExit(f"{path} has no settings chosen on {common.cpu()}; run it without --recorded")
    return found


def chosen(path: Path) -> dict[str, Settings]:
    """The last settings chosen for each peer on such a processor."""
    return {row["peer"]: json.loads(row["setting"]) for row in _served(path) if row["chosen"] == "yes"}


def _served(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from (row for row in csv.DictReader(file) if row["stage"] == "serving" and row["cpu"] == common.cpu())
