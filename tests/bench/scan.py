"""How fast the exact scan ranks, beside FAISS, numkong, usearch, NumPy and a plain read of the same bytes.

    python tests/bench/scan.py [--only random512,filters512] [--folder /tmp] [--seconds 12] [--scale 0.2]

Each section runs in a process of its own on one core, with one thread for each library; all contenders of a section
take turns, batch by batch. Ratios are of medians of CPU time, which other work on the machine disturbs least; with two
threads they are of wall time. Every answer is compared with the rows that float64 products give, in order. The rows
lie in files that are mapped, as a catalogue's do, and are deleted at the end: 8 GB in all.

Rows are appended to results/scan.csv, verdicts on the goals to results/scan_goals.csv; nothing is appended with
--scale, which takes a share of the rows to try the program. Needs what libraries.py names; what is missing is left out.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import common
import numpy as np
from libraries import Numkong, Product, Refined, Usearch, present
from scan_bench import Bench, versions
from scan_data import Kind, anonymous_bytes, mapped
from scan_goals import Verdict

from matchcut.kernels.bench import contenders as timed
from matchcut.kernels.bench.rounds import Contender, exact
from matchcut.kernels.native.shared_library import Absent, load

PANORAMA = {1280: [(16, 1024), (20, 128), (20, 1024), (40, 256), (80, 4096), (40, 1024)]}
MEMORY = {"random512": None, "spectrum1280": 0.3}  # sections with a goal for it, and that against Panorama's
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Grid = Sequence[tuple[int, int]]


def versus(bench: Bench, *, grid: Grid, waves: Sequence[Sequence[str]]) -> None:
    """Beside every library: all in one wave, or in several where they do not fit into memory together."""
    bench.code()
    for wave in waves:
        others = libraries(bench, wave)
        for batch, k in grid:
            slow = timed.Reference if batch > 1 else ()  # takes a query at a time
            contenders = bench.ours(scalar=batch == 1) + [one for one in others if not isinstance(one, slow)]
            bench.judge(bench.time(contenders, batch=batch, k=k), batch, k)
        del others, contenders
        gc.collect()
    if bench.section in MEMORY:
        bench.say(remembered(bench, MEMORY[bench.section]))


def remembered(bench: Bench, of_panorama: float | None) -> Iterator[Verdict]:
    """What the codes take beside the mapped rows: of a byte a value, and of FAISS Panorama's memory."""
    section, kind, chosen = bench.section, bench.data.kind, bench.chosen
    held = bench.memory[f"matchcut {bench.library.best.name}", chosen]
    share = held / (kind.rows * kind.dimensions)
    yield Verdict(section, "memory, of a byte a value", chosen, share, 1.05, at_least=False)
    other = [size for (who, _), size in bench.memory.items() if who == timed.PANORAMA]
    if of_panorama is not None and other:
        yield Verdict(section, "memory, of FAISS Panorama's", chosen, held / other[0], of_panorama, at_least=False)


def libraries(bench: Bench, wave: Sequence[str]) -> list[Contender]:
    """The other contenders of a wave."""
    rows, queries = bench.data.rows, bench.data.queries
    made: list[Contender] = []
    if "numpy" in wave:
        made += [Product(rows), timed.Reference(rows, bench.data.groups, 1 + 1e-5)]
    faiss, why = timed.optional("faiss")
    if faiss is None:
        print(f"faiss is absent: {why}")
    else:
        faiss.omp_set_num_threads(1)
    before = anonymous_bytes()
    if faiss is not None and "flat" in wave:
        flat = timed.FlatIndex(faiss, rows)
        bench.memory[flat.name, ""] = anonymous_bytes() - before
        made += [flat, Refined(faiss, rows, flat.index)]
    before = anonymous_bytes()
    if faiss is not None and "panorama" in wave:
        tried = PANORAMA.get(rows.shape[1], timed.panorama_settings(rows.shape[1]))
        index, setting, spent = timed.faiss_panorama(faiss, rows, queries, 10, tried)
        print("FAISS Panorama:", ", ".join(f"{name} {one * 1e3:.1f} ms" for name, one in spent.items()), flush=True)
        made.append(timed.FaissIndex(index, name=timed.PANORAMA, setting=setting))
        bench.memory[timed.PANORAMA, setting] = anonymous_bytes() - before
    if "numkong" in wave:
        made += present("numkong", lambda module: Numkong(module, rows))
    if "usearch" in wave:
        made += present("usearch.index", lambda module: Usearch(module, rows))
    return made


def filters(bench: Bench) -> None:
    """Half of the rows and one in a hundred, chosen at random, against all."""
    bench.code()
    kind, coding, k = bench.data.kind, bench.codings[0], 10
    random = np.random.default_rng(0)
    for name, share, wanted in (("half", 0.5, 1.1), ("1 %", 0.01, 0.25)):
        eligible = random.random(kind.rows) < share
        truth = exact(bench.data.queries, bench.data.rows, k, eligible)
        for batch in (1, 8):
            every = [bench.own(coding, one.name) for one in bench.library.variants if not one.lacks]
            some = [replace(one, eligible=eligible, also=f"{name} eligible") for one in every]
            truths = [bench.data.truth] * len(every) + [truth] * len(some)
            made = bench.turns([*every, *some], truths, batch=batch, k=k)
            best = f"matchcut {bench.library.best.name}"
            times = [one["cpu_ms_median"] for one in made if one["who"] == best]
            if batch == 1:
                ratio = times[1] / times[0]
                bench.say([Verdict(bench.section, f"{name} eligible, of all", best, ratio, wanted, at_least=False)])


def threads(bench: Bench) -> None:
    """One thread and two, on two cores; how much faster two read plainly says what the memory allows."""
    cores = sorted(os.sched_getaffinity(0))
    bench.code()
    with ThreadPoolExecutor(1) as executor:
        for coding in bench.codings:
            one = bench.own(coding)
            two = replace(one, crew=replace(one.crew, threads=2, executor=executor), also="2 threads")
            reads = [timed.PlainRead(coding.coded, coding.size, helper) for helper in (None, executor)]
            made = bench.time([one, two, *reads], batch=1, k=10, wall=True)
            times = [figure["ms_median"] for figure in made]
            what, who = f"2 threads, times as fast, {len(cores)} cores", f"{one.name}, {one.setting}"
            print(f"the plain read with 2 threads is {times[2] / times[3]:.2f} times as fast")
            bench.say([Verdict(bench.section, what, who, times[0] / times[1], 1.8, at_least=True)])


EVERY: Grid = ((1, 10), (8, 10), (64, 10), (1, 100), (8, 100), (64, 100))
SIXTEEN: Grid = ((1, 10), (16, 10), (64, 10), (1, 100), (16, 100), (64, 100))
FEW: Grid = ((1, 10), (1, 100), (16, 10), (64, 10))
TOGETHER = (("numpy", "flat", "panorama", "numkong", "usearch"),)
APART = (("numpy", "flat"), ("panorama", "numkong", "usearch"))
SECTIONS: dict[str, tuple[Kind, Callable[[Bench], None]]] = {
    "random512": (Kind("random", 1_000_000, 512), partial(versus, grid=EVERY, waves=TOGETHER)),
    "filters512": (Kind("random", 1_000_000, 512), filters),
    "threads512": (Kind("random", 1_000_000, 512), threads),
    "random256": (Kind("random", 200_000, 256), partial(versus, grid=FEW, waves=TOGETHER)),
    "random1280": (Kind("random", 100_000, 1280), partial(versus, grid=FEW, waves=TOGETHER)),
    "frames1280": (Kind("frames", 20_000, 1280), partial(versus, grid=FEW, waves=TOGETHER)),
    "spectrum1280s": (Kind("spectrum", 100_000, 1280), partial(versus, grid=FEW, waves=TOGETHER)),
    "spectrum1280": (Kind("spectrum", 1_000_000, 1280), partial(versus, grid=SIXTEEN, waves=APART)),
    "threads1280": (Kind("spectrum", 1_000_000, 1280), threads),
}


def section(name: str, folder: Path, seconds: float, scale: float) -> None:
    """Runs one section in this process."""
    kind, work = SECTIONS[name]
    if work is threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-2:])
    else:
        common.pin()
    library = load()
    if isinstance(library, Absent):
        raise SystemExit(library.why)
    lacking = "".join(f"; {one.name} cannot run: {one.lacks}" for one in library.variants if one.lacks)
    print(f"{name}: {common.cpu()}, {versions()}, variant {library.best.name}{lacking}", flush=True)
    data = mapped(replace(kind, rows=round(kind.rows * scale)), folder)
    work(Bench(name, data, library, seconds, record=scale == 1))


def main() -> None:
    """Runs the sections one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for 8 GB of rows")
    parser.add_argument("--seconds", type=float, default=12.0, help="that a contender is timed for, each time")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows; results are not kept then")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.section:
        section(given.section, given.folder, given.seconds, given.scale)
        return
    wanted = given.only.split(",")
    if unknown := sorted(set(wanted) - SECTIONS.keys()):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    failed = []
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="scan-") as rows:
        for name in wanted:
            command = [sys.executable, __file__, "--section", name, "--folder", rows]
            command += ["--seconds", str(given.seconds), "--scale", str(given.scale)]
            if subprocess.run(command, env=environment).returncode:
                failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
