"""Vectors in a file: the same as in memory, mapped only while somebody reads, and in memory where no file can be."""

from __future__ import annotations

import errno
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.server import process
from matchcut.server.catalog import open_catalog
from matchcut.server.catalog.filed import Filed, held
from matchcut.server.errors import StoreFailed
from matchcut.server.records import EncoderIdentity, Floats, Item, Segment, TimeRange

LEAST = "matchcut.server.catalog.filed._LEAST"
NEEDS_MAPS = pytest.mark.skipif(not process.MAPS.exists(), reason="what is mapped can be seen on Linux only")
BIG = EncoderIdentity("big", "1", "big", 1024)  # 256 rows are a mebibyte


def rows(count: int, dimensions: int = 3, start: int = 0) -> Floats:
    return np.arange(start, start + count * dimensions, dtype=np.float32).reshape(count, dimensions)


def mapped(folder: Path) -> list[str]:
    """The mappings of files that have no name any more, or had none, in that folder."""
    lines = process.MAPS.read_text().splitlines()
    return [line for line in lines if f" {folder}/" in line and line.endswith("(deleted)")]


def fails(code: int) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from(["extend", "reserve"]), st.integers(0, 9)), max_size=25),
    least=st.integers(1, 200),
)
def test_it_is_as_in_memory(
    steps: list[tuple[str, int]], least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is added, and what readers have stays as it was."""
    monkeypatch.setattr(LEAST, least)
    one, other = Filed(tmp_path, 3), held(3)
    taken: list[tuple[Floats, Floats]] = []
    for what, count in steps:
        if what == "reserve":
            one.reserve(count)
            other.reserve(count)
        else:
            added = rows(count, start=len(other) * 3)
            one.extend(added)
            other.extend(added)
        assert len(one) == len(other)
        taken.append((one.array, other.array))
    if len(other) * 12 >= least:
        assert one.fleeting
    for found, wanted in taken:
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, wanted)


@NEEDS_MAPS
def test_nothing_is_mapped_when_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 1024)
    filed.extend(rows(8, 1024))
    assert not mapped(tmp_path)
    first = filed.array
    second = filed.array
    assert len(mapped(tmp_path)) == 1, "all readers share one"
    filed.extend(rows(8, 1024))
    part = filed.array[12:13]
    assert len(mapped(tmp_path)) == 2, "what came since is in another"
    del first
    np.testing.assert_array_equal(second, rows(8, 1024))
    del second
    assert len(mapped(tmp_path)) == 1
    np.testing.assert_array_equal(part, rows(8, 1024)[4:5])
    del part
    assert not mapped(tmp_path)


def test_the_file_has_no_name_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))
    assert list(tmp_path.iterdir()) == []
    descriptor = filed._file
    os.fstat(descriptor)
    kept = filed.array
    del filed
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    np.testing.assert_array_equal(kept, rows(2))


def test_few_rows_are_in_memory(tmp_path: Path) -> None:
    filed = Filed(tmp_path, 256)
    filed.extend(rows(1023, 256))
    before = filed.fleeting
    filed.extend(rows(1, 256, start=1023 * 256))
    assert (before, filed.fleeting) == (False, True)
    np.testing.assert_array_equal(filed.array, rows(1024, 256))


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    real, refused = os.open, []

    def no_tmpfile(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refused.append(path)
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", no_tmpfile)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))
    assert refused == [tmp_path]
    assert filed.fleeting
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(filed.array, rows(2))


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_where_no_file_can_be_made_they_are_in_memory(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    monkeypatch.setattr(LEAST, 13)  # a row is in memory when the file is tried
    filed.extend(rows(1))
    monkeypatch.setattr(os, call, fails(errno.ENOSPC))
    with caplog.at_level(logging.WARNING):
        filed.extend(rows(2, start=3))
    monkeypatch.undo()
    assert f"vectors are kept in memory: a file for them in {str(tmp_path)!r} failed (No space left" in caplog.text
    filed.extend(rows(400_000, start=9))
    assert not filed.fleeting, "it is not tried again"
    np.testing.assert_array_equal(filed.array, rows(400_003))


def test_a_disk_that_gets_full_refuses_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))
    monkeypatch.setattr(os, "posix_fallocate", fails(errno.ENOSPC))
    with pytest.raises(MemoryError, match="No space left"):
        filed.reserve(1000)
    np.testing.assert_array_equal(filed.array, rows(2))
    monkeypatch.undo()
    filed.extend(rows(1000, start=6))
    np.testing.assert_array_equal(filed.array, rows(1002))


def test_what_a_full_disk_gave_in_vain_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ext4 does, which keeps what there was of the room that was asked for."""
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))

    def some(descriptor: int, at: int, size: int) -> None:
        os.ftruncate(descriptor, size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", some)
    with pytest.raises(MemoryError, match="No space left"):
        filed.reserve(1000)
    assert os.fstat(filed._file).st_size == 24
    np.testing.assert_array_equal(filed.array, rows(2))


def test_what_is_needed_is_taken_where_there_is_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(80))
    real, asked = os.posix_fallocate, []

    def just(descriptor: int, at: int, size: int) -> None:
        asked.append(size)
        if size > 81 * 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, at, size)

    monkeypatch.setattr(os, "posix_fallocate", just)
    filed.extend(rows(1, start=240))
    assert asked == [90 * 12, 81 * 12]
    np.testing.assert_array_equal(filed.array, rows(81))


def test_a_disk_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There was room, but the disk does not take it: the rows move to memory."""
    monkeypatch.setattr(LEAST, 1)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))
    before = filed.array
    monkeypatch.setattr(os, "pwrite", fails(errno.EIO))
    filed.extend(rows(2, start=6))
    assert not filed.fleeting
    assert "vectors are kept in memory" in caplog.text
    np.testing.assert_array_equal(before, rows(2))
    np.testing.assert_array_equal(filed.array, rows(4))


def test_a_write_may_take_a_part_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEAST, 1)
    real, sizes = os.pwrite, []

    def some(descriptor: int, data: Any, at: int) -> int:
        sizes.append(len(data))
        return real(descriptor, data[:7], at)

    monkeypatch.setattr(os, "pwrite", some)
    filed = Filed(tmp_path, 3)
    filed.extend(rows(2))
    assert sizes == [24, 17, 10, 3]
    np.testing.assert_array_equal(filed.array, rows(2))


def vectors(item: int) -> Floats:
    return np.random.default_rng(item).standard_normal((2, BIG.dimensions), np.float32)


def fill(catalog: Any, items: range) -> None:
    for item in items:
        segments = [Segment(TimeRange(at, at + 1), vector) for at, vector in enumerate(vectors(item))]
        catalog.put("", Item(f"i{item}", tags=("made",)), segments, BIG, f"{item}".encode())


def test_a_shelf_that_has_no_room_for_a_smaller_one_stays_in_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Removing is what is advised where a disk is full; it must not take the memory instead."""
    monkeypatch.setattr(LEAST, 1)
    catalog = open_catalog(tmp_path, in_file=True)
    fill(catalog, range(8))
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", fails(errno.ENOSPC))
        for item in range(6):
            catalog.remove("", f"i{item}")
    left = catalog.view("", BIG)
    assert (left.count, len(left.rows)) == (2, 16), "it is as it was"
    assert "in memory" not in caplog.text
    del left
    catalog.remove("", "i6")
    assert len(catalog.view("", BIG).rows) == 2, "there is room again"
    assert catalog.view("", BIG) is not catalog.view("", BIG), "in a file"
    np.testing.assert_array_equal(catalog.view("", BIG).rows, vectors(7))
    catalog.close()


@NEEDS_MAPS
def test_a_catalogue_reads_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a start, while it grows, and once more than half of it is gone."""
    folder = tmp_path / "data"
    with_file = open_catalog(folder, in_file=True)
    fill(with_file, range(100))
    with_file.close()
    reopened = open_catalog(folder, in_file=True)
    fill(reopened, range(100, 160))
    assert not mapped(folder), "nobody reads"
    view = reopened.view("", BIG)
    assert len(mapped(folder)) == 1
    np.testing.assert_array_equal(view.rows, np.concatenate([vectors(item) for item in range(160)]))
    for item in range(120):
        reopened.remove("", f"i{item}")
    left = reopened.view("", BIG)
    assert left.count == 40
    np.testing.assert_array_equal(left.rows[-80:], np.concatenate([vectors(item) for item in range(120, 160)]))
    np.testing.assert_array_equal(view.rows[:2], vectors(0))
    stored = reopened.get("", "i150")
    assert stored is not None
    np.testing.assert_array_equal([segment.vector for segment in stored.segments], vectors(150))
    del view, left
    assert not mapped(folder)
    assert not {path.name for path in folder.iterdir()} - {
        *("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "lock", "reserve")
    }
    reopened.close()
    assert not caplog.records


def test_more_than_the_disk_takes_is_refused_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = open_catalog(tmp_path, in_file=True)
    fill(catalog, range(130))
    monkeypatch.setattr(os, "posix_fallocate", fails(errno.ENOSPC))
    with pytest.raises(StoreFailed) as caught:
        fill(catalog, range(130, 200))
    assert caught.value.reason == "STORE_FULL"
    count = catalog.count("")
    assert 130 <= count < 200
    assert catalog.view("", BIG).rows.shape == (2 * count, BIG.dimensions)
    assert catalog.remove("", "i0")
    monkeypatch.undo()
    fill(catalog, range(count, 200))
    catalog.close()
    again = open_catalog(tmp_path)
    assert again.count("") == 199
    again.close()


@pytest.mark.parametrize("in_file", [True, False])
def test_a_file_is_used_where_it_is_asked_for_and_there_is_a_folder(
    in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LEAST, 1)
    catalog = open_catalog(tmp_path, in_file=in_file)
    fill(catalog, range(1))
    one, other = catalog.view("", BIG), catalog.view("", BIG)
    assert (one is not other) is in_file, "only what is in memory is kept for the next reader"
    catalog.close()
    nothing_kept = open_catalog(None, in_file=in_file)
    fill(nothing_kept, range(1))
    assert nothing_kept.view("", BIG) is nothing_kept.view("", BIG), "there is no folder for a file"
    nothing_kept.close()
