"""The simulation notices what a GPU would not forgive, and the kernels that are really compiled run on it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cuda_sim.build import built
from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Context, CudaError, DeviceLost, Lane, Manifest
from matchcut.kernels.cuda.manifest import CUBINS
from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.gpu.topk import KERNELS as TOPK

WRITE = Kernel("write", lambda: None, {"x": "*i32", "at": "i32"}, {}, warps=2)


def write(grid: tuple[int, ...], x: Any, at: int) -> None:
    if at < 0:
        raise ZeroDivisionError("in the kernel")
    ctypes.memset(x.ctypes.data + 4 * at, 1, 4)


def caught(work: Callable[[Context, Lane], None], reason: str) -> None:
    """Asserts that the simulation complains in the end."""
    with (
        pytest.raises(AssertionError, match=reason),
        simulated_context([WRITE], stand_ins={"write": write}) as context,
        context.lane() as lane,
    ):
        work(context, lane)


def test_a_kernel_that_writes_behind_its_memory(simulation: Simulation, capfd: pytest.CaptureFixture[str]) -> None:
    caught(lambda context, lane: lane.launch("write", (1,), context.allocate(16), 70), "wrote behind its memory")
    assert "matchcut simulation: written behind a block of 256 bytes" in capfd.readouterr().err


def test_a_kernel_that_fails(simulation: Simulation) -> None:
    caught(lambda context, lane: lane.launch("write", (1,), context.allocate(16), -1), "in the kernel")


def test_a_pointer_to_what_is_no_device_memory(simulation: Simulation) -> None:
    caught(lambda context, lane: lane.launch("write", (1,), 4096, 0), "x is no device memory")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("block", "a block of"),
        ("shared", "bytes of shared memory"),
        ("largest", "49152 allowed"),
        ("pack", "bytes of arg"),
    ],
)
def test_a_launch_that_does_not_fit_the_manifest(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    """As if the launcher were wrong."""

    def work(context: Context, lane: Lane) -> None:
        function = context._modules.load("write")
        if change == "block":
            function.block = (32, 1, 1)
        elif change == "pack":
            monkeypatch.setattr(type(function), "pack", lambda self, arguments: bytes(64))
        else:
            monkeypatch.setattr(type(function), "shared", 65536)
            if change == "largest":
                object.__setattr__(simulation.programs["write"].binary, "shared", 65536)
        lane.launch("write", (1,), context.allocate(16), 0)

    caught(work, reason)


def test_memory_that_is_fresh_is_not_zero(simulation: Simulation) -> None:
    with simulated_context() as context, context.lane() as lane:
        arrived = lane.download(lane.temporary(8), (8,), np.uint8)
        lane.synchronize()
        assert (arrived.array() == 0xA5).all()


def test_work_is_put_off_until_somebody_waits(simulation: Simulation) -> None:
    with simulated_context([WRITE], stand_ins={"write": write}) as context, context.lane() as lane:
        lane.launch("write", (1,), context.allocate(16), 0)
        assert (len(simulation.launches), simulation.counts.operations) == (1, 0)
        lane.synchronize()
        assert simulation.counts.operations == 1


def test_what_the_launcher_never_calls_is_not_supported(simulation: Simulation) -> None:
    driver: Any = __import__("pycuda.driver").driver
    with simulated_context() as context, context.lane(), pytest.raises(driver.LogicError, match="not supported"):
        driver.start_profiler()
    assert built().name == "libcuda.so.1"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    if not (CUBINS / "manifest.json").is_file():
        pytest.fail("no kernels are compiled: run ./build.sh kernels")
    return Manifest.read(CUBINS / "manifest.json")


@pytest.mark.parametrize(
    ("capability", "target"),
    [
        *((int(exact), exact) for exact in ("75", "80", "86", "87", "89", "90", "100", "120")),
        *((88, "86"), (103, "ptx80"), (121, "ptx80")),
    ],
)
def test_compiled_kernels_load_and_run(
    simulation: Simulation, manifest: Manifest, capability: int, target: str
) -> None:
    """The very files, picked, checked and loaded; what runs is the same source in Triton's interpreter."""
    (kernel,) = (one for one in TOPK if one.name == "kth_4096")
    scores = np.random.default_rng(capability).uniform(1, 2, (2, 4096)).astype(np.float32)
    with simulated_context([kernel], capability=capability, manifest=manifest) as context:
        assert context.binary(kernel.name).target == target
        with context.lane() as lane:
            tau = lane.temporary(8)
            lane.launch(
                kernel.name,
                (2,),
                lane.upload(scores.view(np.int32)),  # positive: ordered as they are
                lane.upload(np.zeros(2, np.float32)),
                lane.upload(np.full(2, -np.inf, np.float32)),
                tau,
                10,
            )
            arrived = lane.download(tau, (2,), np.float32)
        short = np.sort(scores)[:, -10] - arrived.array()  # it may leave out the last bits
        assert ((short >= 0) & (short < 2**-12)).all()
        assert simulation.launches[0].block == (256, 1, 1)


@pytest.mark.parametrize("capability", [75, 80, 86, 87, 89, 90, 100, 120, 130])
def test_all_compiled_kernels_are_taken(simulation: Simulation, manifest: Manifest, capability: int) -> None:
    specs = [
        Kernel(name, lambda: None, dict(entry.arguments), entry.constants, entry.aligned, entry.warps)
        for name, entry in manifest.kernels.items()
    ]
    specs = [spec for spec in specs if runs_on(manifest, spec.name, capability)]
    with simulated_context(specs, capability=capability, manifest=manifest) as context:
        context.load(*(spec.name for spec in specs))
        assert simulation.counts.loads == len(specs) > 0


def runs_on(manifest: Manifest, name: str, capability: int) -> bool:
    try:
        return bool(manifest.entry(name).binary(capability))
    except CudaError:
        return False


def test_a_lost_device_is_told_from_a_wrong_launch(simulation: Simulation) -> None:
    def work() -> None:
        with simulated_context([WRITE], stand_ins={"write": write}) as context:
            simulation.lose()
            context.allocate(16)

    with pytest.raises(DeviceLost):
        work()
