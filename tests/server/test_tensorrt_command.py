"""`matchcut engine`: from the command line to an encoder in another precision and an engine for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchcut.server import models
from matchcut.server.__main__ import main
from matchcut.server.engines import registry
from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.models import measured
from matchcut.server.precision import Gate, gate
from support.tensorrt_rtx import needed


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A small encoder with two convolutions."""
    rng = np.random.default_rng(0)
    constants = {"w1": (8, 3, 4, 4), "w2": (24, 8, 3, 3)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.2).astype(np.float32), name)
        for name, shape in constants.items()
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["c1"], name="first", strides=[4, 4]),
            helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second"),
            helper.make_node("GlobalAveragePool", ["c2"], ["pool"], name="pool"),
            helper.make_node("Flatten", ["pool"], ["embedding"], name="flat"),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 24])],
        weights,
    )
    folder = tmp_path / "plain"
    folder.mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "small.onnx"
    )
    (folder / "small.toml").write_text(
        'name = "small"\nversion = "3"\ndimensions = 24\n[input]\nwidth = 32\nheight = 32\nlayout = "NCHW"\n'
        "mean = [127, 127, 127]\nstd = [128, 128, 128]\n"
    )
    return folder / "small.onnx"


@pytest.fixture
def clips(media: Path) -> list[str]:
    return [str(media / name) for name in ("bikes.mp4", "world.mp4")]


Run = Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `matchcut engine`; gives the exit code, what was shown, and what was said of it."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main(["engine", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.mark.parametrize("which", ["fp16", "bf16", "int8"])
def test_another_precision(run: Run, encoder: Path, clips: list[str], tmp_path: Path, which: str) -> None:
    out = tmp_path / which
    code, shown, _ = run("precision", encoder, "--precision", which, "--frames", *clips, "--out", out)
    assert code == 0
    assert f"{which} against float32 on 41 frames held out: cosine 0." in shown.replace("cosine 1.", "cosine 0.")
    assert "of 2 layers in float32" in shown
    assert f"wrote {out / 'small.onnx'}" in shown
    made = models.load(out / "small.onnx")
    assert re.fullmatch(rf"3-{which}-[0-9a-f]{{8}}", made.identity.version)
    assert measured.facts(made.path)["passed"] is True
    code, _, said = run("precision", encoder, "--precision", which, "--frames", *clips, "--out", out)
    assert code == 2
    assert f"{out} is there already; give another folder" in said


def test_below_the_gate(
    run: Run, encoder: Path, clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.GATES, "fp16", Gate(1.1))
    asked = ("precision", encoder, "--precision", "fp16", "--frames", *clips, "--out", tmp_path / "out")
    code, _, said = run(*asked)
    assert code == 1
    assert "fp16 is below the gate: cosine" in said
    assert "--force" in said
    assert not (tmp_path / "out").exists()
    code, shown, _ = run(*asked, "--force")
    assert code == 0
    assert "BELOW THE GATE, forced" in shown


def test_without_frames_of_ones_own(run: Run, encoder: Path, tmp_path: Path) -> None:
    code, shown, said = run("precision", encoder, "--precision", "fp16", "--out", tmp_path / "fp16")
    assert code == 0
    assert "fp16 against float32 on 4 frames held out" in shown
    assert "overlap" not in shown
    assert "judged on the few pictures that come with matchcut; --frames takes clips of yours" in said
    assert measured.facts(tmp_path / "fp16" / "small.onnx")["frames"]["held_out"] == 4
    code, _, said = run("precision", encoder, "--precision", "int8", "--out", tmp_path / "int8")
    assert code == 2
    assert " frames calibrate, and the overlap of neighbours takes 22; give more media with --frames" in said
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames"], "expected at least one argument"),
        (["--frames", "none.mp4"], "none.mp4 cannot be read: No such file"),
        (["--frames", "none.mp4", "--rate", "0"], "--rate must be at least 0.001"),
        (["--frames", "none.mp4", "--rate", "nan"], "--rate must be at least 0.001"),
        (["--frames", "none.mp4", "--max-frames", "3"], "--max-frames must be at least 4"),
    ],
)
def test_what_is_asked_wrongly(
    run: Run, capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    asked = ("precision", encoder, "--precision", "fp16", "--out", tmp_path / "out", *arguments)
    try:
        code, _, said = run(*asked)
    except SystemExit as end:
        code, said = int(end.code or 0), capsys.readouterr().err
    assert code == 2
    assert message in said
    assert not (tmp_path / "out").exists()


@needed
def test_an_engine_beside_its_encoder(run: Run, encoder: Path) -> None:
    code, shown, said = run("build", encoder)
    assert (code, said) == (0, "")
    engine = encoder.parent / "small-tensorrt_rtx-fp32-sm80_86_89_120-b1_8_32.engine"
    assert f"built {engine}" in shown
    assert "for compute capability 8.0, 8.6, 8.9, 12.0, batch 1:8:32" in shown
    assert engine.is_file()
    code, shown, said = run("build", encoder, "--target", "89", "--json")
    told = json.loads(shown)
    assert (code, said) == (0, "")
    assert told["engine"]["fresh"] is False
    assert told["engine"]["engine"] == engine.name
    assert told["precision"] is None
    code, shown, said = run("build", encoder, "--target", " 89, 120", "--batch", "1:1:4", "--json")
    assert code == 0
    assert f"matchcut: the engine {engine} is not used: it was built for batches of 1:8:32, not 1:1:4" in said
    told = json.loads(shown)["engine"]
    assert (told["fresh"], told["targets"]) == (True, [89, 120])
    assert not engine.exists()
    code, shown, said = run("build", encoder, "--target", "90")
    assert code == 2
    assert "does not build for compute capability 9.0, only for 75, 80, 86, 89, 120" in said


@needed
@pytest.mark.parametrize("which", ["fp16", "bf16", "int8"])
def test_the_precision_is_written_first(run: Run, encoder: Path, clips: list[str], tmp_path: Path, which: str) -> None:
    out = tmp_path / "out"
    asked = ("build", encoder, "--precision", which, "--frames", *clips, "--out", out, "--target", "86,120")
    code, shown, _ = run(*asked)
    assert code == 0
    name = f"small-tensorrt_rtx-{which}-sm86_120-b1_8_32.engine"
    assert f"built {out / name}" in shown
    assert f"{which} against float32" in shown
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [name, "manifest.json", "precision.json", "small.onnx", "small.toml"]
    )
    kept = json.loads((out / "manifest.json").read_text())
    assert kept["precision"] == which
    assert kept["measured"]["figures"] == measured.facts(out / "small.onnx")["figures"]
    before = (out / "small.onnx").stat().st_mtime_ns
    code, shown, _ = run(*asked[:4], "--out", out, "--target", "86,120")
    assert code == 0
    assert f"there is {out / name}" in shown
    assert (out / "small.onnx").stat().st_mtime_ns == before
    # From the converted file itself, which says what it is.
    code, shown, said = run("build", out / "small.onnx", "--target", "80")
    assert code == 0
    assert "it was built for compute capability 8.6, 12.0, not 8.0" in said
    other = "bf16" if which == "fp16" else "fp16"
    code, _, said = run("build", out / "small.onnx", "--precision", other, "--frames", *clips, "--out", tmp_path / "x")
    assert code == 2
    assert f"is in {which} already; give the encoder in float32 to get {other}" in said


@needed
def test_into_another_folder(run: Run, encoder: Path, clips: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert run("build", encoder, "--out", out, "--target", "86")[0] == 0
    assert models.load(out / "small.onnx").identity == models.load(encoder).identity
    assert sorted(path.name for path in encoder.parent.iterdir()) == ["small.onnx", "small.toml"]
    code, shown, _ = run("build", encoder, "--out", out, "--target", "86")
    assert code == 0
    assert "there is" in shown
    code, _, said = run("build", encoder, "--precision", "fp16", "--frames", *clips)
    assert code == 2
    assert "an encoder in fp16 needs a folder of its own; give --out" in said
    code, _, said = run("build", encoder, "--precision", "fp16", "--frames", *clips, "--out", out)
    assert code == 2
    assert "is there already" in said


@needed
@pytest.mark.parametrize("target", ["", "x", "8.6", "86,", "-86", "99999"])
def test_targets_that_are_none(run: Run, encoder: Path, target: str) -> None:
    code, _, said = run("build", encoder, f"--target={target}")
    assert code == 2
    assert "give compute capabilities as 10 * major + minor" in said


def test_without_the_library(run: Run, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "NAMES", ("tensorrt_of_old",))
    code, _, said = run("build", encoder)
    assert code == 1
    assert "TensorRT cannot be used (No module named 'tensorrt_of_old'): pip install \"matchcut[tensorrt]\"" in said


@needed
def test_below_the_gate_and_forced_is_asked_again(
    run: Run, encoder: Path, clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.GATES, "fp16", Gate(1.1))
    out = tmp_path / "out"
    assert run("precision", encoder, "--precision", "fp16", "--frames", *clips, "--out", out, "--force")[0] == 0
    code, _, said = run("build", encoder, "--precision", "fp16", "--out", out, "--library", "tensorrt_rtx")
    assert code == 1
    assert "is below its gate, which was forced; take it with --force" in said


def test_doctor_names_the_libraries(
    capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("DATA", tmp_path / "data"), ("CACHE", tmp_path / "cache"), ("ENCODER", encoder)):
        monkeypatch.setenv(f"MATCHCUT_{name}", str(value))
    monkeypatch.setattr(registry, "version", {"tensorrt_rtx": "1.7.1.116"}.get)
    monkeypatch.setattr(registry, "versions", lambda: dict.fromkeys(registry.LIBRARIES, "1"))
    main(["doctor", "--device", "cpu", "--json"])
    found = {one["what"]: (one["state"], one["detail"]) for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["engine tensorrt-rtx"] == ("available", "1.7.1.116; it needs a GPU")
    assert found["engine tensorrt"] == ("absent", "it is not installed: pip install tensorrt")
