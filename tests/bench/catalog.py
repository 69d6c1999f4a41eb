"""How long the catalogue takes to open, and how fast it takes items in.

    python tests/bench/catalog.py [items] [segments]

The baseline of opening is to read the same vectors from one raw file into one array, the least that has to be done;
that of putting is a transaction of its own for each item. Both sides alternate in one process on one core. Rows are
appended to results/catalog.csv.
"""

from __future__ import annotations

import csv
import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np

from matchcut.kernels.device import open_device
from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.records import EncoderIdentity, Item, Segment, TagFilter, TimeRange

DIMENSIONS = 1280
ENCODER = EncoderIdentity("bench", "1", "0" * 64, DIMENSIONS)
RESULTS = Path(__file__).parent / "results" / "catalog.csv"
THREADS = 8


def main() -> None:
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    segments = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{cpu()}, one core, SQLite {sqlite3.sqlite_version}, {items} items of {segments} x {DIMENSIONS}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [*put_rate(Path(folder), items, segments), *open_time(Path(folder), items), *query_time(Path(folder))]
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["date", "cpu", "items", "segments", "what", "median", "unit", "ratio_to_baseline"])
        writer.writerows([date.today().isoformat(), cpu(), items, segments, *row] for row in rows)


def put_rate(folder: Path, items: int, segments: int) -> list[tuple[object, ...]]:
    """Items a second, durable: one caller after the other, and several at once (one commit for many)."""
    catalog = open_catalog(folder / "many")
    alone = open_catalog(folder / "alone")
    sample = min(items, 500)
    start = time.perf_counter()
    for at in range(sample):
        put(alone, at, segments)
    one = (time.perf_counter() - start) / sample
    with ThreadPoolExecutor(THREADS) as pool:
        start, cpu_start = time.perf_counter(), seconds()
        for done in [pool.submit(put, catalog, at, segments) for at in range(items)]:
            done.result()
        both = (time.perf_counter() - start) / items
        cpu_each = (seconds() - cpu_start) / items
    catalog.close()
    alone.close()
    print(f"put, 1 caller:      {1 / one:8.0f} items/s durable")
    several = f"{1 / both:8.0f} items/s durable, {one / both:.2f} x, {cpu_each * 1e6:.0f} us of CPU each"
    print(f"put, {THREADS} callers:     {several}")
    return [("put, 1 caller", 1 / one, "items/s", 1.0), (f"put, {THREADS} callers", 1 / both, "items/s", one / both)]


def open_time(folder: Path, items: int) -> list[tuple[object, ...]]:
    """CPU-seconds until the catalogue serves."""
    first = open_catalog(folder / "many")
    first.view("", ENCODER).rows.tofile(folder / "raw")
    first.close()
    ours, raw, walls = [], [], []
    for _ in range(5):
        raw.append(spent(lambda: np.fromfile(folder / "raw", np.float32)))
        start, clock = seconds(), time.perf_counter()
        catalog = open_catalog(folder / "many")
        ours.append(seconds() - start)
        walls.append(time.perf_counter() - clock)
        assert catalog.count("") == items
        catalog.close()
    middle, base = statistics.median(ours), statistics.median(raw)
    print(
        f"open:               {middle:8.3f} CPU-s, {statistics.median(walls):.3f} s of wall; raw read {base:.3f} CPU-s"
    )
    return [("open", middle, "CPU-s", middle / base)]


def query_time(folder: Path) -> list[tuple[object, ...]]:
    """CPU-milliseconds to rank it all against one vector: the whole rank stage, with and without a filter."""
    catalog = open_catalog(folder / "many")
    view = catalog.view("", ENCODER)
    device = open_device()
    query = view.rows[:1].copy()
    tags = TagFilter(any_of=frozenset({"even"}))

    def rank(wanted: TagFilter) -> None:
        eligible = view.eligible(frozenset(), wanted)
        device.search(query, view.rows, groups=view.groups, eligible=eligible, k=10, radius=view.radius)

    base, plain, filtered = [], [], []
    for _ in range(15):
        base.append(spent(lambda: (view.rows @ query[0]).argpartition(-10)))
        plain.append(spent(lambda: rank(TagFilter())))
        filtered.append(spent(lambda: rank(tags)))
    catalog.close()
    found: list[tuple[object, ...]] = []
    for name, times in (("rank", plain), ("rank, tag filter", filtered)):
        middle, ratio = statistics.median(times), statistics.median(times) / statistics.median(base)
        print(f"{name + ':':19} {middle * 1e3:8.2f} CPU-ms, {ratio:.2f} x of a bare product and argpartition")
        found.append((name, middle * 1e3, "CPU-ms", ratio))
    return found


def put(catalog: Catalog, at: int, segments: int) -> None:
    random = np.random.default_rng(at)
    vectors = random.standard_normal((segments, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = [Segment(TimeRange(i * 1_000_000, (i + 1) * 1_000_000), vector) for i, vector in enumerate(vectors)]
    item = Item(f"clip-{at:07}", f"Clip {at}", f"file:///clips/{at}.mp4", ("even" if at % 2 == 0 else "odd",))
    catalog.put("", item, parts, ENCODER, at.to_bytes(32, "big"))


def seconds() -> float:
    """CPU-seconds of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def spent(work: Callable[[], object]) -> float:
    start = seconds()
    work()
    return seconds() - start


def cpu() -> str:
    """The processor's name."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
