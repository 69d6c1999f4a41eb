"""What a scan holds, when topk.search has to do instead, and rows that lie far apart."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.kernels import crew as module
from matchcut.kernels.codes import CodedRows
from matchcut.kernels.native.shared_library import CHUNK, Variant
from matchcut.kernels.sieve import Crew, search_coded, search_each
from matchcut.kernels.topk import search
from support.native import BASES, LIBRARY, RUNNABLE, basis, coded, ranked, ranked_each, steep, unit

ALONE = Crew(LIBRARY, LIBRARY.best)
COUNT = 20_000
ROWS = steep(np.random.default_rng(0), COUNT, 200)
QUERIES = steep(np.random.default_rng(1), 3, 200)
GROUPS = np.arange(COUNT) // 2


@pytest.fixture(scope="module", params=BASES)
def kept(request: pytest.FixtureRequest) -> CodedRows:
    return coded(ROWS, basis(request.param, 200))


@pytest.fixture(params=[1, 3])
def crew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """One thread and three."""
    monkeypatch.setattr(module, "_SLICE", 1)  # so that there are turns for all
    with ThreadPoolExecutor(2) as pool:
        yield Crew(LIBRARY, LIBRARY.best, request.param, pool)


def test_when_it_holds_many_it_works_on_them_first(
    kept: CodedRows, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    plain = module._opened

    def counted(job: module.Job) -> Any:
        opened.append(1)
        return plain(job)

    monkeypatch.setattr(module, "_opened", counted)
    assert ranked(QUERIES, ROWS, kept, groups=GROUPS, k=10).scanned == COUNT
    assert len(opened) == 1
    monkeypatch.setattr(module, "_HELD", 100)
    opened.clear()
    found = ranked(QUERIES, ROWS, kept, crew=crew, groups=GROUPS, k=10)
    assert (found.variant, found.scanned) == ("", COUNT)
    assert len(opened) > crew.threads
    opened.clear()
    assert [one.scanned for one in ranked_each(QUERIES, ROWS, kept, crew=crew, groups=GROUPS, k=10)] == [COUNT] * 3
    assert len(opened) > crew.threads


@pytest.mark.parametrize("name", BASES)
def test_where_too_many_are_left_the_reference_ranks(name: str, crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEW", 0)
    rows, groups = ROWS[:3000], np.arange(3000)
    kept = coded(rows, basis(name, 200))
    assert ranked(QUERIES, rows, kept, crew=crew, groups=groups, k=10).variant == ""  # few are left
    assert ranked(QUERIES, rows, kept, crew=crew, groups=groups, k=3000).variant == "numpy"  # all are
    each = ranked_each(QUERIES, rows, kept, crew=crew, groups=groups, k=3000)
    assert [one.variant for one in each] == ["numpy"] * 3


@pytest.mark.parametrize("name", ["plain", "64"])
def test_ties_cost_neither_memory_nor_time(name: str) -> None:
    """16 million pairs that no bound tells apart; as pairs of 16 bytes they would take 268 MB."""
    random = np.random.default_rng(2)
    middle = np.full((1, 200), 0.07, np.float32)
    rows = middle + (random.integers(-1, 2, (40_000, 200)) * 2.0**-27).astype(np.float32)
    queries = middle + (random.integers(-1, 2, (400, 200)) * 2.0**-27).astype(np.float32)
    kept = coded(np.concatenate([rows, unit(random, 1, 200)]), basis(name, 200))
    all_rows = np.concatenate([rows, unit(random, 1, 200)])
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    before = peak()
    tracemalloc.start()
    found = search_coded(queries, all_rows, kept, crew=ALONE, groups=np.arange(40_001), k=10)
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.variant == "numpy"
    assert traced < 64e6
    assert peak() - before < 150e6


def peak() -> int:
    """The most bytes of memory that the process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.parametrize("shift", [20, 47])
def test_any_numbers_may_be_groups(shift: int) -> None:
    """Multiples of a large power of two once shared a place in a table, which took a hundred times as long."""
    rows = unit(np.random.default_rng(5), 60_000, 64)
    groups, kept = (np.arange(60_000) << shift) - 5, coded(rows, basis("plain", 64))
    began = time.process_time()
    found = search_coded(rows[:1], rows, kept, crew=ALONE, groups=groups, k=60_000)
    assert time.process_time() - began < 4
    assert list(found) == list(search(rows[:1], rows, groups=groups, k=60_000))


@pytest.mark.parametrize(
    ("name", "row"), [*((name, row) for name in BASES for row in (3e38, 2.0**42)), ("plain", 2.0**-45), ("plain", 0.0)]
)
def test_out_of_range_the_reference_ranks(name: str, row: float) -> None:
    """A huge row is enough, tiny ones have to be all."""
    random = np.random.default_rng(3)
    rows = unit(random, 300, 200) if row > 1 else np.zeros((300, 200), np.float32)
    rows[::2] = random.choice([-1, 1], (150, 200)) * np.float32(row)
    kept = coded(rows, basis(name, 200))
    assert ranked(QUERIES, rows, kept, groups=np.arange(300), k=9).variant == "numpy"
    each = ranked_each(QUERIES, rows, kept, groups=np.arange(300), k=9)
    assert [one.variant for one in each] == ["numpy"] * 3


@pytest.mark.parametrize("size", [3e35, 2.0**45, 2.0**-45, 0.0])
def test_of_queries_out_of_range_the_reference_ranks(size: float, kept: CodedRows) -> None:
    queries = QUERIES.copy()
    queries[1] *= np.float32(size)
    assert ranked(queries, ROWS, kept, groups=GROUPS, k=9).variant == "numpy"
    each = ranked_each(queries, ROWS, kept, groups=GROUPS, k=9)
    assert [one.variant for one in each] == ["numpy"] * 3  # they share a pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rows": ROWS[:-1], "groups": GROUPS[:-1]},
            r"codes are of 20000 rows of 200 dimensions, not of \(19999, 200\)",
        ),
        ({"rows": ROWS[:, :100], "queries": QUERIES[:, :100]}, r"of 200 dimensions, not of \(20000, 100\)"),
        ({"rows": np.asfortranarray(ROWS)}, "rows must be contiguous"),
        ({"queries": QUERIES * np.float32(np.nan)}, "queries hold NaN"),
        ({"queries": QUERIES[:0]}, "no query"),
        ({"k": 0}, "k must be"),
        ({"groups": np.zeros(3)}, "groups must be"),
        ({"eligible": np.ones(2, np.bool_)}, "eligible must be"),
        ({"minimum": float("nan")}, "minimum must be"),
    ],
)
def test_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    kept = coded(ROWS, basis("plain", 200))
    given: dict[str, Any] = {"queries": QUERIES, "rows": ROWS, "groups": GROUPS, "k": 1} | change
    for function in (search_coded, search_each):
        with pytest.raises(ValueError, match=message):
            function(coded=kept, crew=ALONE, **given)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("plain", LIBRARY.best), *(("128", variant) for variant in RUNNABLE)],
    ids=lambda one: one.name if isinstance(one, Variant) else one,
)
def test_rows_lie_far_beyond_two_and_four_gigabytes(name: str, variant: Variant, tmp_path: Path) -> None:
    """3.4 million rows, nearly all of them 0: they share one chunk of codes, and are a hole in a file of 17 GB."""
    dimensions, used, random = 1280, basis(name, 1280), np.random.default_rng(4)
    count = (2**32 // dimensions // CHUNK + 2) * CHUNK
    assert (count - CHUNK) * dimensions > 2**32
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(count, dimensions))
    filled = unit(random, CHUNK, dimensions)
    few = coded(np.concatenate([filled, np.zeros_like(filled)]), used, variant)
    first, empty = few.table
    table = np.full(count // CHUNK, empty)
    places = np.array([0, 2**29 // dimensions // CHUNK, 2**31 // dimensions // CHUNK + 1, len(table) - 1])
    table[places] = first
    kept = CodedRows(used, count, table, few.stats, few.span, few.keep)
    for place in places.tolist():
        rows[place * CHUNK : (place + 1) * CHUNK] = filled
    query = unit(random, 1, dimensions)
    wanted = search(query, filled, groups=np.arange(CHUNK), k=5)
    assert wanted.scores[-1] > 0.05
    found = search_coded(query, rows, kept, crew=Crew(LIBRARY, variant), groups=np.arange(count), k=20)
    assert (found.scanned, found.variant) == (count, "")
    assert found.scores.tolist() == np.repeat(wanted.scores, 4).tolist()
    assert found.rows.tolist() == (wanted.rows[:, np.newaxis] + places * CHUNK).ravel().tolist()
