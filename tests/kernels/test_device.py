"""Every device gives the answers of the reference, whichever scan ranks."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from matchcut.kernels import device as devices
from matchcut.kernels.codes import CodedRows
from matchcut.kernels.device import Cpu, Device, cores, open_device
from matchcut.kernels.native.shared_library import Absent, Library, Variant, load
from matchcut.kernels.pool import pool
from matchcut.kernels.preprocess import preprocess
from matchcut.kernels.topk import search

Floats = NDArray[np.float32]


def native() -> Library:
    library = load()
    assert isinstance(library, Library), library.why
    return library


def unit_rows(count: int, dimensions: int, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def coded(device: Device, rows: Floats) -> CodedRows:
    codes = device.coding(rows)
    assert codes is not None
    codes.extend(rows)
    return codes.view()


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_runs_the_ops(name: str) -> None:
    device: Device = open_device(name)
    assert (device.name, device.variant) == ("cpu", "cpu-numpy")
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    vectors = random.random((6, 3), np.float32)
    offsets, groups = np.array([0, 2, 6]), np.arange(6)
    np.testing.assert_array_equal(
        device.preprocess(frames, [1, 2, 3], [4, 5, 6], "NHWC"), preprocess(frames, [1, 2, 3], [4, 5, 6], "NHWC")
    )
    np.testing.assert_array_equal(device.pool(vectors, offsets), pool(vectors, offsets))
    calls: list[int] = []
    found = device.search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1, check=lambda: calls.append(1))
    assert calls
    assert list(found) == list(search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1))
    assert found.variant == "cpu-numpy"
    device.close()


def test_auto_takes_the_best_variant() -> None:
    assert Cpu().scan == Cpu(scan=native().best.name).scan == f"cpu-{native().best.name}"


@pytest.mark.parametrize("scan", [variant.name for variant in native().variants if not variant.lacks])
def test_every_variant_that_runs_here_ranks_as_the_reference(scan: str) -> None:
    device = open_device(scan=scan, threads=1)
    rows, groups = unit_rows(3000, 70), np.arange(3000) // 2
    queries, eligible = unit_rows(3, 70, seed=1), np.arange(3000) % 3 > 0
    found = device.search(queries, rows, groups=groups, k=9, eligible=eligible, coded=coded(device, rows))
    expected = search(queries, rows, groups=groups, k=9, eligible=eligible)
    assert list(found) == list(expected)
    assert found.variant == f"cpu-{scan}"
    assert 9 <= found.survivors < 3 * 3000
    assert found.scanned >= eligible.sum()


def test_numpy_codes_nothing_and_ignores_codes() -> None:
    device, rows = open_device(scan="numpy"), unit_rows(2000, 70)
    assert device.scan == "cpu-numpy"
    assert device.coding(rows) is None
    codes = coded(open_device(scan="scalar", threads=1), rows)
    found = device.search(rows[:1], rows, groups=np.arange(2000), k=3, coded=codes)
    assert list(found) == list(search(rows[:1], rows, groups=np.arange(2000), k=3))
    assert found.variant == "cpu-numpy"
    device.close()


def test_what_the_bounds_say_nothing_of_is_told_to_be_ranked_by_numpy() -> None:
    device = open_device(threads=1)
    rows = unit_rows(2000, 70) * np.float32(2.0**50)
    found = device.search(rows[:1], rows, groups=np.arange(2000), k=3, coded=coded(device, rows))
    assert list(found) == list(search(rows[:1], rows, groups=np.arange(2000), k=3))
    assert found.variant == "cpu-numpy"


def test_threads_share_a_search_and_end_with_the_device() -> None:
    before = set(threading.enumerate())
    device, rows = open_device(threads=3), unit_rows(40_000, 64)
    assert set(threading.enumerate()) == before, "threads start when they are needed"
    codes, groups = coded(device, rows), np.arange(40_000)
    queries = rows[:16]
    expected = list(search(queries, rows, groups=groups, k=5))
    assert list(device.search(queries, rows, groups=groups, k=5, coded=codes)) == expected
    assert len(set(threading.enumerate()) - before) in (1, 2)
    device.close()
    device.close()
    assert set(threading.enumerate()) == before
    assert list(device.search(queries, rows, groups=groups, k=5, coded=codes)) == expected, "it then ranks alone"


def test_copied_codes_are_of_the_rows_asked_for() -> None:
    device, rows = open_device(threads=1), unit_rows(3000, 70)
    kept = np.flatnonzero(np.arange(3000) % 3 > 0)
    codes = device.copied(coded(device, rows), kept)
    codes.extend(rows[:100])
    now, groups = np.concatenate([rows[kept], rows[:100]]), np.arange(2100)
    found = device.search(rows[:2], now, groups=groups, k=7, coded=codes.view())
    assert list(found) == list(search(rows[:2], now, groups=groups, k=7))
    assert found.variant == device.scan


def test_coding_can_be_given_up() -> None:
    class GoneError(Exception):
        pass

    def gone() -> None:
        raise GoneError

    with pytest.raises(GoneError):
        open_device().coding(unit_rows(40_000, 512), check=gone)


def test_without_the_library_numpy_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "load", lambda: Absent("it was not built"))
    device = open_device()
    assert device.scan == "cpu-numpy"
    assert device.coding(unit_rows(2000, 70)) is None
    with pytest.raises(ValueError, match="there is no native scan 'avx2': it was not built"):
        open_device(scan="avx2")
    assert open_device(scan="numpy").scan == "cpu-numpy"


def test_a_scan_that_cannot_run_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = replace(native(), variants=(Variant(0, "amx", 127, "the processor is too old"), *native().variants[1:]))
    monkeypatch.setattr(devices, "load", lambda: lacking)
    with pytest.raises(ValueError, match="amx: the processor is too old"):
        open_device(scan="amx")
    assert open_device().scan != "cpu-amx"
    with pytest.raises(ValueError, match="there is no variant 'abacus'; choose one of amx"):
        open_device(scan="abacus")
    with pytest.raises(ValueError, match="threads must be at least 0, not -1"):
        open_device(threads=-1)


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_an_unknown_device_is_told_the_choices() -> None:
    with pytest.raises(ValueError, match="no device 'tpu'; choose one of 'auto', 'cpu'"):
        open_device("tpu")
