"""How fast the log of events takes events in, durably, beside a load of reads.

    python tests/bench/events.py [events] [folder]

Events come in calls of 500. In *bursts* each user does five things in a row, as people do; *scattered*, each event of a
call is of another user, the worst case: every row lies in a page of its own. Users and items are drawn from 20,000
each. Meanwhile one thread reads all that is kept of a user, again and again, with a rest of a millisecond in between.
The log that is measured holds as many events already.

Baselines, in the same folder, with the same write-ahead log and synchronous=FULL:
- one INSERT in a transaction of its own for each event, into the same table with its two indexes;
- executemany of 500 rows in one transaction into a table without any index: it neither knows duplicates nor finds a
  user, counts nobody, hides no id. What a disk and SQLite can do at most from Python.

Sides alternate. Rates are of wall time, and depend on the disk; CPU is of the whole process, reads included where there
are any. Rows are appended to results/events.csv.
"""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import common

from matchcut.server.events import EventLog, open_log
from matchcut.server.records import Event, EventKind

CALL = 500
POOL = 20_000  # users, and items
ROUNDS = 3
COLUMNS = ("sqlite", "what", "events_a_second", "cpu_ms_per_1000", "ratio_to_single", "reads_a_second")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    above = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(f"{common.cpu()}, SQLite {sqlite3.sqlite_version}, {count} events a round, median of {ROUNDS}")
    sides: dict[str, Callable[[Path, int], tuple[float, float, float]]] = {
        "single INSERT transactions": lambda folder, seed: single(folder, calls(count // 50, seed, 5)),
        "executemany, no index": lambda folder, seed: bare(folder, calls(count, seed, 5)),
    }
    for burst, name in ((5, "bursts"), (1, "scattered")):
        for threads in (1, 4):
            for reads in (False, True):
                label = f"ours, {name}, {threads} thread{'s' * (threads > 1)}{', beside reads' * reads}"
                sides[label] = partial(taken, count=count, burst=burst, threads=threads, reads=reads)
    found: dict[str, list[tuple[float, float, float]]] = {label: [] for label in sides}
    for seed in range(ROUNDS):
        for label, side in sides.items():
            folder = Path(tempfile.mkdtemp(dir=above))
            try:
                found[label].append(side(folder, seed))
            finally:
                shutil.rmtree(folder)
    rows = []
    base = statistics.median(rate for rate, _, _ in found["single INSERT transactions"])
    for label, measured in found.items():
        rate, cpu, reads_s = (statistics.median(column) for column in zip(*measured, strict=True))
        print(
            f"{label:42} {rate:9.0f} events/s  {cpu:7.1f} CPU-ms per 1000  {rate / base:6.1f} x  {reads_s:6.0f} reads/s"
        )
        rows.append(
            [sqlite3.sqlite_version, label, f"{rate:.0f}", f"{cpu:.2f}", f"{rate / base:.2f}", f"{reads_s:.0f}"]
        )
    common.keep("events", COLUMNS, rows)


def calls(count: int, seed: int, burst: int) -> list[list[Event]]:
    """So many events, in calls."""
    chance = random.Random(seed)
    kinds, made = list(EventKind), []
    for first in range(0, count, burst):
        user = f"user-{chance.randrange(POOL)}"
        for at in range(first, min(first + burst, count)):
            item, when = f"item-{chance.randrange(POOL)}", 10**15 + at * 1000
            made.append(Event(f"event-{seed}-{at}", user, item, chance.choice(kinds), when))
    return [made[at : at + CALL] for at in range(0, len(made), CALL)]


def taken(folder: Path, seed: int, *, count: int, burst: int, threads: int, reads: bool) -> tuple[float, float, float]:
    """What ours() measures, of so many events."""
    return ours(folder, calls(count, seed, burst), threads, reads)


def ours(folder: Path, told: Sequence[list[Event]], threads: int, reads: bool) -> tuple[float, float, float]:
    """Events a second, CPU-milliseconds per 1000 events, reads a second."""
    with closing(open_log(folder / "events.sqlite", days=0)) as log:
        for call in calls(sum(map(len, told)), -1, 5):
            log.append("t", call)

        def append(part: Sequence[list[Event]]) -> None:
            for call in part:
                log.append("t", call)

        workers = [threading.Thread(target=append, args=(told[at::threads],)) for at in range(threads)]
        with reading(log) if reads else none() as done:
            began, used = time.perf_counter(), seconds()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            wall, used = time.perf_counter() - began, seconds() - used
            read = len(done)
    return rates(told, wall, used, read)


def single(folder: Path, told: Sequence[list[Event]]) -> tuple[float, float, float]:
    with closing(database(folder)) as db:
        db.executescript(
            "CREATE TABLE events (event_id TEXT PRIMARY KEY, user_id TEXT, item_id TEXT, kind INT, time_us INT) "
            "WITHOUT ROWID; CREATE INDEX users ON events (user_id, time_us)"
        )
        began, used = time.perf_counter(), seconds()
        for call in told:
            for event in call:
                db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", plain(event))
        return rates(told, time.perf_counter() - began, seconds() - used, 0)


def bare(folder: Path, told: Sequence[list[Event]]) -> tuple[float, float, float]:
    with closing(database(folder)) as db:
        db.execute("CREATE TABLE events (event_id TEXT, user_id TEXT, item_id TEXT, kind INT, time_us INT)")
        began, used = time.perf_counter(), seconds()
        for call in told:
            db.execute("BEGIN")
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", map(plain, call))
            db.execute("COMMIT")
        return rates(told, time.perf_counter() - began, seconds() - used, 0)


def database(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def plain(event: Event) -> tuple[str, str, str, int, int]:
    return event.event_id, event.user_id, event.item_id, len(event.kind.value), event.time_us


def rates(told: Sequence[list[Event]], wall: float, used: float, reads: int) -> tuple[float, float, float]:
    count = sum(map(len, told))
    return count / wall, used / count * 1e6, reads / wall


@contextmanager
def reading(log: EventLog) -> Iterator[list[int]]:
    """A thread that reads users; how many events each had."""
    stop, done = threading.Event(), list[int]()

    def work() -> None:
        chance = random.Random(0)
        while not stop.wait(0.001):
            done.append(len(log.events(log.key("t", f"user-{chance.randrange(POOL)}"))))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


@contextmanager
def none() -> Iterator[list[int]]:
    yield []


def seconds() -> float:
    """CPU-seconds of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
