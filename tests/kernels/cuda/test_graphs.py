"""Work that is recorded once and started again, on the simulated driver; with MATCHCUT_TEST_GPU=1 on a GPU instead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation, load
from matchcut.kernels.cuda import Context
from matchcut.kernels.cuda.errors import CudaError, DeviceLost, LaunchRefused, OutOfDeviceMemory
from matchcut.kernels.cuda.execute import Settled
from matchcut.kernels.cuda.graphs import Graph
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.gpu.preprocess import KERNELS
from matchcut.kernels.launch import preprocess as planning
from matchcut.kernels.launch.plan import Launch, Plan, Slot
from matchcut.kernels.preprocess import preprocess

GPU = os.environ.get("MATCHCUT_TEST_GPU") == "1"
simulated = pytest.mark.skipif(GPU, reason="needs the simulation")
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
SHAPE = (2, 3, 5, 3)


@pytest.fixture
def context(request: pytest.FixtureRequest) -> Iterator[Context]:
    if GPU:
        opened = Context.open()
        yield opened
        opened.close()
        return
    request.getfixturevalue("simulation")
    with simulated_context(KERNELS) as made:
        yield made


def pictures(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def wanted(seed: int) -> NDArray[Any]:
    return preprocess(pictures(seed), MEAN, STD, "NCHW")


class Prepared:
    """preprocess of two pictures, with all of its memory."""

    def __init__(self, context: Context, lane: Lane) -> None:
        plan = planning.plan(pictures(0), MEAN, STD, "NCHW")
        (pixels,), (out,) = plan.inputs, plan.outputs
        self.pixels, self.out, self.shape = context.allocate(pixels.nbytes), context.allocate(out.nbytes), out.shape
        self.settled = Settled(lane, context.allocate, plan, pixels=self.pixels, out=self.out)

    def recorded(self, lane: Lane) -> Graph:
        self.settled.launch(lane)  # which loads the kernel
        with lane.record() as recording:
            self.settled.launch(lane)
        return recording.graph

    def made(self, lane: Lane) -> NDArray[Any]:
        arriving = lane.download(self.out, self.shape, np.float32)
        lane.synchronize()
        return arriving.array()


def test_a_settled_plan_on_one_lane_after_another(context: Context) -> None:
    with context.lane() as lane:
        prepared = Prepared(context, lane)
    for seed in range(3):
        with context.lane() as lane:
            lane.upload(pictures(seed), prepared.pixels)
            prepared.settled.launch(lane)
            np.testing.assert_array_equal(prepared.made(lane), wanted(seed))


def test_what_is_recorded_is_not_done_and_then_done_again_and_again(context: Context) -> None:
    with context.lane() as lane:
        prepared = Prepared(context, lane)
        graph = prepared.recorded(lane)
        lane.fill(prepared.out, 0)
        assert not prepared.made(lane).any()
    for seed in range(3):
        with context.lane() as lane, context.lane() as other:
            work = other if seed == 1 else lane
            work.upload(pictures(seed), prepared.pixels)
            work.replay(graph)
            np.testing.assert_array_equal(prepared.made(work), wanted(seed))
    with context.lane() as lane:
        graph.destroy()
        graph.destroy()
        with pytest.raises(CudaError, match="the graph has been destroyed"):
            lane.replay(graph)


def test_what_fails_inside_leaves_the_lane_as_it_was(context: Context) -> None:
    with context.lane() as lane:
        prepared = Prepared(context, lane)
        lane.upload(pictures(1), prepared.pixels)
        with pytest.raises(LaunchRefused, match="takes 16 arguments"), lane.record():
            lane.launch("preprocess_rgb_fp32", (1,), *range(17))
        with pytest.raises(CudaError) as caught, lane.record():
            lane.synchronize()  # may not be waited for
        assert not isinstance(caught.value, DeviceLost)
        assert not context.lost
        prepared.settled.launch(lane)
        np.testing.assert_array_equal(prepared.made(lane), wanted(1))


@simulated
def test_memory_cannot_be_asked_for_meanwhile(context: Context) -> None:
    with context.lane() as lane:
        with pytest.raises(CudaError, match=r"\(90[01]\)|cuMemAlloc failed"), lane.record():
            context.allocate(1 << 20)
        lane.temporary(1 << 20)
        assert load().counts.graphs == 0


@simulated
def test_what_cannot_be_made(context: Context, simulation: Simulation) -> None:
    with context.lane() as lane:
        prepared = Prepared(context, lane)
        simulation.settings.fail_graph = 1
        with pytest.raises(OutOfDeviceMemory, match=r"cuGraphInstantiateWithFlags failed: .* \(2\)"):
            prepared.recorded(lane)
        assert simulation.counts.graphs == 0, "it was left"
        graph = prepared.recorded(lane)
        assert simulation.counts.graphs == 1
        graph.destroy()


@simulated
def test_a_lost_device_is_noticed(context: Context, simulation: Simulation) -> None:
    with context.lane() as lane:
        graph = Prepared(context, lane).recorded(lane)
    simulation.lose()
    told: list[type[BaseException]] = []
    with suppress(DeviceLost), context.lane() as lane:
        try:
            lane.replay(graph)
        except CudaError as error:
            told.append(type(error))
    assert told == [DeviceLost]
    assert context.lost
    graph.destroy()


def test_a_plan_that_cannot_be_settled(context: Context) -> None:
    counter, values = Slot("counter", (4,), "int32", zeroed=True), Slot("values", (4,), "float32")
    with context.lane() as lane:
        memory = context.allocate(16)
        plan = Plan((Launch("k", (1,), (counter,)),), (), (), 0)
        with pytest.raises(ValueError, match="counter has to be zero before each launch"):
            Settled(lane, context.allocate, plan, counter=memory)
        plan = Plan((Launch("k", (1,), (values,)),), (values,), (), 0)
        with pytest.raises(ValueError, match=r"values takes \(4,\) float32, not nothing"):
            Settled(lane, context.allocate, plan)
        with pytest.raises(ValueError, match="values takes 16 bytes, and there are 8"):
            Settled(lane, context.allocate, plan, values=memory.at(0, 8))
