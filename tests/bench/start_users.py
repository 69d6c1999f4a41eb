"""Whether a million users slow the start: `python tests/bench/start_users.py [users]`.

A log of events with so many users, one event each, is written; then servers start in turns, on an empty data folder and
on that one. Measured: from the start of the process until it serves, and the memory that it has five seconds later. A
minute or two, and 250 bytes a user of disk. Rows are appended to results/start_users.csv.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
from recommend import encoder

from matchcut.server.events import FILE, open_log
from matchcut.server.records import Event, EventKind

CALL = 1000  # events
ROUNDS = 5
COLUMNS = ("users", "what", "value", "unit")


def fill(path: Path, users: int) -> None:
    """A log of so many users."""
    log, now = open_log(path), time.time_ns() // 1000

    def put(call: int) -> None:
        first = call * CALL
        events = [
            Event(f"e{n}", f"user{n}", f"item{n % 5000}", EventKind.LIKE, now - 1_000_000_000 - n)
            for n in range(first, first + CALL)
        ]
        log.append("", events)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, range(users // CALL)))
    log.close()


def started(data: Path, model: Path) -> tuple[float, float]:
    """Seconds until a server serves, and MiB that it holds then."""
    command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", "--threads", "1"]
    command += ["--data", str(data), "--cache", str(common.CACHE), "--encoder", str(model), "--engine", "onnxruntime"]
    began = time.perf_counter()
    with common.started(command, 0) as (pid, _):
        seconds = time.perf_counter() - began
        time.sleep(5)
        return seconds, common.peak_mib(pid)


def main() -> None:
    """Measures, prints and keeps the results."""
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(dir=common.ROOT / "build") as name:
        folder = Path(name)
        (folder / "full").mkdir()
        model = encoder(folder)
        fill(folder / "full" / FILE, users)
        started(folder / "empty", model)  # whatever is kept in the cache is there from now on
        found: dict[int, list[tuple[float, float]]] = {0: [], users: []}
        for _ in range(ROUNDS):
            found[0].append(started(folder / "empty", model))
            found[users].append(started(folder / "full", model))
    for count, each in found.items():
        seconds, mib = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"{count:9} users: {seconds:.2f} s until it serves, {mib:.0f} MiB at most")
        rows += [(count, "start to serving", round(seconds, 3), "s"), (count, "memory at most", round(mib, 1), "MiB")]
    print(common.keep("start_users", COLUMNS, rows))


if __name__ == "__main__":
    main()
