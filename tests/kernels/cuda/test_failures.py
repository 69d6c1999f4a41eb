"""What the driver refuses comes out typed, and what was lost stays lost; failures are injected by the simulation."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuda_sim.contexts import simulated_context, write_manifest
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import (
    Context,
    CudaAbsent,
    CudaError,
    DeviceLost,
    LaunchRefused,
    Manifest,
    OutOfDeviceMemory,
    Pending,
)
from matchcut.kernels.cuda.probe import Absent, Found, probe
from matchcut.kernels.gpu.spec import Kernel

NOTE = Kernel("note", lambda: None, {"x": "*u8"}, {})


def note(grid: tuple[int, ...], x: Any) -> None:
    x[0] = 1


@pytest.fixture
def context(simulation: Simulation) -> Iterator[Context]:
    with simulated_context([NOTE], stand_ins={"note": note}, memory=64 << 20) as opened:
        yield opened


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(write_manifest(tmp_path, [NOTE]))


# ---- memory ----


def test_too_much_memory(context: Context) -> None:
    kept = context.allocate(60 << 20)
    with pytest.raises(
        OutOfDeviceMemory, match=r"8388608 bytes of device memory .*: 4194304 of 67108864 are free"
    ) as got:
        context.allocate(8 << 20)
    assert isinstance(got.value, MemoryError)
    assert isinstance(got.value, CudaError)
    del kept
    context.allocate(8 << 20)  # as good as before


def test_the_pool_is_emptied_first(context: Context, simulation: Simulation) -> None:
    with context.lane() as lane:
        lane.temporary(8 << 20)
        lane.upload(np.zeros(1 << 20, np.uint8))
    assert (simulation.counts.blocks, simulation.counts.pinned) == (2, 1)
    kept = context.allocate(63 << 20)
    assert (simulation.counts.blocks, simulation.counts.pinned) == (1, 0)
    assert kept.nbytes == 63 << 20


def test_idle_memory_has_a_limit(context: Context, simulation: Simulation) -> None:
    """An eighth of the device's."""
    with context.lane() as lane:
        for _ in range(3):
            lane.temporary(4 << 20)
    context.allocate(1)
    assert 8 << 20 <= simulation.counts.used <= (8 << 20) + 512


def test_an_allocation_that_fails_once_is_tried_again(context: Context, simulation: Simulation) -> None:
    simulation.settings.fail_allocation = 1  # PyCUDA tries again by itself
    context.allocate(1)
    with context.lane() as lane:
        lane.temporary(1)
        simulation.settings.fail_pinned = 1
        lane.upload(np.zeros(1 << 20, np.uint8))


def test_out_of_memory_in_a_lane(context: Context) -> None:
    with context.lane() as lane:
        with pytest.raises(OutOfDeviceMemory):
            lane.temporary(65 << 20)
        buffer = lane.upload(np.arange(4))
        arrived = lane.download(buffer, (4,), np.int64)
    assert arrived.array().tolist() == [0, 1, 2, 3]
    with context.lane() as lane:
        with pytest.raises(OutOfDeviceMemory):
            lane.upload(np.zeros(65 << 20, np.uint8))
        lane.launch("note", (1,), lane.temporary(16))


def test_no_page_locked_memory(context: Context, simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    with context.lane() as lane:
        buffer = lane.temporary(1 << 20)
        monkeypatch.setattr(context._memory, "reclaim", lambda: setattr(simulation.settings, "fail_pinned", 1))
        simulation.settings.fail_pinned = 1
        with pytest.raises(OutOfDeviceMemory, match="cannot be page-locked"):
            lane.download(buffer, (1 << 20,), np.uint8)


# ---- launches and losses ----


@pytest.mark.parametrize("code", [214, 700, 702, 716, 719, 999])
@pytest.mark.parametrize("deferred", [True, False])
def test_a_launch_that_fails_loses_the_device(
    context: Context, simulation: Simulation, code: int, deferred: bool
) -> None:
    buffer = context.allocate(16)
    simulation.fail_launch(2, code, deferred=deferred)

    def work() -> None:
        with context.lane() as lane:
            lane.launch("note", (1,), buffer)
            lane.launch("note", (1,), buffer)
            assert deferred
            lane.fill(buffer, 0)

    with pytest.raises(DeviceLost):
        work()
    assert context.lost
    for again in (lambda: context.allocate(1), lambda: context.load("note"), context.memory):
        with pytest.raises(DeviceLost, match="lost before"):
            again()
    with pytest.raises(DeviceLost, match="lost before"), context.lane():
        pass


def test_a_failure_that_shows_when_the_lane_is_left(context: Context, simulation: Simulation) -> None:
    simulation.fail_launch(1)
    with (
        pytest.raises(DeviceLost, match="cuStreamSynchronize failed: unspecified launch failure"),
        context.lane() as lane,
    ):
        lane.launch("note", (1,), context.allocate(16))
    assert context.lost


def test_the_first_failure_is_the_one_that_is_told(context: Context, simulation: Simulation) -> None:
    arrived: list[Pending] = []

    def work() -> None:
        with context.lane() as lane:
            arrived.append(lane.download(context.allocate(16), (1,), np.uint8))
            simulation.lose()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert context.lost
    with pytest.raises(RuntimeError):
        arrived[0].array()


def test_each_call_says_that_the_device_is_lost(context: Context, simulation: Simulation) -> None:
    buffer = context.allocate(1 << 20)
    with suppress(DeviceLost), context.lane() as lane:
        lane.mark("before")
        context.load("note")
        simulation.lose()
        for call in (
            lambda: lane.upload(np.zeros(8), buffer),
            lambda: lane.upload(np.zeros(1 << 17), buffer),
            lambda: lane.download(buffer, (1,), np.uint8),
            lambda: lane.fill(buffer, 0),
            lambda: lane.fill(buffer, 0, width=4),
            lambda: lane.copy(buffer, 0, buffer, 512, 16),
            lambda: lane.launch("note", (1,), buffer),
            lambda: lane.mark("after"),
            lambda: lane.times(),
            lambda: lane.temporary(2 << 20),
            lane.synchronize,
        ):
            with pytest.raises(DeviceLost, match="unspecified launch failure"):
                call()


@pytest.mark.parametrize("broken_pop", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_thread_may_end_after_a_loss(
    simulation: Simulation, manifest: Manifest, broken_pop: bool, inside: bool
) -> None:
    """PyCUDA aborts the process where a thread ends with a context on PyCUDA's stack."""
    context = Context.open(manifest=manifest)
    outcomes: list[type[BaseException]] = []

    def work() -> None:
        try:
            with context.lane() as lane:
                lane.temporary(1 << 20)
                if inside:
                    simulation.lose(broken_pop=broken_pop)
                lane.synchronize()
            if not inside:
                simulation.lose(broken_pop=broken_pop)
                with context.lane() as lane:
                    lane.synchronize()
        except CudaError as error:
            outcomes.append(type(error))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    context.close()
    assert outcomes == [DeviceLost, DeviceLost]


def test_two_threads_that_lose_it_at_once(simulation: Simulation, manifest: Manifest) -> None:
    context = Context.open(manifest=manifest)
    meeting = threading.Barrier(2)
    outcomes: list[type[BaseException]] = []

    def work() -> None:
        try:
            with context.lane() as lane:
                meeting.wait(10)
                simulation.lose(broken_pop=True)
                meeting.wait(10)
                lane.synchronize()
        except CudaError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    context.close()
    assert outcomes == [DeviceLost, DeviceLost]


def test_a_launch_with_too_many_resources_is_refused(context: Context, simulation: Simulation) -> None:
    with context.lane() as lane:
        simulation.fail_launch(1, 701)
        with pytest.raises(LaunchRefused, match="too many resources"):
            lane.launch("note", (1,), context.allocate(16))
        lane.launch("note", (1,), context.allocate(16))
    assert not context.lost


def test_what_is_nothing_of_all_this(context: Context) -> None:
    """A lane may only be used by the thread that it was given to."""
    with context.lane() as lane:
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                lane.fill(buffer, 0)
            except CudaError as error:
                raised.append(error)

        buffer = lane.temporary(16)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(10)
    assert [str(error) for error in raised] == ["cuMemsetD8Async failed: invalid device context"]
    assert not context.lost


# ---- what is missing ----


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("devices", 0, "sees no device; check CUDA_VISIBLE_DEVICES"),
        ("initial", 100, "cuInit failed with 100, no CUDA-capable device is detected"),
        ("initial", 803, "unsupported display driver"),
        ("driver", 11080, r"supports CUDA 11\.8, and .* assembled by CUDA 12: update the driver"),
        ("capability", 61, r"no kernel runs on compute capability 6\.1"),
    ],
)
def test_why_there_is_no_gpu(simulation: Simulation, manifest: Manifest, setting: str, value: int, why: str) -> None:
    setattr(simulation.settings, setting, value)
    with pytest.raises(CudaAbsent, match=why):
        Context.open(manifest=manifest)
    assert simulation.counts.contexts == 0


def test_an_ordinal_that_is_not_there(simulation: Simulation, manifest: Manifest) -> None:
    for ordinal in (1, -1):
        with pytest.raises(CudaAbsent, match=f"no GPU {ordinal}: the driver sees 1"):
            Context.open(ordinal, manifest=manifest)
    with pytest.raises(ValueError):
        Context.open(manifest=manifest, lanes=0)


def test_what_the_probe_tells(simulation: Simulation) -> None:
    simulation.settings.devices, simulation.settings.driver = 2, 12040
    simulation.settings.capability, simulation.settings.memory = 121, 5 << 30
    found = probe()
    assert isinstance(found, Found)
    assert found.driver == 12040
    assert [(gpu.ordinal, gpu.name, gpu.capability, gpu.memory, gpu.multiprocessors) for gpu in found.gpus] == [
        (ordinal, "matchcut simulation", 121, 5 << 30, 4) for ordinal in range(2)
    ]
    simulation.settings.devices = 0
    assert isinstance(probe(), Absent)


def test_without_pycuda(simulation: Simulation, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(CudaAbsent, match="PyCUDA is not installed: pip install pycuda"):
        Context.open(manifest=manifest)


def test_with_a_pycuda_that_does_not_load(
    simulation: Simulation, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Any:
        raise ImportError("undefined symbol: cuCtxCreate_v4")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(CudaAbsent, match=r"does not fit the driver, .*: undefined symbol: cuCtxCreate_v4"):
        Context.open(manifest=manifest)


def test_a_file_that_the_driver_does_not_take(simulation: Simulation, tmp_path: Path) -> None:
    with simulated_context([NOTE], manifest=Manifest.read(write_manifest(tmp_path, [NOTE]))) as context:
        simulation.settings.capability = 120  # behind the launcher's back
        with pytest.raises(CudaAbsent, match=r"does not load .*90-note: no kernel is compiled for this device"):
            context.load("note")
        assert not context.lost


def test_an_entry_that_is_not_in_the_file(simulation: Simulation) -> None:
    with simulated_context([NOTE]) as context:
        simulation.programs.clear()
        with pytest.raises(CudaError, match="named symbol not found"), context.lane() as lane:
            lane.launch("note", (1,), context.allocate(16))


def test_no_kernel_of_that_name(context: Context) -> None:
    with context.lane() as lane, pytest.raises(CudaAbsent, match="no compiled kernel 'other'"):
        lane.launch("other", (1,))
    with pytest.raises(CudaAbsent, match="no compiled kernel 'other'"):
        context.load("note", "other")
    with pytest.raises(CudaAbsent, match="no compiled kernel 'other'"):
        context.binary("other")
