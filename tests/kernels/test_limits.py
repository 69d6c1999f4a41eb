"""The computed limits of the GPU ops: the committed table is what the module computes, and its numbers make sense."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from matchcut.kernels.bench import limits
from matchcut.kernels.pooling import Mean

RESULTS = Path(__file__).parents[1] / "bench" / "results" / "gpu_limits.csv"
H100 = limits.CARDS[0]


def test_the_committed_table_is_what_is_computed() -> None:
    assert RESULTS.read_text(encoding="utf-8") == limits.written(), (
        f"python -m matchcut.kernels.bench.limits {RESULTS.relative_to(RESULTS.parents[3])} writes it anew"
    )


def test_a_plain_read_is_bytes_by_bandwidth() -> None:
    memory, arithmetic = limits.read("bf16").on(H100)
    assert memory == pytest.approx(1e6 * 512 * 2 / 3.35e12 * 1e6)
    assert arithmetic == 0


def test_what_a_ranking_reads_and_multiplies() -> None:
    one, many, more = (limits.ranking("int8", queries, 90) for queries in (1, 64, 512))
    assert one.moved == 1_000_000 * (512 + 4 + 1) + 100 * 512 * 4
    assert one.multiply_adds == 1_000_000 * 512 * 8 * 2  # eight columns, and two parts of a query
    assert (one.passes, many.passes, more.passes) == (1, 1, 8)
    assert (more.moved, more.multiply_adds) == (8 * many.moved, 8 * many.multiply_adds)
    few = limits.ranking("int8", 1, 90, levels=4, share=0.01)
    assert few.moved == 1_000_000 * (256 + 4 + 1 + 4) + 10_000 * (256 + 4 + 16) + 100 * 512 * 4
    everything = limits.ranking("int8", 64, 90, levels=4)
    assert everything.multiply_adds == 1_000_000 * 64 * (2 * 256 + 256)  # of the tails one part


def test_what_pictures_and_vectors_take() -> None:
    work = limits.preprocessing("1080p", 1080, 1920, "float16", planes=True)
    assert work.moved == 16 * (1080 * 1920 * 3 // 2 + 3 * 224 * 224 * 2)
    same = limits.preprocessing("224", 224, 224, "float32", planes=False)
    assert same.multiply_adds == 16 * 224 * 224 * (3 * 2 + 12)  # one tap down and one across
    pooled = limits.pooling("mean", Mean(), 1)
    assert pooled.moved == 3000 * 1280 * 4 + 3000 * 4 + 100 * 1280 * 4 + 100 * 4


def test_the_longer_of_the_two_is_the_limit() -> None:
    rows = list(csv.DictReader(io.StringIO(limits.written())))
    assert len(rows) == len(limits.CARDS) * len(list(limits.works(90)))
    for row in rows:
        memory, arithmetic, least = (float(row[name]) for name in ("memory_us", "arithmetic_us", "least_us"))
        assert least == max(memory, arithmetic) > 0
        assert row["limited_by"] == ("memory" if memory >= arithmetic else "arithmetic")


def test_it_writes_the_file_or_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["limits", str(tmp_path / "made.csv")])
    limits.main()
    assert (tmp_path / "made.csv").read_text() == limits.written()
    monkeypatch.setattr("sys.argv", ["limits"])
    limits.main()
    assert capsys.readouterr().out == limits.written()
