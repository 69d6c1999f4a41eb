"""The regression guard: what moved beyond noise since the committed results. `./build.sh bench`

    python tests/bench/guard.py [--seconds 12] [--keep] [--note TEXT] [--only WORD]

Pairs of matchcut and a baseline take turns on one core (guard_pairs.py); the ratios of their CPU times are compared
with those of results/guard.csv from such a machine (guard_judge.py). What seems slower is measured once more before it
is called so: then the exit code is 1. --keep appends what was measured, by which the next runs are judged; use it three
times on a quiet machine where a change is meant or the machine is new.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from statistics import median

import common
from guard_judge import Figure, Verdict, figure, history, judge
from guard_pairs import Pair, decoding, encoding, ranking, serving

from matchcut.kernels.device import open_device

NAME = "guard"
COLUMNS = ("scan", "what", "ratio", "noise", "rounds", "cpu_ms", "baseline_cpu_ms", "versions", "note")
ROUNDS, MOST = 7, 201
OURS, BASELINE = 0, 1


class Run:
    """One pair under way: what both sides took in each round, in CPU seconds."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.ours: list[float] = []
        self.baseline: list[float] = []
        self._times: list[int] = []

    def measure(self, seconds: float) -> Figure:
        """More rounds, for so long and at least seven, after one that does not count; of all rounds so far."""
        sides = (self.pair.ours, self.pair.baseline)
        self._times = [often(side) for side in sides]
        until, rounds = time.monotonic() + seconds, 0
        while rounds < ROUNDS or (time.monotonic() < until and rounds < MOST):
            rounds += 1
            order = (OURS, BASELINE) if rounds % 2 else (BASELINE, OURS)
            taken = {side: self._spent(side) for side in order}
            self.ours.append(taken[OURS])
            self.baseline.append(taken[BASELINE])
        return figure([one / other for one, other in zip(self.ours, self.baseline, strict=True)])

    def _spent(self, side: int) -> float:
        work, clock = (self.pair.ours, self.pair.baseline)[side], self.pair.clocks[side]
        began = clock()
        for _ in range(self._times[side]):
            work()
        return (clock() - began) / self._times[side]


def often(side: Callable[[], object]) -> int:
    """How often a side is done in a round, so that it takes a twentieth of a second."""
    side()
    began = time.perf_counter()
    side()
    return max(1, min(200, round(0.05 / max(time.perf_counter() - began, 1e-6))))


def pairs(stack: ExitStack, core: int) -> Iterator[Pair]:
    """All of them; each is made when its turn comes."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-")))
    return chain(decoding(), encoding(), ranking(), serving(stack, folder, core))


def verdict(run: Run, then: Figure | None, seconds: float) -> Verdict:
    """Of a pair; what seems slower is measured for as long again."""
    found = judge(run.pair.what, run.measure(seconds), then)
    if found.state == "slower":
        print(f"{found}  (once more)", flush=True)
        found = judge(run.pair.what, run.measure(seconds), then)
    return found


def main() -> int:
    """Measures, compares and prints; 1 where something is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each pair")
    parser.add_argument("--keep", action="store_true", help="append to the results")
    parser.add_argument("--note", default="", help="kept with the rows")
    parser.add_argument("--only", default="", help="pairs that have this word in their name")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    common.pin(cores[-1])
    machine = {"cpu": common.cpu(), "scan": open_device("cpu").scan}
    path = common.RESULTS / f"{NAME}.csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    then = history(rows, machine)
    versions = common.versions("av", "numpy", "onnxruntime", "openvino", "grpcio")
    if not then:
        print(f"nothing is committed of {machine['cpu']}, {machine['scan']}: --keep would append what follows")
    found, kept = [], []
    with ExitStack() as stack:
        for pair in pairs(stack, cores[0]):
            if given.only in pair.what:
                run = Run(pair)
                found.append(verdict(run, then.get(pair.what), given.seconds))
                print(found[-1], flush=True)
                now, times = found[-1].now, (f"{median(side) * 1e3:.3f}" for side in (run.ours, run.baseline))
                told = pair.what, f"{now.ratio:.5f}", f"{now.noise:.5f}", len(run.ours), *times
                kept.append((machine["scan"], *told, versions, given.note))
    if given.keep:
        print(f"appended to {common.keep(NAME, COLUMNS, kept)}")
    slower = [one for one in found if one.state == "slower"]
    moved = [one for one in found if one.state in ("slower", "faster")]
    print("moved beyond noise:" if moved else "nothing moved beyond noise", *moved, sep="\n")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
