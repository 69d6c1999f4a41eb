"""Memory, start and answers of `--profile edge`: `python tests/bench/edge.py [items] [rounds]`.

Catalogues of 10,000 items, of one and of three segments of 1280 values each, for the encoder in int8 and in float32.
Servers start on them in turns, on one core, while the client runs on another. Told are the seconds, and the seconds of
the server's CPU, from process start to the first answer to a clip (a file of four seconds, ranked against all items);
the memory then, and after five more clips: RSS (all pages, those of shared libraries too) and PSS (those divided by who
has them), and how much of RSS is no file's, so that the system cannot drop it and read it again. Python has its byte
code at hand, as it has where matchcut is installed. Beside it the standard profile with the default engine. Then the
answers of int8 against float32's: on the frames of the demo's clips, and the order in which the clips find each other.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from filled import fill

GOAL_MIB, GOAL_S = 250e6 / 2**20, 2.0
MORE = ("bikes", "carphone", "world", "bigbuckbunny", "a")
EDGE: tuple[str, ...] = ("--profile", "edge")
STANDARD: tuple[str, ...] = ("--threads", "1")


class Start(NamedTuple):
    """Seconds, CPU seconds and MiB of one start. own: of rss_later, what is no file's."""

    serving_s: float
    answer_s: float
    cpu_s: float
    rss: float
    pss: float
    rss_later: float
    pss_later: float
    peak: float
    own: float


def memory(pid: int) -> tuple[float, float, float]:
    """RSS and PSS of a process, and how much of RSS is no file's, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return found["Rss"], found["Pss"], found["Anonymous"]


def start(data: Path, core: int, options: tuple[str, ...], code: Path) -> Start:
    """Starts a server, which finds its byte code in that folder, and asks it with clips."""
    from matchcut.client import Client

    clip = common.MEDIA / "carphone_distorted.mp4"
    command = ["env", "-u", "PYTHONDONTWRITEBYTECODE", f"PYTHONPYCACHEPREFIX={code}", sys.executable, "-m"]
    command += ["matchcut.server", "serve", "--listen", "127.0.0.1:0", "--data", str(data)]
    began = time.perf_counter()
    with common.started([*command, "--cache", str(common.CACHE), *options], core) as (pid, address):
        serving = time.perf_counter() - began
        with Client(address) as client:
            assert len(client.recommend(clip=clip, limit=5).matches) == 5
            answered, spent = time.perf_counter() - began, common.cpu_seconds(pid)
            rss, pss, _ = memory(pid)
            time.sleep(3)  # for what is done in the background
            for name in MORE:
                client.recommend(clip=common.clip(name), limit=5)
            rss_later, pss_later, own = memory(pid)
        return Start(serving, answered, spent, rss, pss, rss_later, pss_later, common.peak_mib(pid), own)


def answers() -> tuple[str, str, str, float, float]:
    """Of int8 against float32: the least and the mean cosine, the share of ten nearest frames, and CPU ms a frame."""
    from matchcut.server import models
    from matchcut.server.engines import load
    from matchcut.server.engines.trial import cpu_ms
    from matchcut.server.precision import judge, read

    made = {
        bits: load(
            models.load(models.default_encoder(common.CACHE, bits=models.bits(bits))), engine="onnxruntime", threads=1
        )
        for bits in ("float32", "int8")
    }
    frames = read([common.clip(name) for name in common.CLIPS], made["float32"].encoder, rate=2, most=120)
    batch = np.concatenate([frames.calibration, frames.held_out])
    vectors = {bits: np.concatenate([engine.run(one[None]) for one in batch]) for bits, engine in made.items()}
    found = judge(vectors["int8"], vectors["float32"])
    best = {bits: min(cpu_ms(engine, batch[:1]) for _ in range(15)) for bits, engine in made.items()}
    overlap = f"{found.overlap:.3f}" if found.overlap is not None else ""
    return f"{found.cosine:.4f}", f"{found.mean_cosine:.4f}", overlap, best["int8"], best["float32"]


def order(core: int) -> tuple[int, int]:
    """How many clips find the same clip first, and how many pairs stand at the same place, of six clips each."""
    from matchcut.client import Client

    lists: dict[str, list[list[str]]] = {}
    for what, options in (("edge", EDGE), ("exact", (*EDGE, "--precision", "float32"))):
        command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", "--data", ":memory:"]
        server = common.started([*command, "--cache", str(common.CACHE), *options], core)
        with server as (_, address), Client(address) as client:
            for name in common.CLIPS:
                client.ingest(name, common.clip(name))
            asked = [client.recommend(clip=common.clip(name), exclude=[name]).matches for name in common.CLIPS]
            lists[what] = [[match.item.id for match in matches] for matches in asked]
    pairs = list(zip(lists["edge"], lists["exact"], strict=True))
    return sum(a[0] == b[0] for a, b in pairs), sum(x == y for a, b in pairs for x, y in zip(a, b, strict=True))


def main() -> None:
    """Measures, prints and appends to the results."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    cores = sorted(os.sched_getaffinity(0))
    common.pin(cores[-1])
    versions = common.versions("grpcio", "numpy", "onnxruntime", "av")
    print(f"{common.cpu()}, server on core {cores[0]}; {versions}; goals {GOAL_MIB:.0f} MiB, {GOAL_S:g} s")
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, tuple[Path, tuple[str, ...]]] = {}
        for segments in (1, 3):
            for what, bits, options in (("edge", "int8", EDGE), ("standard", "float32", STANDARD)):
                data = Path(folder) / f"{what}{segments}"
                fill(data, items, segments, bits)
                cases[f"{what}, {items} items, {segments} segments each"] = data, options
        code = Path(folder) / "code"
        for data, options in cases.values():
            start(data, cores[0], options, code)  # engines are measured, and files read
        found: dict[str, list[Start]] = {what: [] for what in cases}
        for _ in range(rounds):
            for what, (data, options) in cases.items():
                found[what].append(start(data, cores[0], options, code))
        for what, each in found.items():
            middle = Start(*(statistics.median(column) for column in zip(*each, strict=True)))
            print(
                f"  {what}: serving {middle.serving_s:.2f} s, first answer {middle.answer_s:.2f} s "
                f"({middle.cpu_s:.2f} s of CPU); RSS {middle.rss:.0f} MiB, PSS {middle.pss:.0f}; after more clips RSS "
                f"{middle.rss_later:.0f}, of it no file's {middle.own:.0f}, PSS {middle.pss_later:.0f}; peak "
                f"{middle.peak:.0f}"
            )
            rows.append(
                (what, *(f"{value:.2f}" for value in middle[:3]), *(f"{value:.0f}" for value in middle[3:8]), versions)
            )
    least, mean, overlap, rounded, exact = answers()
    first, same = order(cores[0])
    print(
        f"  int8 against float32: cosine at least {least}, mean {mean}, ten nearest {overlap}; CPU ms a frame "
        f"{rounded:.1f} against {exact:.1f}; {first} of 6 clips find the same first, {same} of 30 at the same place"
    )
    rows.append(
        (
            f"int8: least cosine {least}, mean {mean}, ten nearest {overlap}, ms a frame {rounded:.2f} / {exact:.2f}, "
            f"same first {first}/6, same place {same}/30",
            *[""] * 8,
            versions,
        )
    )
    columns = (
        "what",
        "serving_s",
        "answer_s",
        "answer_cpu_s",
        "rss_mib",
        "pss_mib",
        "rss_later_mib",
        "pss_later_mib",
        "peak_mib",
        "versions",
    )
    print(f"appended to {common.keep('edge', columns, rows)}")


if __name__ == "__main__":
    main()
