"""Serving beside NVIDIA Triton and others: latency, throughput, deadlines, lost callers, models replaced under load.

    python tests/bench/serving.py [--peers build/peers] [--only frame,step] [--rounds 9] [--seconds 0.7]

tests/bench/README.md says how the peers get there; one that is not there is reported. Behind every server are the very
same graphs in ONNX Runtime with one thread. All servers have the one core, this client the other: a server's processes
share a core as they would with as many busy neighbours, and none gets more than another. Servers take turns within each
round; figures are medians over the rounds, and ratios those of the same round. Results are appended with the load
average before a row, and how many cores other programs used meanwhile: where that is not near 0, run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import common
import serving_encoder
import serving_models
from scan_goals import Verdict
from serving_events import deadlines, reloads, slots
from serving_goals import judged
from serving_peers import BARE, LITSERVE, MLSERVER, OURS, TRITON, Missing, Server, Starter
from serving_rows import Bench, jpeg, many, one, recurrent

COLUMNS = (
    *("row", "server", "metric", "value", "unit", "worst", "to_triton", "rounds", "seconds"),
    *("load_before", "others_cores", "versions"),
)
ENCODER = "encoder"
MORE_IS_BETTER = ("rate", "answered")
EVERY, STREAMS, TWO = (OURS, TRITON, BARE, MLSERVER, LITSERVE), (OURS, TRITON, BARE), (OURS, TRITON)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: what does it, of which servers. flags: of our server. most: rounds at most, of slow ones."""

    work: Callable[[Bench], Awaitable[None]]
    servers: tuple[str, ...]
    flags: tuple[str, ...] = ()
    most: int = 1000


ROWS = {
    "frame": Row(one, EVERY),
    "step": Row(recurrent, STREAMS),
    "many": Row(many, EVERY),
    "jpeg": Row(jpeg, TWO),
    "deadline": Row(deadlines, TWO, most=3),
    "slot": Row(slots, TWO, ("--models-sequences", "1"), most=3),
    "reload": Row(reloads, TWO),
}


class Machine:
    """What the machine does beside a row."""

    def __init__(self, bench: Bench) -> None:
        self.load = os.getloadavg()[0]
        self._bench = bench
        self._began, self._busy, self._own = monotonic(), busy(), self._spent()

    def others(self) -> float:
        """How many cores other programs have used since."""
        spent = busy() - self._busy - (self._spent() - self._own)
        return max(0.0, spent / (monotonic() - self._began))

    def _spent(self) -> float:
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return mine + sum(server.cpu() for server in self._bench.servers.values())


def busy() -> float:
    """CPU seconds that the machine has spent, all cores together."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


async def started(row: Row, starter: Starter) -> dict[str, Server]:
    """The row's servers that are there."""
    servers: dict[str, Server] = {}
    starts: dict[str, Callable[[], Awaitable[Server]]] = {
        TRITON: starter.triton,
        MLSERVER: starter.mlserver,
        LITSERVE: starter.litserve,
    }
    for name in row.servers:
        try:
            if name == OURS:
                servers[name] = starter.ours(*row.flags)
            elif name == BARE:
                servers[name] = starter.bare()
            else:
                servers[name] = await starts[name]()
        except Missing as error:
            print(f"not measured: {name}: {error}", flush=True)
    return servers


async def measured(name: str, peers: Path, rounds: int, seconds: float) -> list[Verdict]:
    """Runs one row, prints and keeps its figures; the verdicts on them."""
    row = ROWS[name]
    client, server = cores()
    with ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        common.pin(server)
        serving_models.build(models)  # "slow" is as slow as the servers' core makes it
        common.pin(client)
        servers = await started(row, Starter(stack, peers, models, [server]))
        bench = Bench(servers, models, min(rounds, row.most), seconds)
        machine = Machine(bench)
        await row.work(bench)
        others = machine.others()
    noise = f"load average {machine.load:.2f} before, others used {others:.2f} cores"
    print(f"{name}: {bench.rounds} rounds, medians, in brackets to Triton's; {noise}")
    common.keep("serving", COLUMNS, kept(bench, machine.load, others))
    verdicts = list(judged(bench))
    print(*verdicts, sep="\n", flush=True)
    return verdicts


def kept(bench: Bench, load: float, others: float) -> Iterable[tuple[object, ...]]:
    """Prints the figures of a row, a line for each server, and gives them as they are kept."""
    lines: dict[tuple[str, str], str] = {}
    for row, name, metric, unit in dict.fromkeys((it.row, it.server, it.metric, it.unit) for it in bench.figures):
        values = bench.series(row, name, metric)
        value, worst = statistics.median(values), (min if metric in MORE_IS_BETTER else max)(values)
        ratio = None if name == TRITON else bench.ratio(row, name, metric, to=(row, TRITON))
        beside = "" if ratio is None else f"{ratio:.3f}"
        shown = f"{metric} {value:.4g} {unit}".rstrip() + (f" ({ratio:.2f})" if ratio is not None else "")
        lines[row, name] = f"{lines.get((row, name), '')}  {shown}"
        about = bench.rounds, bench.seconds, f"{load:.2f}", f"{others:.2f}", bench.servers[name].version
        yield row, name, metric, f"{value:.4f}", unit, f"{worst:.4f}", beside, *about
    for (row, name), line in lines.items():
        print(f"  {row:18}{name:9}{line}")


def encoder(rounds: int) -> None:
    """The row without servers."""
    load = os.getloadavg()[0]
    about = rounds, "", f"{load:.2f}", "", common.versions("onnxruntime", "openvino")
    rows = [
        (f"encoder batch {row['batch']}", row["engine"], metric, f"{row[key]:.5f}", unit, "", "", *about)
        for row in serving_encoder.main(rounds)
        for metric, key, unit in (("cpu", "cpu_ms_p50", "ms"), ("cosine", "cosine_least", ""))
    ]
    common.keep("serving", COLUMNS, rows)


def cores() -> tuple[int, int]:
    """The client's core and the servers'."""
    have = sorted(CORES)
    if len(have) < 2:
        raise SystemExit("this needs two cores, one for the servers and one for their client")
    return have[-1], have[0]


CORES = os.sched_getaffinity(0)


def main() -> None:
    """Runs the rows one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join((*ROWS, ENCODER)), help="rows, with commas")
    parser.add_argument("--peers", type=Path, default=common.ROOT / "build" / "peers", help="folder of environments")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.7, help="that a server is asked for in each round")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := sorted(set(wanted) - ROWS.keys() - {ENCODER}):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join((*ROWS, ENCODER))}")
    client, server = cores()
    print(f"{common.cpu()}, servers on core {server}, client on core {client}", flush=True)
    verdicts: list[Verdict] = []
    for name in wanted:
        if name == ENCODER:
            encoder(given.rounds)
        else:
            verdicts += asyncio.run(measured(name, given.peers, given.rounds, given.seconds))
    print("", *verdicts, sep="\n")


if __name__ == "__main__":
    main()
