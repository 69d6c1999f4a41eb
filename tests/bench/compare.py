"""Clips to ranked items in matchcut, in the bare loop inside it, in the usual glue and in NVIDIA Triton.

    python tests/bench/compare.py [--peers build/peers] [--recorded] [--rounds 3] [--alone] [--only SECTIONS]

All have one core, this client another; the same clips, the same frames a second, the same encoder. First each peer's
settings are sought (compare_sweep.py), unless --recorded takes those of the last time. Then systems take turns, with
one caller, with four and with eight; counted is the CPU time of a system's processes, which noise on the machine hardly
touches, and beside it the waits, which it does. matchcut runs as it comes, and step by step with what makes answers
cheaper and may change them; the overlap of answers says how much. Peers that are not there are reported;
tests/bench/README.md says how their environments are made. Rows go to results/compare.csv, aims to compare_goals.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import av
import common
import serving_encoder
from compare_goals import BARE, LOADS, OURS, PLAIN, PLAIN_BARE, best_glue, judged, ratio
from compare_ingest import ingests
from compare_load import Load, load, one_by_one, percentiles
from compare_overlap import overlaps
from compare_sweep import recorded, start, sweep
from compare_systems import Bare, Matchcut, Settings, Step, System
from serving import busy
from serving_peers import Missing, Starter

from matchcut.server import models
from matchcut.server.config import Config

COLUMNS = (
    *("system", "what", "rounds", "clips", "cpu_s_per_clip", "video_s_per_cpu_s", "to_bare", "to_best_glue"),
    *("clips_per_s", "p50_ms", "p95_ms", "p99_ms", "client_cpu_s_per_clip", "peak_mib", "first_right"),
    *("same_top3", "same_top10", "settings", "load_before", "others_cores", "versions", "note"),
)
GOAL_COLUMNS = ("who", "what", "aim", "reached", "wanted", "met", "note")
STILL = Config().still
TOLERANCE = 1.0  # seconds
REUSE = 16.0  # grey levels: see --still
SECTIONS = ("query", "overlap", "ingest")
TURNS = {4: 4, 8: 4}  # how often each clip is asked with in a round, by callers


def steps() -> list[Step]:
    """matchcut as the peers work, as it comes, and with one more of what makes it cheaper at a time."""
    made = dict(serving_encoder.encoders())
    steps = [
        Step(PLAIN, {"engine": "onnxruntime", "still": 0}),
        Step(OURS, {"still": STILL}),
        Step(f"{OURS} +tolerance", {"still": STILL}, TOLERANCE),
        Step(f"{OURS} +reuse", {"still": REUSE}, TOLERANCE),
        Step(f"{OURS} +bf16", {"still": REUSE, "engine": "openvino-bf16"}, TOLERANCE),
    ]
    if "int8" in made:
        flags = {"still": REUSE, "engine": "openvino"}
        steps.append(Step(f"{OURS} +int8", flags, TOLERANCE, made["int8"].path))
    return steps


def started(stack: ExitStack, peers: Path, settings: dict[str, Settings], core: int) -> list[System]:
    """All systems that are there, with their clips."""
    encoder = models.default_encoder(common.CACHE)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
    starter = Starter(stack, peers, folder, [core])
    systems: list[System] = [
        Bare(stack, core, encoder, PLAIN_BARE, "onnxruntime", 0.0),
        Bare(stack, core, encoder, BARE, "auto", STILL),
        *(Matchcut(starter, encoder, step) for step in steps()),
    ]
    for system in systems:
        for clip in common.CLIPS:
            system.add(clip)
    for peer, chosen in settings.items():
        try:
            systems.append(start(stack, peers, starter, folder, core, encoder, peer, chosen))
        except Missing as error:
            print(f"not measured: {peer}: {error}", flush=True)
    return systems


def queries(systems: Sequence[System], rounds: int, loads: Sequence[int]) -> dict[str, dict[int, list[Load]]]:
    """What each system took with each number of callers, in turns, after a round of one caller that does not count."""
    taken: dict[str, dict[int, list[Load]]] = {system.name: {} for system in systems}
    for system in systems:
        load(system, 1, common.CLIPS)
    for _ in range(rounds):
        for callers in loads:
            able = [system for system in systems if callers <= system.callers]
            if callers == 1:
                loaded = one_by_one(able, common.CLIPS)
            else:
                loaded = [load(system, callers, common.CLIPS * TURNS[callers]) for system in able]
            for system, one in zip(able, loaded, strict=True):
                taken[system.name].setdefault(callers, []).append(one)
    return taken


def seconds() -> float:
    """Of video that the clips have, the mean of a clip."""
    lengths = []
    for name in common.CLIPS:
        with av.open(str(common.clip(name))) as container:
            stream = container.streams.video[0]
            lengths.append(float((stream.duration or 0) * (stream.time_base or 0)))
    return statistics.mean(lengths)


def kept(
    systems: Sequence[System],
    taken: dict[str, dict[int, list[Load]]],
    same: dict[str, tuple[float, ...]],
    about: tuple[object, ...],
) -> list[tuple[object, ...]]:
    """Prints what was measured, a line for each system and number of callers; returns the rows to keep."""
    rows: list[tuple[object, ...]] = []
    length, glue = seconds(), best_glue(taken)
    print(f"beside {glue or 'no glue'}; waits: p50, p95, p99; same: of the best 3 and 10, those of {OURS}")
    print(f"{'':20}  c  CPU s/clip  video s/CPU s  of bare  of glue  clips/s  waits ms  MiB  same")
    for system in systems:
        for callers, loads in taken[system.name].items():
            cpu = statistics.median(each.cpu_per_clip for each in loads)
            client = statistics.median(each.client_cpu / len(each.waits) for each in loads)
            rate = statistics.median(len(each.waits) / each.seconds for each in loads)
            ratios = [number(ratio(taken, system.name, than, callers)) for than in (BARE, glue)]
            waits = [f"{each:.0f}" for each in percentiles(loads)]
            tops = [number(each) for each in same.get(system.name, ())] or ["", ""]
            peak, clips = f"{system.peak_mib():.0f}", sum(len(each.waits) for each in loads)
            print(
                f"{system.name:20}{callers:3}{cpu:12.4f}{length / cpu:15.1f}{ratios[0]:>9}{ratios[1]:>9}"
                f"{rate:9.2f}  {'  '.join(waits)}  {peak}  {' '.join(tops)}"
            )
            figures = (f"{cpu:.4f}", f"{length / cpu:.2f}", *ratios, f"{rate:.3f}", *waits, f"{client:.4f}", peak)
            what = f"query, c={callers}"
            told = "yes", *tops, system.settings, *about[:2], system.version, about[2]
            rows.append((system.name, what, len(loads), clips, *figures, *told))
    return rows


def ingested(systems: Sequence[System], rounds: int, about: tuple[object, ...]) -> list[tuple[object, ...]]:
    """The same of ingests, as far as it applies."""
    wanted = [each for each in systems if each.name == OURS or each.name.startswith("glue")]
    by_name, rows = {system.name: system for system in systems}, []
    for (name, what), spent in ingests(wanted, rounds).items():
        cpu, system = statistics.median(spent), by_name[name]
        print(f"{name:20} {what:22}{cpu:9.4f} CPU s/clip", flush=True)
        empty = [""] * (COLUMNS.index("settings") - COLUMNS.index("to_bare"))
        figures = (len(spent), len(spent) * len(common.CLIPS), f"{cpu:.4f}", f"{seconds() / cpu:.2f}", *empty)
        rows.append((name, what, *figures, system.settings, *about[:2], system.version, about[2]))
    return rows


def number(value: float | None) -> str:
    """For the table and the results."""
    return "" if value is None else f"{value:.3f}"


def measured(
    systems: Sequence[System], only: Sequence[str], rounds: int, note: str, loads: Sequence[int] = LOADS
) -> None:
    """Measures, prints and keeps."""
    before, began, used, own = os.getloadavg()[0], monotonic(), busy(), spent(systems)
    taken = queries(systems, rounds, loads) if "query" in only else {}
    others = max(0.0, busy() - used - (spent(systems) - own)) / (monotonic() - began)
    about = f"{before:.2f}", f"{others:.2f}", note
    ours = [system for system in systems if isinstance(system, Matchcut)]
    same = overlaps(ours, OURS) if "overlap" in only else {}
    rows = kept(systems, taken, same, about) if taken else []
    rows += ingested(systems, max(2, rounds // 2), about) if "ingest" in only else []
    print(f"appended to {common.keep('compare', COLUMNS, rows)}; others used {others:.2f} cores meanwhile")
    if taken:
        cheap = [system.name for system in ours if system.name not in (PLAIN, OURS)]
        full = min(cheap, key=lambda name: statistics.median(each.cpu_per_clip for each in taken[name][1]))
        verdicts = list(judged(taken, full, waits=loads == LOADS))
        print(*verdicts, sep="\n")
        told = [
            (v.who, v.section, v.what, f"{v.reached:.3f}", v.wanted, "yes" if v.met else "no", note) for v in verdicts
        ]
        common.keep("compare_goals", GOAL_COLUMNS, told)


def spent(systems: Sequence[System]) -> float:
    """CPU seconds of this process and of all systems."""
    return sum(system.cpu() for system in systems) + sum(os.times()[:2])


def main() -> None:
    """Seeks the peers' settings, starts all, checks that they agree, measures and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=common.ROOT / "build" / "peers", help="folder of environments")
    parser.add_argument("--recorded", action="store_true", help="settings of the peers as the last run found them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--alone", action="store_true", help="one caller only, for CPU times on a busy machine")
    parser.add_argument("--note", default="", help="kept with the rows")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := sorted(set(only) - set(SECTIONS)):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores, one for the systems and one for their client")
    core = cores[0]
    common.pin(cores[-1])
    print(f"{common.cpu()}, systems on core {core}, client on core {cores[-1]}", flush=True)
    settings = (
        recorded() if given.recorded else sweep(given.peers, core, models.default_encoder(common.CACHE), given.note)
    )
    with ExitStack() as stack:
        systems = started(stack, given.peers, settings, core)
        print(json.dumps({system.name: system.settings for system in systems}, indent=2), flush=True)
        measured(systems, only, given.rounds, given.note, LOADS[:1] if given.alone else LOADS)


if __name__ == "__main__":
    main()
