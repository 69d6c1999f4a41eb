"""A GPU opened as a device on the simulated driver: what is loaded, and why it may be refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cuda_sim.contexts import simulated_context, write_manifest
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Context, Manifest
from matchcut.kernels.cuda.opening import Refused, open_cuda
from matchcut.kernels.device import open_device, pick
from matchcut.kernels.gpu.spec import Kernel

NAMES = ("scan_int8_16", "scan_fp32_16", "pool_mean_512", "kth_4096")
KERNELS = [Kernel(name, lambda: None, {"x": "*u8"}, {}) for name in NAMES]
KERNELS.append(Kernel("preprocess_rgb_bf16", lambda: None, {"x": "*u8"}, {}, oldest=80))


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The kernels that there are, for all that read one."""
    made = Manifest.read(write_manifest(tmp_path, KERNELS))
    monkeypatch.setattr(Manifest, "read", lambda: made)
    return made


@pytest.mark.parametrize(("capability", "scan", "loaded"), [(90, "int8", 4), (90, "bf16", 3), (75, "fp32", 3)])
def test_what_may_run_is_loaded(
    simulation: Simulation,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
    scan: str,
    loaded: int,
) -> None:
    kernels = [kernel for kernel in KERNELS if kernel.fits(capability)]
    nothing = {kernel.name: lambda *_: None for kernel in kernels}
    with simulated_context(kernels, stand_ins=nothing, capability=capability, manifest=manifest) as context:
        monkeypatch.setattr(Context, "open", lambda ordinal: context)
        device = open_device("cuda:0", scan=scan)
        assert (device.variant, device.scan) == (f"cuda-{capability}", f"cuda-{scan}")
        assert device.title == f"matchcut simulation, compute capability {capability / 10}"
        assert simulation.counts.modules == loaded


def test_a_damaged_file_is_found_at_the_start(simulation: Simulation, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / f"90-{NAMES[0]}").write_bytes(b"")
    opened = open_cuda(0, "auto")
    assert isinstance(opened, Refused)
    assert "is not the one of its manifest" in opened.why
    assert opened.odd
    assert simulation.counts.contexts == 0


def test_without_pycuda(simulation: Simulation, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    choice = pick("auto")
    assert choice.device.name == "cpu"
    assert choice.odd
    assert choice.why.startswith("PyCUDA is not installed: pip install pycuda")


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("devices", 0, "the NVIDIA driver sees no device"),
        ("initial", 803, "the NVIDIA driver does not work"),
        ("driver", 11080, r"the driver supports CUDA 11\.8"),
    ],
)
def test_a_driver_that_is_there_and_of_no_use(
    simulation: Simulation, manifest: Manifest, setting: str, value: int, why: str
) -> None:
    setattr(simulation.settings, setting, value)
    choice = pick("auto")
    assert choice.device.name == "cpu"
    assert why.replace("\\", "") in choice.why
    assert choice.odd, "there is a driver"
