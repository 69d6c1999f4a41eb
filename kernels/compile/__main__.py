"""The command: `python -m matchcut.kernels.compile`."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from matchcut.kernels.compile.folder import Entries, alone, current, described, made_entry, read, replace, text
from matchcut.kernels.compile.one import Fault, find, key
from matchcut.kernels.compile.parallel import Outcome, Task, outcomes
from matchcut.kernels.compile.table import written
from matchcut.kernels.compile.targets import TARGETS, gpu_of
from matchcut.kernels.gpu.spec import Kernel

HERE = Path(__file__).parents[1]
CUBINS = HERE / "cubins"
TABLE = HERE / "gpu" / "resources.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles what has changed. Exit status: 0; 1 where a kernel did not compile; 2 where the command was wrong.

    With --check: 1 where something would be compiled.
    """
    options = _parser().parse_args(arguments)
    try:
        kernels = find(options.module or ())
        if unknown := sorted(set(options.only or ()) - kernels.keys()):
            raise Fault(f"there are no kernels {unknown}; there are: {', '.join(kernels)}")
        with alone(options.out):
            run = Run(options.out, kernels, options.targets, options.only or list(kernels))
            if options.check:
                return run.check()
            run.compile(options.jobs)
    except (Fault, FileExistsError) as fault:
        print(f"compile: {fault}", file=sys.stderr)
        return 2
    print(run.summary())
    if options.times:
        _write_times(options.times, run.done)
    for what, why in sorted(run.faults.items()):
        print(f"compile: {what}: {why}", file=sys.stderr)
    if options.table and not run.faults:
        options.table.write_text(written(run.entries), encoding="utf-8")
    elif options.table:
        print(f"compile: {options.table} is left as it was", file=sys.stderr)
    return 1 if run.faults else 0


@dataclass
class Run:
    """One run of the command.

    out: the folder. kernels: all that there are, with their modules. targets, names: what is to be compiled. entries:
    of the manifest, in the end. faults: why, for each kernel that did not compile.
    """

    out: Path
    kernels: dict[str, tuple[str, Kernel]]
    targets: Sequence[str]
    names: Sequence[str]
    entries: Entries = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    done: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    def compile(self, jobs: int) -> None:
        """Compiles what has changed and replaces the folder; what fails is missing there, and tried again next time."""
        began = time.monotonic()
        keys, tasks = self._compare()
        code: dict[str, bytes] = {}
        with _progress() as progress:
            bar = progress.add_task("compiling", total=len(tasks))
            for outcome in outcomes(tasks, min(jobs, len(tasks)) or 1):
                name = outcome.task.name
                progress.update(bar, advance=1, description=f"compiled {outcome.task}")
                if outcome.fault:
                    self.faults[str(outcome.task)] = outcome.fault
                    continue
                self.done.append(outcome)
                entry = self.entries.setdefault(name, described(self.kernels[name][1], keys[name]))
                for target in outcome.made.keys() & {*self.targets}:
                    entry["targets"][target] = made_entry(name, target, outcome.made[target])
                    code[entry["targets"][target]["file"]] = outcome.made[target].code
        manifest = self.out / "manifest.json"
        if not manifest.is_file() or manifest.read_text(encoding="utf-8") != text(self.entries):
            replace(self.out, self.entries, code)
        self.seconds = time.monotonic() - began

    def check(self) -> int:
        """Says what would be compiled. Returns 1 where that is anything."""
        _, tasks = self._compare()
        gone = read(self.out).keys() - self.kernels.keys()
        changed = sorted({*self.faults, *gone, *(task.name for task in tasks)})
        for name in changed:
            print(f"compile: {name} is not compiled as it is now", file=sys.stderr)
        return 1 if changed else 0

    def _compare(self) -> tuple[dict[str, str], list[Task]]:
        """The kernels' keys, and what is to be compiled; leaves in `entries` what is there."""
        keys = self._keys()
        self.entries = current(self.out, read(self.out), keys)
        return keys, self._tasks(keys)

    def _keys(self) -> dict[str, str]:
        keys = {}
        for name, (_, kernel) in self.kernels.items():
            try:
                keys[name] = key(kernel)
            except Fault as fault:
                self.faults[name] = str(fault)
        return keys

    def _tasks(self, keys: dict[str, str]) -> list[Task]:
        """What is wanted and not there."""
        tasks: dict[Task, None] = {}
        for target in self.targets:
            for name in self.names:
                module, kernel = self.kernels[name]
                there = self.entries.get(name, {"targets": {}})["targets"]
                if name in keys and target not in there and kernel.fits(gpu_of(target).capability):
                    tasks[Task(module, name, keys[name], gpu_of(target))] = None
        return list(tasks)

    def summary(self) -> str:
        """What is there now, and what was done for it."""
        made = [made for entry in self.entries.values() for made in entry["targets"].values()]
        size = sum(one["bytes"] for one in made) / 1e6
        lines = [f"{len(self.entries)} kernels in {len(made)} files, {size:.2f} MB, in {self.out}"]
        if self.done:
            slowest = sorted(self.done, key=lambda outcome: -outcome.seconds)[:3]
            said = ", ".join(f"{outcome.task} {outcome.seconds:.1f} s" for outcome in slowest)
            total = f"{self.seconds:.1f} s, {sum(outcome.seconds for outcome in self.done):.1f} s of compiling"
            lines.append(f"{len(self.done)} compiled in {total}; longest: {said}")
        else:
            lines.append(f"nothing to compile ({self.seconds:.1f} s)")
        return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m matchcut.kernels.compile", description=__doc__)
    parser.add_argument("--targets", type=_targets, default=TARGETS, metavar="T,...", help=",".join(TARGETS))
    parser.add_argument("--out", type=Path, default=CUBINS, metavar="FOLDER", help="default: %(default)s")
    jobs = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=jobs, metavar="N", help="at a time; default: %(default)s")
    parser.add_argument("--only", action="append", metavar="NAME", help="this kernel; can be repeated")
    parser.add_argument("--module", action="append", help="its KERNELS instead of those of matchcut.kernels.gpu")
    parser.add_argument("--check", action="store_true", help="only say what is not compiled as it is now")
    parser.add_argument("--times", type=Path, metavar="FILE", help="write the seconds of each compilation, as CSV")
    table = "write the table of what the kernels take of each GPU; default: %(const)s"
    parser.add_argument("--table", type=Path, nargs="?", const=TABLE, metavar="FILE", help=table)
    return parser


def _targets(said: str) -> tuple[str, ...]:
    wanted = said.split(",")
    if unknown := [target for target in wanted if target not in TARGETS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(TARGETS)}")
    return tuple(target for target in TARGETS if target in wanted)


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _write_times(path: Path, done: Sequence[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("kernel", "gpu", "seconds"))
        rows = ((outcome.task.name, outcome.task.gpu.arch, f"{outcome.seconds:.2f}") for outcome in done)
        out.writerows(sorted(rows))


if __name__ == "__main__":
    sys.exit(main())
