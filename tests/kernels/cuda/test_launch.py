"""Launches: how arguments are packed, and what is refused before the driver sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda.errors import CudaAbsent, LaunchRefused
from matchcut.kernels.gpu.spec import Kernel


def nothing(*_: object) -> None: ...


_SIGNED = {f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_UNSIGNED = {f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
# One byte, then eight, then two ...: so that there are gaps between them.
SCALARS = dict(pair for pairs in zip(_SIGNED.items(), [*_UNSIGNED.items()][::-1], strict=True) for pair in pairs)
SCALARS["i1"] = (0, 1)
ALL = Kernel("all", nothing, {"a": "*fp32", **{f"v_{kind}": kind for kind in SCALARS}, "b": "*u8"}, {}, warps=2)
FLOATS = Kernel("floats", nothing, {"one": "i8", "single": "fp32", "two": "i8", "double": "fp64"}, {})
SUM = Kernel("sum", nothing, {"x": "*fp32", "out": "*fp32", "n": "i32"}, {}, frozenset({"n"}))
LAST = Kernel("last", nothing, {"x": "*fp32", "n": "i32"}, {})


def total(grid: tuple[int, ...], x: Any, out: Any, n: int) -> None:
    out[0] = x[:n].sum()


@pytest.mark.parametrize("end", [0, 1])
def test_each_integer_type_reaches_the_driver(simulation: Simulation, end: int) -> None:
    with simulated_context([ALL], stand_ins={"all": nothing}) as context, context.lane() as lane:
        a, b = context.allocate(64), context.allocate(64)
        values = [ends[end] for ends in SCALARS.values()]
        lane.launch("all", (3, 2, 1), a, *values, b.at(16))
        (launch,) = simulation.launches
        assert launch.values == (a.address, *values, b.address + 16, 0, 0)
        assert (launch.grid, launch.block) == ((3, 2, 1), (64, 1, 1))


def test_floating_point_values_and_the_gaps_before_them(simulation: Simulation) -> None:
    with simulated_context([FLOATS], stand_ins={"floats": nothing}) as context, context.lane() as lane:
        lane.launch("floats", (1,), 1, 0.5, -1, 1e300)
        lane.launch("floats", (1,), np.int64(1), np.float32(0.5), np.int8(-1), float("inf"))
        lane.launch("floats", (1,), 1, 1, True, 2)
        assert [launch.values[:4] for launch in simulation.launches] == [
            (1, 0.5, -1, 1e300),
            (1, 0.5, -1, float("inf")),
            (1, 1.0, 1, 2.0),
        ]


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("step", [-1, 1])
def test_an_integer_out_of_range_is_refused(simulation: Simulation, kind: str, step: int) -> None:
    kernel = Kernel("one", nothing, {"value": kind}, {})
    value = SCALARS[kind][step > 0] + step
    with simulated_context([kernel], stand_ins={"one": nothing}) as context, context.lane() as lane:
        with pytest.raises(LaunchRefused, match=f"the kernel one takes .* for value, not {value}"):
            lane.launch("one", (1,), value)
        assert not simulation.launches


@pytest.mark.parametrize(
    ("kernel", "arguments", "why"),
    [
        (FLOATS, (0.5, 0.5, 0, 0.5), "takes i8 for one, not 0.5"),
        (FLOATS, (0, "x", 0, 0.5), "takes fp32 for single"),
        (FLOATS, (0, None, 0, 0.5), "takes fp32 for single"),
        (FLOATS, (0, 0.5, 0), r"takes 4 arguments \(one, single, two, double\), not 3"),
        (FLOATS, (0, 0.5, 0, 0.5, 0), "takes 4 arguments .*, not 5"),
        (LAST, (0, 1), "a multiple of 16 for x, not 0x0"),
        (LAST, (-16, 1), "a multiple of 16 for x"),
        (LAST, (4104, 1), "a multiple of 16 for x, not 0x1008"),
        (LAST, (1.0, 1), "takes a buffer or an address for x"),
        (LAST, (None, 1), "takes a buffer or an address for x"),
        (LAST, (np.zeros(4), 1), "takes a buffer or an address for x"),
        (LAST, (), "takes 2 arguments"),
        (SUM, (4096, 4096, 24), "compiled for a multiple of 16 for n, not 24"),
    ],
)
def test_what_does_not_fit_is_refused(simulation: Simulation, kernel: Kernel, arguments: Any, why: str) -> None:
    with simulated_context([kernel], stand_ins={kernel.name: nothing}) as context, context.lane() as lane:
        with pytest.raises(LaunchRefused, match=why):
            lane.launch(kernel.name, (1,), *arguments)
        assert not simulation.launches
        assert not context.lost


def test_a_buffer_at_an_odd_place_is_refused(simulation: Simulation) -> None:
    with simulated_context([LAST], stand_ins={"last": nothing}) as context, context.lane() as lane:
        buffer = context.allocate(1024)
        with pytest.raises(LaunchRefused, match="a multiple of 16 for x"):
            lane.launch("last", (1,), buffer.at(8), 1)
        lane.launch("last", (1,), buffer.at(16), 1)
        lane.launch("last", (1,), buffer.address + 32, 1)  # an address of somebody else's, too
        assert [launch.values[0] - buffer.address for launch in simulation.launches] == [16, 32]


def test_a_temporary_of_a_lane_that_was_left_is_refused(simulation: Simulation) -> None:
    with simulated_context([LAST], stand_ins={"last": nothing}) as context:
        with context.lane() as lane:
            old = lane.temporary(64)
        with context.lane() as lane, pytest.raises(LaunchRefused, match="x whose lane has been left"):
            lane.launch("last", (1,), old, 1)


@pytest.mark.parametrize("grid", [(1,), (65536,), (2**31 - 1,), (1, 65535), (1, 1, 65535)])
def test_grids_that_fit(simulation: Simulation, grid: tuple[int, ...]) -> None:
    with simulated_context([LAST], stand_ins={"last": nothing}) as context, context.lane() as lane:
        lane.launch("last", grid, context.allocate(16), 1)
        assert simulation.launches[0].grid == (*grid, 1, 1)[:3]


@pytest.mark.parametrize("grid", [(), (0,), (-1,), (2**31,), (1, 65536), (1, 0), (1, 1, 1, 1), (1, 1.5), ("x", 1)])
def test_grids_that_do_not(simulation: Simulation, grid: Any) -> None:
    with (
        simulated_context([LAST], stand_ins={"last": nothing}) as context,
        context.lane() as lane,
        pytest.raises(LaunchRefused, match="cannot be launched on a grid"),
    ):
        lane.launch("last", grid, context.allocate(16), 1)


@pytest.mark.parametrize("shared", [0, 48 << 10, (48 << 10) + 1, 227 << 10])
def test_shared_memory_beyond_48_kib_is_asked_for(simulation: Simulation, shared: int) -> None:
    stand_ins, sizes = {"last": nothing}, {"last": shared}
    with simulated_context([LAST], stand_ins=stand_ins, shared=sizes) as context, context.lane() as lane:
        lane.launch("last", (1,), context.allocate(16), 1)
        assert simulation.launches[0].shared == shared  # which the simulation refuses if it was not asked for


def test_more_shared_memory_than_the_device_has_is_refused(simulation: Simulation) -> None:
    with (
        simulated_context([LAST], stand_ins={"last": nothing}, shared={"last": (227 << 10) + 1}) as context,
        pytest.raises(CudaAbsent, match=r"last \(90\) needs 232449 bytes of shared memory, and this device has 232448"),
    ):
        context.load("last")


def test_a_module_is_loaded_once(simulation: Simulation) -> None:
    with simulated_context([LAST, SUM], stand_ins={"last": nothing, "sum": total}) as context:
        context.load("last")
        for _ in range(3):
            with context.lane() as lane:
                lane.launch("last", (1,), context.allocate(16), 1)
        assert simulation.counts.loads == 1
        context.load("sum", "last")
        assert simulation.counts.loads == 2


@pytest.mark.parametrize(("capability", "target"), [(86, "86"), (90, "90"), (88, "86"), (121, "ptx80")])
def test_the_device_decides_which_file_is_loaded(simulation: Simulation, capability: int, target: str) -> None:
    with simulated_context([SUM], stand_ins={"sum": total}, capability=capability) as context:
        assert (context.capability, context.binary("sum").target) == (capability, target)
        with context.lane() as lane:
            out = lane.temporary(4)
            lane.launch("sum", (1,), lane.upload(np.ones(32, np.float32)), out, 32)
            arrived = lane.download(out, (1,), np.float32)
        assert arrived.array() == 32


def test_a_type_that_cannot_be_packed_is_refused(simulation: Simulation) -> None:
    kernel = Kernel("half", nothing, {"value": "fp16"}, {})
    with (
        simulated_context([kernel], stand_ins={"half": nothing}) as context,
        pytest.raises(LaunchRefused, match="half takes fp16, which this launcher cannot pack"),
    ):
        context.load("half")


def test_a_kernel_without_arguments(simulation: Simulation) -> None:
    kernel = Kernel("bare", nothing, {}, {})
    with simulated_context([kernel], stand_ins={"bare": nothing}) as context, context.lane() as lane:
        lane.launch("bare", (1,))
        assert simulation.launches[0].values == (0, 0)
