"""aarch64 boards: what they would install resolves, no code takes the processor for granted, doctor tells of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from matchcut.kernels.cuda import CudaAbsent, Manifest
from matchcut.server import board, checkup
from matchcut.server.__main__ import main
from matchcut.server.config import Config

ROOT = Path(__file__).parents[1]
OLDEST_PYTHON = "3.11"
# Wheels for glibc 2.28 (Debian 10, RHEL 8) and older run there; pip is told each name that they may have.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 29)] + ["manylinux2014_aarch64"]


def resolve(out: Path, *options: str) -> tuple[int, str]:
    """Lets pip find what it would install, without installing it; its exit code and what it says."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--dry-run"]
    command += ["--ignore-installed", "--only-binary=:all:", "--report", str(out), "--target", str(out.parent / "none")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240)
    return done.returncode, done.stderr


def test_what_is_needed_has_wheels_for_aarch64(tmp_path: Path) -> None:
    """pip looks at markers as of the machine it runs on, so those of the base dependencies are looked at here."""
    wanted, report = board.base("aarch64"), tmp_path / "report.json"
    assert {re.split("[<>=]", one)[0] for one in wanted} >= {"av", "grpcio", "numpy", "onnxruntime", "pillow", "rich"}
    assert not any(one.startswith("openvino") for one in wanted)
    there = [option for name in PLATFORMS for option in ("--platform", name)]
    code, said = resolve(report, *there, "--python-version", OLDEST_PYTHON, *wanted)
    if code and resolve(tmp_path / "control.json", "--no-deps", "pillow")[0]:
        pytest.skip("the package index cannot be reached from here, not even for this machine's own wheels")
    assert code == 0, said
    files = [each["download_info"]["url"].rsplit("/", 1)[1] for each in json.loads(report.read_text())["install"]]
    native = [name for name in files if not name.endswith("-any.whl")]
    assert {re.split("-", name)[0] for name in native} >= {"av", "grpcio", "numpy", "onnxruntime", "pillow"}
    assert all("aarch64" in name for name in native), native


# A machine of another kind, as far as Python can tell: no OpenVINO, and a scan library that cannot be loaded.
ELSEWHERE = """
import platform, sys
platform.machine = platform.processor = lambda: "aarch64"
sys.modules["openvino"] = None
from pathlib import Path
from matchcut.kernels.native import shared_library
shared_library.path = lambda: Path("/nowhere")
from matchcut.server.engines import memory
memory.CPUINFO = Path(sys.argv[1])
from matchcut.server.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
CPUINFO = "processor\\t: 0\\nBogoMIPS\\t: 108.00\\nFeatures\\t: fp asimd aes crc32 asimddp\\nCPU part\\t: 0xd0b\\n\\n"


def elsewhere(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    command = [sys.executable, "-c", ELSEWHERE, str(cpuinfo), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_doctor_on_another_processor(small_encoder: Path, tmp_path: Path) -> None:
    options = ["--encoder", str(small_encoder), "--data", str(tmp_path / "d"), "--cache", str(tmp_path / "c")]
    done = elsewhere(tmp_path, "doctor", "--json", "--device", "cpu", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["what"]: (one["state"], one["detail"]) for one in json.loads(done.stdout)["findings"]}
    assert found["CPU"] == ("found", "aarch64")
    assert found["scan numpy"][0] == "chosen"
    assert found["scan library"][0] == "absent"
    assert found["engine onnxruntime"][0] == "available"
    assert found["engine openvino"][0] == "absent"


def test_a_server_on_another_processor(media: Path, small_encoder: Path, tmp_path: Path) -> None:
    """It measures engines, takes what is there, decodes, encodes and ranks."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    options = ["--listen", "127.0.0.1:0", "--device", "cpu", "--encoder", str(small_encoder), "--log-level", "info"]
    options += ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-c", ELSEWHERE, str(cpuinfo), "serve", *options]
    from matchcut.client import Client

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "serving on " in line), "")
            with Client(line.split()[-1]) as client:
                client.ingest("bikes", media / "bikes.mp4")
                ranking = client.recommend(clip=media / "bikes.mp4")
            assert ranking.matches[0].item.id == "bikes"
            by = {stage.name: stage.variant for stage in ranking.times.stages}
            assert by["rank"] == "cpu-numpy"
            assert by["encode"] == "onnxruntime-fp32"
        finally:
            process.terminate()
            said = process.communicate(timeout=30)[1]
    assert "ranking by cpu-numpy" in said
    assert "engine onnxruntime-fp32 is the fastest" in said


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code of doctor --for aarch64, and {what: (state, detail)}."""
    code = main(["doctor", "--for", "aarch64", "--json", *arguments])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["serves"] is (code == 0)
    return code, {one["what"]: (one["state"], one["detail"]) for one in document["findings"]}


def test_doctor_tells_of_a_board(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "--profile", "edge")
    assert code == 0
    assert [what for what in found if what.startswith("scan ")] == [f"scan {name}" for name in board.SCANS]
    assert found["profile"][1].startswith("edge: threads 1, ")
    assert found["engine onnxruntime"][0] == "chosen"
    assert found["engine openvino"][0] == "absent"
    assert found["encoder"] == ("found", "efficientnet-lite0 57934424-int8, the same bytes as on any machine")
    state, detail = found["GPU kernels"]
    assert (state, "Jetson Orin" in detail) == ("available", True), "run ./build.sh kernels"


@pytest.mark.parametrize(
    ("options", "what"),
    [(("--scan", "avx2"), "scan avx2"), (("--engine", "openvino"), "engine openvino")],
)
def test_doctor_tells_what_a_board_does_not_have(
    capsys: pytest.CaptureFixture[str], options: tuple[str, str], what: str
) -> None:
    code, found = told(capsys, *options)
    assert code == 1
    assert "profile" not in found
    assert found[what][0] == "broken"
    assert [name for name, (state, _) in found.items() if state == "broken"] == [what]


def test_scans_are_those_of_the_library() -> None:
    """The names, and their order, as the C source has them for Arm."""
    source = (ROOT / "kernels" / "native" / "variants.c").read_text()
    arm = source[source.index("} all[] = {") :].partition("__aarch64__")[2].partition("};")[0]
    assert [*re.findall(r"&mc_(\w+),", arm), "numpy"] == list(board.SCANS)


def test_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path | None = None) -> Manifest:
        raise CudaAbsent("they were not compiled")

    monkeypatch.setattr(Manifest, "read", none)
    assert board.orin() == checkup.Finding("GPU kernels", "absent", "they were not compiled")
    assert board.examine(Config())[-1].state == "absent"
