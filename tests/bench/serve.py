"""Bytes to top-k: what a clip costs in matchcut, in the bare loop inside it, and in the usual glue.

    python tests/bench/serve.py [--glue-python /path/to/python] [--rounds 5]

The servers run on one core, each a process of its own with one thread for its engine, and this client on another. All
take in the demo's clips; then each clip is the query, the systems taking turns clip by clip. Counted is the CPU time
of the server's process, which noise on the machine hardly touches, and beside it the client's and the wall time.
Every system uses the same frames a second. What an ingest costs follows, by the way that shots are found; exact shots
mean to look at every frame, which glue does not. Without --glue-python (see glue.py) the glue is reported as absent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import common
import numpy as np

from matchcut.client import Client, Ranking
from matchcut.client.options import Shots
from matchcut.server import models
from matchcut.server.config import Config

BATCH, STILL = Config().batch, 0.6
INGEST_RATE, QUERY_RATE = Config().rate, Config().query_rate
AUTO, ORT = "auto", "onnxruntime"
BASELINES = ("bare loop", "bare loop-ort", "glue")
COLUMNS = ("system", "what", "clip", "cpu_ms", "client_cpu_ms", "wall_ms_p50", "wall_ms_p99", "peak_mib", "versions")


class System(Protocol):
    """Something that takes clips in and answers with clips; `pid` is the process that does the work."""

    pid: int

    def add(self, name: str, clip: Path) -> None:
        """Puts a clip in, as its defaults are."""
        ...

    def ask(self, clip: Path) -> Sequence[str]:
        """The names of the best items."""
        ...


class Matchcut:
    """A matchcut server and its Python client."""

    def __init__(self, stack: ExitStack, engine: str, core: int) -> None:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        flags = {"data": data, "cache": common.CACHE, "engine": engine, "batch": BATCH, "still": STILL, "threads": 1}
        command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        self.pid, address = stack.enter_context(common.started(command, core))
        self.client = stack.enter_context(Client(address))
        self.last: Ranking | None = None

    def add(self, name: str, clip: Path) -> None:
        """See System."""
        self.client.ingest(name, clip, rate=INGEST_RATE)

    def ask(self, clip: Path) -> Sequence[str]:
        """See System."""
        self.last = self.client.recommend(clip=clip, rate=QUERY_RATE)
        return [match.item.id for match in self.last.matches]

    def ingest(self, clip: Path, shots: Shots) -> None:
        """Puts a clip in under a name that is not taken and takes it out again, which costs next to nothing."""
        self.client.ingest("again", clip, rate=INGEST_RATE, shots=shots)
        self.client.remove("again")


class Bare:
    """bare.py, over its standard input and output."""

    def __init__(self, stack: ExitStack, engine: str, core: int, encoder: Path) -> None:
        words = [str(Path(__file__).with_name("bare.py")), encoder, engine, common.CACHE, BATCH, STILL]
        self._process = stack.enter_context(piped([sys.executable, *map(str, words)], core))
        self.pid = self._process.pid

    def add(self, name: str, clip: Path) -> None:
        """See System."""
        self._tell({"add": name, "path": str(clip), "rate": INGEST_RATE})

    def ask(self, clip: Path) -> Sequence[str]:
        """See System."""
        return self._tell({"path": str(clip), "rate": QUERY_RATE})

    def _tell(self, wish: dict[str, object]) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        answer: list[str] = json.loads(self._process.stdout.readline())
        return answer


class Glue:
    """glue.py, over HTTP on a connection that is kept."""

    def __init__(self, stack: ExitStack, python: str, core: int, encoder: Path) -> None:
        command = [python, str(Path(__file__).with_name("glue.py")), str(encoder)]
        self.pid, address = stack.enter_context(common.started(command, core))
        self._connection = http.client.HTTPConnection(address)
        stack.callback(self._connection.close)
        self.batch = 0

    def add(self, name: str, clip: Path) -> None:
        """See System."""
        self._send("PUT", f"/items/{name}?rate={INGEST_RATE}", clip)

    def ask(self, clip: Path) -> Sequence[str]:
        """See System."""
        answer = self._send("POST", f"/query?rate={QUERY_RATE}", clip)
        self.batch = answer["batch"]
        return [name for name, _ in answer["matches"]]

    def _send(self, method: str, where: str, clip: Path) -> Any:
        self._connection.request(method, where, clip.read_bytes())
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"glue: {response.status} {answer.decode()}")
        return json.loads(answer)


@contextmanager
def piped(command: Sequence[str], core: int) -> Iterator[subprocess.Popen[str]]:
    """A process on one core that is spoken to through pipes, once it says that it is ready."""
    with common.on_core(core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        if common.SERVING not in process.stdout.readline():
            raise SystemExit(f"it does not start: {' '.join(command)}")
        yield process


@dataclass(slots=True)
class Spent:
    """What a step cost, each time it was done: CPU of the server and of the client, and wall, in milliseconds."""

    server: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def measure(self, pid: int, step: Callable[[], object]) -> None:
        """Does the step once."""
        server, client, wall = common.cpu_seconds(pid), time.process_time(), time.perf_counter()
        step()
        self.wall.append((time.perf_counter() - wall) * 1e3)
        self.client.append((time.process_time() - client) * 1e3)
        self.server.append((common.cpu_seconds(pid) - server) * 1e3)


Costs = dict[tuple[str, str], Spent]


def in_turns(rounds: int, steps: dict[str, tuple[int, Callable[[Path], object]]]) -> Costs:
    """The costs of steps with each clip, by (name of the step, clip); one round before that does not count."""
    costs = {(name, clip): Spent() for name in steps for clip in common.CLIPS}
    for at in range(rounds + 1):
        for clip in common.CLIPS:
            for name, (pid, step) in steps.items():
                spent = costs[name, clip] if at else Spent()
                spent.measure(pid, partial(step, common.clip(clip)))
    return costs


def report(what: str, costs: Costs, systems: dict[str, System], versions: str) -> list[tuple[object, ...]]:
    """Prints what each step cost, over all clips and clip by clip; returns the rows to keep."""
    rows: list[tuple[object, ...]] = []
    names = list(dict.fromkeys(name for name, _ in costs))
    rounds = {name: zip(*(costs[name, clip].server for clip in common.CLIPS), strict=True) for name in names}
    totals = {name: statistics.median(map(sum, each)) for name, each in rounds.items()}
    print(f"{what}: server's CPU ms over all clips, median of the rounds; client's; wall of a clip; peak memory")
    for name in names:
        by_clip = {clip: costs[name, clip] for clip in common.CLIPS}
        client = sum(statistics.median(spent.client) for spent in by_clip.values())
        wall = np.percentile([each for spent in by_clip.values() for each in spent.wall], (50, 99))
        peak = common.peak_mib(systems[name.partition(",")[0]].pid)
        ratios = "".join(f"  {totals[name] / totals[than]:.2f} of {than}" for than in BASELINES if than in totals)
        print(
            f"  {name:27}{totals[name]:6.0f} {client:4.0f}  p50 {wall[0]:.0f} p99 {wall[1]:.0f}  {peak:.0f} MiB{ratios}"
        )
        rows.append((name, what, "all", *rounded(totals[name], client, *wall, peak), versions))
        for clip, spent in by_clip.items():
            medians = (statistics.median(figures) for figures in (spent.server, spent.client, spent.wall))
            rows.append((name, what, clip, *rounded(*medians, np.percentile(spent.wall, 99), peak), versions))
    return rows


def rounded(*figures: float) -> list[str]:
    """As they stand in the results."""
    return [f"{figure:.1f}" for figure in figures]


def stages(ranking: Ranking) -> None:
    """Prints where a query's time went, as the server itself reports it."""
    parts = ", ".join(f"{stage.name} {stage.cpu * 1e3:.1f}" for stage in ranking.times.stages)
    print(f"  CPU ms of the stages of {common.CLIPS[-1]}: {parts}")


def main() -> None:
    """Starts the systems, checks that they agree, measures and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue-python", default="", help="interpreter with decord, fastapi, uvicorn and faiss")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0]
    common.pin(cores[-1])
    encoder = models.default_encoder(common.CACHE)
    with ExitStack() as stack:
        auto, ort = Matchcut(stack, AUTO, core), Matchcut(stack, ORT, core)
        systems: dict[str, System] = {
            "matchcut": auto,
            "bare loop": Bare(stack, AUTO, core, encoder),
            "matchcut-ort": ort,
            "bare loop-ort": Bare(stack, ORT, core, encoder),
        }
        glue = Glue(stack, options.glue_python, core, encoder) if options.glue_python else None
        if glue is not None:
            systems["glue"] = glue
        for name, system in systems.items():
            for clip in common.CLIPS:
                system.add(clip, common.clip(clip))
            firsts = [system.ask(common.clip(clip))[0] for clip in common.CLIPS]
            if firsts != list(common.CLIPS):
                raise SystemExit(f"{name} answers with {firsts} first, not with the clips themselves")
        versions = common.versions("grpcio", "av", "onnxruntime", "openvino")
        fitted = f"batch {glue.batch}" if glue else "absent; see --glue-python"
        print(f"{common.cpu()}, servers on core {core}, client on core {cores[-1]}; {versions}; glue: {fitted}")
        queries = in_turns(options.rounds, {name: (system.pid, system.ask) for name, system in systems.items()})
        rows = report(f"query at {QUERY_RATE:g} fps", queries, systems, versions)
        if auto.last is not None:
            stages(auto.last)
        ingests: dict[str, tuple[int, Callable[[Path], object]]] = {}
        for name, each in (("matchcut", auto), ("matchcut-ort", ort)):
            for shots in ("off", "coarse", "exact"):
                ingests[f"{name}, shots {shots}"] = each.pid, partial(each.ingest, shots=shots)
        if glue is not None:
            ingests["glue"] = glue.pid, partial(glue.add, "again")
        taken = in_turns(max(3, options.rounds // 2), ingests)
        rows += report(f"ingest at {INGEST_RATE:g} fps", taken, systems, versions)
    print(f"appended to {common.keep('serve', COLUMNS, rows)}")


if __name__ == "__main__":
    main()
