"""The variants for Arm, run by an emulator of processors that have what they need, or lack it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from support.native import WARNINGS, driver

NATIVE = platform.machine() in ("aarch64", "arm64")
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    if NATIVE:
        return driver(folder, "gcc", "-O3", *WARNINGS)
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"{' and '.join(missing)} not found: apt-get install --no-install-recommends {PACKAGES}")
    return driver(folder, COMPILER, "-O3", "-static", *WARNINGS)


@pytest.mark.parametrize(
    ("processor", "ran", "lacks"),
    [
        ("max", ["i8mm", "dotprod", "scalar"], []),
        ("neoverse-n1", ["dotprod", "scalar"], ["i8mm: the processor has no Armv8.6 i8mm"]),
        (
            "cortex-a57",
            ["scalar"],
            ["i8mm: the processor has no Armv8.6 i8mm", "dotprod: the processor has no Armv8.2 dot product"],
        ),
    ],
)
def test_variants_that_a_processor_has_agree(program: Path, processor: str, ran: list[str], lacks: list[str]) -> None:
    command = [str(program), "9"] if NATIVE else [EMULATOR, "-cpu", processor, str(program), "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "shapes 9" in lines
    if NATIVE:  # this processor is what it is: each variant ran, or says why not
        assert sum(line.startswith(("ran ", "lacks ")) for line in lines) == 3
        assert "ran scalar" in lines
        return
    assert [line.removeprefix("ran ") for line in lines if line.startswith("ran ")] == ran
    assert [line.removeprefix("lacks ") for line in lines if line.startswith("lacks ")] == lacks
