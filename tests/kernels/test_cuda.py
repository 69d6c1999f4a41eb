"""Runs tests/kernels/cuda, each file in a process that has the simulated driver; and what a process without it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from matchcut.kernels.cuda import Context, CudaAbsent, Manifest
from matchcut.kernels.cuda.probe import Absent, probe

FOLDER = Path(__file__).parent / "cuda"
ROOT = FOLDER.parents[2]


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_on_the_simulated_driver(file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(FOLDER / file)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def test_this_process_has_no_simulated_gpu() -> None:
    found = probe()
    assert isinstance(found, Absent) or all("simulation" not in gpu.name for gpu in found.gpus)
    assert "cuda_sim" not in sys.modules


def test_without_a_driver_there_is_a_reason_and_no_import_error() -> None:
    assert probe("libmatchcut-is-no-driver.so") == Absent(
        "there is no NVIDIA driver (libmatchcut-is-no-driver.so is not there); on a machine with a GPU, install it"
    )
    if isinstance(probe(), Absent):
        with pytest.raises(CudaAbsent, match="NVIDIA"):
            Context.open(manifest=Manifest(FOLDER, "", "", {}))


def test_what_is_no_driver_is_not_taken_for_one() -> None:
    found = probe("libm.so.6")
    assert isinstance(found, Absent)
    assert "libm.so.6 is not a CUDA driver" in found.why
