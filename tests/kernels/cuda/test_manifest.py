"""Which file of a kernel a device gets, and what is wrong with a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cuda_sim.contexts import write_manifest
from matchcut.kernels.cuda.errors import CudaAbsent
from matchcut.kernels.cuda.manifest import Manifest
from matchcut.kernels.gpu.spec import Kernel


def nothing(*_: object) -> None: ...


KERNEL = Kernel("double", nothing, {"x": "*fp32", "n": "i32"}, {"BLOCK": 128}, frozenset({"n"}), warps=8)
BFLOAT = Kernel("bfloat", nothing, {"x": "*bf16"}, {}, oldest=80)


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        *((int(exact), exact) for exact in ("75", "80", "86", "87", "89", "90", "100", "120")),
        (88, "86"),  # the highest lower minor that is no embedded device
        (103, "ptx80"),  # sm_100a runs on 10.0 only
        (121, "ptx80"),
        (110, "ptx80"),
        (130, "ptx80"),
    ],
)
def test_the_exact_cubin_else_a_lower_minor_else_ptx(tmp_path: Path, capability: int, target: str) -> None:
    entry = Manifest.read(write_manifest(tmp_path, [KERNEL])).entry("double")
    assert entry.binary(capability).target == target
    assert entry.binary(capability).ptx == target.startswith("ptx")


def test_a_lower_minor_of_the_same_major_only(tmp_path: Path) -> None:
    entry = Manifest.read(write_manifest(tmp_path, [KERNEL], targets=["75", "80", "87"])).entry("double")
    assert entry.binary(86).target == "80"
    assert entry.binary(89).target == "80"
    for capability in (70, 72, 90, 61):
        with pytest.raises(CudaAbsent, match=rf"75, 80, 87, none of which runs on {capability / 10:.1f}"):
            entry.binary(capability)


def test_an_embedded_device_gets_its_own_or_ptx(tmp_path: Path) -> None:
    entry = Manifest.read(write_manifest(tmp_path, [KERNEL], targets=["80", "86", "ptx80"])).entry("double")
    assert entry.binary(87).target == "ptx80"


def test_a_kernel_that_needs_a_newer_device_is_absent_on_an_older_one(tmp_path: Path) -> None:
    manifest = Manifest.read(write_manifest(tmp_path, [KERNEL, BFLOAT]))
    manifest.check(75, 13000)  # the other one runs
    with pytest.raises(CudaAbsent, match="bfloat is compiled for"):
        manifest.entry("bfloat").binary(75)


def test_what_it_says_of_a_kernel(tmp_path: Path) -> None:
    entry = Manifest.read(write_manifest(tmp_path, [KERNEL], shared={"double": 1234})).entry("double")
    assert entry.arguments == (("x", "*fp32"), ("n", "i32"))
    assert (entry.warps, set(entry.aligned), dict(entry.constants)) == (8, {"n"}, {"BLOCK": 128})
    binary = entry.binary(90)
    assert (binary.kernel, binary.entry, binary.shared, binary.toolkit) == ("double", "double", 1234, (12, 9))
    assert binary.read().startswith(b"\x7fELF")
    assert entry.binary(130).toolkit == (0, 0)


def test_no_device_and_no_old_driver(tmp_path: Path) -> None:
    manifest = Manifest.read(write_manifest(tmp_path, [KERNEL], targets=["80"], ptxas="release 13.0, V13.0.88"))
    manifest.check(86, 13000)
    with pytest.raises(CudaAbsent, match=r"no kernel runs on compute capability 9\.0; they are compiled for 80"):
        manifest.check(90, 13000)
    with pytest.raises(CudaAbsent, match=r"supports CUDA 12\.8, .* by CUDA 13: update the driver"):
        manifest.check(86, 12080)
    with pytest.raises(CudaAbsent, match="no kernel runs"):
        Manifest(tmp_path, "", "", {}).check(90, 13000)


def test_ptx_asks_for_no_version_of_the_driver(tmp_path: Path) -> None:
    Manifest.read(write_manifest(tmp_path, [KERNEL], targets=["ptx80"], ptxas="13.0")).check(90, 12080)


def test_a_file_that_is_missing_or_changed_is_refused(tmp_path: Path) -> None:
    binary = Manifest.read(write_manifest(tmp_path, [KERNEL])).entry("double").binary(90)
    binary.path.write_bytes(binary.path.read_bytes() + b"\0")
    with pytest.raises(CudaAbsent, match=r"not the one of its manifest: run \./build\.sh kernels"):
        binary.read()
    binary.path.unlink()
    with pytest.raises(CudaAbsent, match="cannot be read"):
        binary.read()


def test_a_kernel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CudaAbsent, match="no compiled kernel 'triple'"):
        Manifest.read(write_manifest(tmp_path, [KERNEL])).entry("triple")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "another version than 1"),
        ({"kernels": None}, "not a manifest"),
        ({"ptxas": "?"}, "no version of ptxas"),
        ({"kernels": {"double": {}}}, "not a manifest"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = write_manifest(tmp_path, [KERNEL])
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CudaAbsent, match=why):
        Manifest.read(path)


@pytest.mark.parametrize("change", [{"block": 128}, {"scratch": 0}])
def test_a_launch_that_is_not_known_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    path = write_manifest(tmp_path, [KERNEL])
    content = json.loads(path.read_text())
    content["kernels"]["double"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(CudaAbsent, match="launched otherwise"):
        Manifest.read(path)


def test_a_missing_or_broken_manifest(tmp_path: Path) -> None:
    with pytest.raises(CudaAbsent, match=r"cannot be read .*: run \./build\.sh kernels"):
        Manifest.read(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CudaAbsent, match="cannot be read"):
        Manifest.read(tmp_path / "manifest.json")
