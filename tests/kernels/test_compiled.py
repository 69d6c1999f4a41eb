"""The compiled kernels of this checkout: they are there, what they take of each GPU, and who needs the compiler."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import matchcut.kernels.gpu
from matchcut.kernels.compile.table import COLUMNS, written
from matchcut.kernels.compile.targets import FALLBACK, GPUS, TARGETS, blocks_per_multiprocessor, gpu_of, occupancy
from matchcut.kernels.gpu.spec import Kernel

ROOT = Path(__file__).parents[2]
CUBINS = ROOT / "kernels" / "cubins"
TABLE = ROOT / "kernels" / "gpu" / "resources.csv"


@pytest.mark.parametrize(
    ("target", "taken", "blocks"),
    [
        ("75", {"warps": 4, "registers": 32, "shared": 0}, 8),  # 32 warps
        ("75", {"warps": 1, "registers": 16, "shared": 0}, 16),  # 16 blocks
        ("75", {"warps": 4, "registers": 32, "shared": 32768}, 2),  # nothing is kept back of 64 kB
        ("80", {"warps": 4, "registers": 128, "shared": 0}, 4),  # 4096 registers a warp
        ("80", {"warps": 4, "registers": 129, "shared": 0}, 3),  # 4352
        ("80", {"warps": 8, "registers": 255, "shared": 0}, 1),
        ("86", {"warps": 4, "registers": 32, "shared": 49152}, 2),
        ("86", {"warps": 4, "registers": 32, "shared": 51200}, 1),  # with 1 kB kept back each: over half of 100 kB
        ("89", {"warps": 1, "registers": 16, "shared": 0}, 24),
        ("90", {"warps": 4, "registers": 40, "shared": 115712}, 2),  # 113 kB and 1 kB, twice
        ("100", {"warps": 4, "registers": 40, "shared": 0, "columns": 256}, 2),
        ("120", {"warps": 32, "registers": 64, "shared": 0}, 1),  # 48 warps
        ("120", {"warps": 32, "registers": 96, "shared": 0}, 0),
    ],
)
def test_occupancy_is_what_the_hardware_allows(target: str, taken: dict[str, int], blocks: int) -> None:
    assert blocks_per_multiprocessor(GPUS[target], **taken) == blocks
    entry = {"columns": 0, **taken}
    assert occupancy(target, taken["warps"], entry)[:2] == (blocks, blocks * taken["warps"])


def real() -> dict[str, Kernel]:
    """The kernels of the checkout."""
    package = matchcut.kernels.gpu
    modules = [
        importlib.import_module(f"{package.__name__}.{it.name}") for it in pkgutil.iter_modules(package.__path__)
    ]
    return {kernel.name: kernel for module in modules for kernel in getattr(module, "KERNELS", ())}


@pytest.fixture(scope="module")
def entries() -> dict[str, Any]:
    """What the manifest in the checkout says of each kernel."""
    path = CUBINS / "manifest.json"
    if not path.is_file():
        pytest.fail(f"{path} is missing: run ./build.sh kernels")
    kernels: dict[str, Any] = json.loads(path.read_text())["kernels"]
    return kernels


def test_the_kernels_of_the_checkout_are_compiled(entries: dict[str, Any]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON")}
    command = [sys.executable, "-m", "matchcut.kernels.compile", "--check"]
    done = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, f"run ./build.sh kernels:\n{done.stderr}"
    wanted = {
        name: [target for target in TARGETS if kernel.fits(gpu_of(target).capability)]
        for name, kernel in real().items()
    }
    assert {name: list(entry["targets"]) for name, entry in entries.items()} == wanted
    for name, kernel in real().items():  # what is for one generation stands beside what is for all
        assert (FALLBACK in wanted[name]) == (kernel.newest > 200)


def test_nothing_spills_on_ampere_and_later(entries: dict[str, Any]) -> None:
    spilled = {
        (name, target): made["spills"]
        for name, entry in entries.items()
        for target, made in entry["targets"].items()
        if target not in ("75", FALLBACK) and made["spills"]
    }
    assert not spilled


def test_each_kernel_fits_on_each_gpu(entries: dict[str, Any]) -> None:
    for name, entry in entries.items():
        for target in entry["targets"].keys() & GPUS.keys():
            assert occupancy(target, entry["warps"], entry["targets"][target])[0] >= 1, (name, target)


def test_the_committed_table_is_that_of_these_kernels(entries: dict[str, Any]) -> None:
    said, wanted = TABLE.read_text(encoding="utf-8").splitlines(), written(entries).splitlines()
    assert said[0] == ",".join(COLUMNS)
    changed = sorted({line.split(",")[0] for line in set(said) ^ set(wanted)})
    assert said == wanted, f"{changed}: run python -m matchcut.kernels.compile --table"


def test_what_serves_needs_no_triton() -> None:
    modules = ["matchcut.kernels.device", "matchcut.server.app", "matchcut.server.__main__"]
    if (ROOT / "kernels" / "cuda").is_dir():
        modules.append("matchcut.kernels.cuda")
    code = f"import sys, {', '.join(modules)}; print(sorted(name for name in sys.modules if 'triton' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
