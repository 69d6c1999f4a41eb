"""`matchcut bench`: how fast this machine ranks, and how a server does under load."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from matchcut.kernels.bench.spec import MOST_QUERIES, STRUCTURES, Figure, Report, Spec
from matchcut.server.commands import bench_load
from matchcut.server.commands.bench_numbers import at_least_1
from matchcut.server.commands.connect import positive
from matchcut.server.commands.output import console, counted, print_json, table
from matchcut.server.engines import memory
from matchcut.server.errors import EngineFailed, InvalidInput

NAME = "bench"
SUMMARY = "measure how fast this machine ranks, or a server under load"
DESCRIPTION = """\
scan measures a part of matchcut on this machine; no server is needed. load measures a server, matchcut's or any of the
open inference protocol, from outside."""
_SCAN_EXAMPLES = """\
examples:
  matchcut bench scan --rows 1000000 --dims 512
  matchcut bench scan --rows 200000 --dims 1280 --structure spectrum --k 100
  matchcut bench scan --rows 1000000 --dims 512 --batch 64 --threads 2 --json
"""
EXAMPLES = _SCAN_EXAMPLES + "  matchcut bench load --rate 50 --html load.html\n"
_SCAN_DOES = """\
Ranks made unit vectors with every variant of the exact scan that this processor has, with NumPy, with FAISS where it
is installed, and reads the codes once without ranking, which no scan of all of them can beat. All take turns in one
process on as many cores as it has threads. Whether the rows are those of float64, in order, is checked for each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what can be measured, each with its options."""
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    scan = what.add_parser(
        "scan",
        help="the exact scan, beside NumPy, FAISS and a plain read",
        description=_SCAN_DOES,
        epilog=_SCAN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scan.add_argument("--rows", type=at_least_1, default=200_000, help="how many vectors [default: 200000]")
    scan.add_argument("--dims", type=at_least_1, default=1280, help="dimensions of a vector [default: 1280]")
    scan.add_argument("--k", type=at_least_1, default=10, help="how many rows a query asks for [default: 10]")
    scan.add_argument(
        "--batch",
        type=at_least_1,
        default=1,
        help=f"queries at a time, at most {MOST_QUERIES}; each has a ranking of its own [default: 1]",
    )
    scan.add_argument("--threads", type=at_least_1, default=1, help="threads of each contender [default: 1]")
    scan.add_argument(
        "--structure",
        choices=STRUCTURES,
        default=STRUCTURES[0],
        help="random: the worst case; spectrum: as a trained encoder's embeddings [default: random]",
    )
    scan.add_argument(
        "--seconds", type=positive, default=3.0, help="that each contender is timed for, about [default: 3]"
    )
    scan.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    scan.set_defaults(measure=_scan)
    load = what.add_parser(
        "load",
        help="a server: latency at planned rates, and the knee",
        description=bench_load.DESCRIPTION,
        epilog=bench_load.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench_load.add_arguments(load)
    load.set_defaults(measure=bench_load.run)


def run(arguments: argparse.Namespace) -> int:
    """Measures what was named."""
    code: int = arguments.measure(arguments)
    return code


def _scan(arguments: argparse.Namespace) -> int:
    """Measures in a process of its own and prints."""
    if arguments.batch > MOST_QUERIES:
        raise InvalidInput(f"--batch is at most {MOST_QUERIES}: so many queries share a pass")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if arguments.threads > cores:
        raise InvalidInput(f"--threads {arguments.threads}: this process may use {counted(cores, 'cores')}")
    spec = Spec(
        rows=arguments.rows,
        dimensions=arguments.dims,
        k=arguments.k,
        batch=arguments.batch,
        threads=arguments.threads,
        structure=arguments.structure,
        seconds=arguments.seconds,
    )
    report = _measured(spec)
    if report["too_large"]:
        raise InvalidInput(f"{report['too_large']}; give fewer --rows")
    cpu = memory.cpu()["cpu"]
    if arguments.json:
        print_json({"cpu": cpu, **dataclasses.asdict(spec), **report})
    else:
        _print(cpu, spec, report)
    return 0


def _measured(spec: Spec) -> Report:
    command = [sys.executable, "-m", "matchcut.kernels.bench", json.dumps(dataclasses.asdict(spec))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        hint = "; was it short of memory? give fewer --rows" if process.returncode == -9 else ""
        raise EngineFailed(f"the measuring process was ended by signal {-process.returncode}{hint}")
    if process.returncode:
        raise EngineFailed("the measuring process failed; the reason is above")
    report: Report = json.loads(out)
    return report


def _print(cpu: str, spec: Spec, report: Report) -> None:
    base = "FAISS flat" if any(one["who"] == "FAISS flat" for one in report["figures"]) else "NumPy"
    headings = ["ms", "p99", f"x {base}", "of read", "left", "float64"]
    columns = {"who": "left", "how": "left", **dict.fromkeys(headings, "right")}
    size = f"{spec.rows} x {spec.dimensions}, {spec.structure}, k = {spec.k}"
    asked = f"{spec.batch} queries at a time" if spec.batch > 1 else "a query at a time"
    title = f"{size}, {asked}, {counted(spec.threads, 'threads')}, {cpu}"
    console.print(table(title, columns, (_cells(one, base) for one in report["figures"])))
    for line in _remarks(report, base):
        console.print(line, highlight=False, markup=False)


def _cells(one: Figure, base: str) -> Iterator[str]:
    faster = one["faster_than_flat"] if base == "FAISS flat" else one["faster_than_numpy"]
    yield one["who"].removeprefix("matchcut ")
    yield one["setting"]
    yield f"{one['ms_median']:.2f}"
    yield f"{one['ms_p99']:.2f}"
    yield "" if faster is None else f"{faster:.2f}"
    yield "" if one["of_read"] is None else f"{one['of_read']:.2f}"
    yield "" if one["survivors"] is None else f"{one['survivors']:.0f}"
    yield "" if not one["asked"] else "yes" if one["right"] == one["asked"] else f"{one['right']} of {one['asked']}"


def _remarks(report: Report, base: str) -> Iterator[str]:
    yield f"x {base}: how many times as fast. of read: time as a share of that of the plain read."
    yield "left: rows a query that the bounds did not rule out. float64: whether the answer is float64's, in order."
    if report["basis"]:
        yield f"a catalogue of these rows would be coded: {report['basis']}"
    if report["native"]:
        yield f"no native scan: {report['native']}"
    for variant in report["variants"]:
        if variant["lacks"]:
            yield f"{variant['name']} cannot run here: {variant['lacks']}"
        elif variant["chosen"]:
            yield f"{variant['name']} is the one that the server uses"
    for one in report["absent"]:
        yield f"{one['who']} was not timed: {one['why']}"
