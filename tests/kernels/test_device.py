"""Every device gives the answers of the reference, whichever scan ranks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from matchcut.kernels import cpu
from matchcut.kernels.codes import CodedRows
from matchcut.kernels.cuda import opening, probe
from matchcut.kernels.cuda.errors import CudaAbsent
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.device import GPU_SCANS, Cpu, Device, NoDevice, cores, open_device, pick
from matchcut.kernels.native.shared_library import Absent, Library, Variant, load
from matchcut.kernels.pool import attend, pool
from matchcut.kernels.pooling import Attention, Max
from matchcut.kernels.preprocess import preprocess
from matchcut.kernels.topk import search
from support.colours import yuv
from support.interpreted import Interpreted

ABSENT = probe.Absent("there is no NVIDIA driver")
GPU = probe.Gpu(0, "a GPU", 90, 80 << 30, 132)
FOUND = probe.Found(13000, (GPU, replace(GPU, ordinal=1)))
Floats = NDArray[np.float32]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has."""
    monkeypatch.setattr(opening, "probe", lambda: ABSENT)
    monkeypatch.setattr(opening, "_has_driver", lambda: False)


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
    small = device.preprocess(yuv(1, 4, 4), [1, 2, 3], [4, 5, 6], "NCHW", size=(2, 2), dtype="float16")
    assert small.shape == (1, 3, 2, 2)
    assert small.dtype == np.float16
    np.testing.assert_array_equal(device.pool(vectors, offsets), pool(vectors, offsets))
    np.testing.assert_array_equal(device.pool(vectors, offsets, kind=Max()), pool(vectors, offsets, kind=Max()))
    kind = Attention(np.ones(3, np.float32))
    np.testing.assert_array_equal(device.attend(vectors, offsets, kind)[1], attend(vectors, offsets, kind)[1])
    calls: list[int] = []
    found = device.search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1, check=lambda: calls.append(1))
    assert calls
    assert list(found) == list(search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1))
    assert found.variant == "cpu-numpy"
    assert device.failure(MemoryError()) is None
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
    monkeypatch.setattr(cpu, "load", lambda: Absent("it was not built"))
    device = open_device()
    assert device.scan == "cpu-numpy"
    assert device.coding(unit_rows(2000, 70)) is None
    with pytest.raises(ValueError, match="there is no native scan 'avx2': it was not built"):
        open_device(scan="avx2")
    assert open_device(scan="numpy").scan == "cpu-numpy"


def test_a_scan_that_cannot_run_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = replace(native(), variants=(Variant(0, "amx", 127, "the processor is too old"), *native().variants[1:]))
    monkeypatch.setattr(cpu, "load", lambda: lacking)
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
    for name in ("tpu", "cuda:", "cuda:-1", "cuda:1x", ""):
        with pytest.raises(NoDevice, match=f"no device '{name}'; choose one of 'auto', 'cpu', 'cuda', 'cuda:N'"):
            open_device(name)


@pytest.mark.parametrize("scan", ["auto", "numpy"])
@pytest.mark.parametrize("with_codes", [True, False])
def test_each_query_may_have_a_ranking_of_its_own(scan: str, with_codes: bool) -> None:
    device, rows = open_device("cpu", scan=scan, threads=1), unit_rows(2000, 70)
    groups, eligible = np.arange(2000) // 3, np.arange(2000) % 5 > 0
    queries = unit_rows(4, 70, seed=1)
    codes = coded(open_device("cpu", threads=1), rows) if with_codes else None
    lists = [np.empty(0, np.int64), np.arange(300), np.empty(0, np.int64), np.arange(900)]
    for excluded in (None, lists):
        options: dict[str, Any] = {"groups": groups, "k": 6, "minimum": 0.1}
        found = device.search_each(queries, rows, eligible=eligible, excluded=excluded, coded=codes, **options)
        for at, one in enumerate(found):
            left = eligible if excluded is None else eligible & ~np.isin(groups, excluded[at])
            assert list(one) == list(search(queries[at : at + 1], rows, eligible=left, **options))
            assert one.variant == (device.scan if with_codes else "cpu-numpy")
    assert not len(found[3])
    everything = device.search_each(queries[:1], rows, excluded=[np.arange(300)], coded=codes, groups=groups, k=1)
    assert everything[0].groups[0] >= 300
    with pytest.raises(ValueError, match="4 queries need as many lists of excluded groups, not 1"):
        device.search_each(queries, rows, groups=groups, k=1, excluded=[groups])


# ---- which device ----


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Interpreted]:
    """A driver that sees two GPUs, each of which is the interpreter; all that are opened."""
    opened: list[Interpreted] = []

    def made(ordinal: int) -> Interpreted:
        if ordinal >= len(FOUND.gpus):
            raise CudaAbsent(f"there is no GPU {ordinal}: the driver sees 2, from 0 on")
        opened.append(Interpreted())
        opened[-1].name = f"GPU {ordinal}"
        return opened[-1]

    monkeypatch.setattr(opening, "probe", lambda: FOUND)
    monkeypatch.setattr("matchcut.kernels.cuda.launcher.Context.open", made)
    return opened


def test_auto_takes_the_first_gpu(gpus: list[Interpreted]) -> None:
    choice = pick()
    assert isinstance(choice.device, Cuda)
    assert (choice.device.name, choice.device.variant, choice.device.scan) == ("cuda", "cuda-90", "cuda-int8")
    assert choice.device.title == "GPU 0, compute capability 9.0"
    assert (choice.why, choice.odd) == ("", False)
    assert open_device("cuda:1").title.startswith("GPU 1")
    for scan in GPU_SCANS:
        assert open_device(scan=scan).scan == open_device("cuda", scan=scan).scan == f"cuda-{scan}"
    assert not any(context.closed for context in gpus)


def test_the_cpu_is_taken_where_it_is_meant(gpus: list[Interpreted]) -> None:
    assert pick("cpu").device.name == "cpu"
    choice = pick(scan="scalar")
    assert (choice.device.name, choice.why, choice.odd) == ("cpu", "the scan 'scalar' is one of the CPU", False)
    assert not gpus
    with pytest.raises(ValueError, match="no scan 'int8' on the CPU; it is one of a GPU") as caught:
        pick("cpu", scan="int8")
    assert not isinstance(caught.value, NoDevice)
    with pytest.raises(ValueError, match="no scan 'scalar' on a GPU"):
        pick("cuda", scan="scalar")
    assert gpus[-1].closed
    with pytest.raises(NoDevice, match="no GPU can be used here: there is no GPU 2"):
        pick("cuda:2")


def test_a_gpu_that_cannot_be_used(gpus: list[Interpreted], monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: str) -> None:
        raise CudaAbsent("the kernel pool is damaged")

    monkeypatch.setattr(Interpreted, "load", damaged)
    choice = pick()
    assert (choice.device.name, choice.why, choice.odd) == ("cpu", "the kernel pool is damaged", True)
    assert [context.closed for context in gpus] == [True]
    for name, scan in (("cuda", "auto"), ("auto", "fp32")):
        with pytest.raises(NoDevice, match="no GPU can be used here: the kernel pool is damaged"):
            pick(name, scan=scan)


def test_every_kernel_that_may_run_is_loaded_at_the_start(
    gpus: list[Interpreted], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("scan_int8_16", "scan_bf16_16", "pool_mean_512", "preprocess_rgb_bf16", "kth_4096")
    manifest = SimpleNamespace(kernels=dict.fromkeys(names))
    monkeypatch.setattr(Manifest, "read", lambda: manifest)
    loaded: list[str] = []
    monkeypatch.setattr(Interpreted, "load", lambda self, *names: loaded.extend(names))

    def binary(self: Interpreted, name: str) -> None:
        if name.endswith("bf16"):
            raise CudaAbsent("not for this one")

    monkeypatch.setattr(Interpreted, "binary", binary)
    pick("cuda", scan="int8")
    assert loaded == ["scan_int8_16", "pool_mean_512", "kth_4096"]


def test_a_machine_without_a_driver_has_nothing_to_wonder_about(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = pick()
    assert (choice.device.name, choice.why, choice.odd) == ("cpu", ABSENT.why, False)
    monkeypatch.setattr(opening, "_has_driver", lambda: True)
    assert pick().odd, "there is a driver, which does not work"
    with pytest.raises(NoDevice, match="no GPU can be used here: there is no NVIDIA driver"):
        pick("cuda")


def test_looking_for_a_gpu_imports_little() -> None:
    """No PyCUDA, and nothing of the GPU's home, where no driver is."""
    code = """
import sys
from matchcut.kernels.device import open_device
assert not [name for name in sys.modules if name.startswith("matchcut.kernels.cuda")]
from matchcut.kernels.cuda import opening, probe
opening.probe = lambda: probe.Absent("none")
assert open_device().name == "cpu"
assert "pycuda" not in sys.modules
assert "matchcut.kernels.cuda.home" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
