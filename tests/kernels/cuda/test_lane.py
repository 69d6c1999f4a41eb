"""Copies, fills, times and pools of a lane; the simulation does nothing before somebody waits for it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Buffer, Context, Pending
from matchcut.kernels.cuda.memory import rounded
from matchcut.kernels.gpu.spec import Kernel

DOUBLE = Kernel("double", lambda: None, {"x": "*fp32", "n": "i32"}, {})


def double(grid: tuple[int, ...], x: Any, n: int) -> None:
    x[:n] *= 2


@pytest.fixture
def context(simulation: Simulation) -> Iterator[Context]:
    with simulated_context([DOUBLE], stand_ins={"double": double}, memory=256 << 20) as opened:
        yield opened


def test_what_the_device_says_of_itself(context: Context) -> None:
    assert (context.name, context.capability) == ("matchcut simulation", 90)
    assert (context.total_memory, context.multiprocessors) == (256 << 20, 4)
    assert context.memory() == (256 << 20, 256 << 20)
    context.allocate(1)
    assert not context.lost


# At once, staged, and as the driver does it; and the sizes next to where that changes.
@pytest.mark.parametrize("size", [0, 1, 16 << 10, (16 << 10) + 1, 1 << 20, 4 << 20, (4 << 20) + 1])
def test_up_and_down(context: Context, size: int) -> None:
    values = np.arange(size, dtype=np.float32)
    with context.lane() as lane:
        buffer = lane.upload(values)
        if size:
            lane.launch("double", (1,), buffer, size)
        arrived = lane.download(buffer, (size,), np.float32)
        lane.synchronize()
        np.testing.assert_array_equal(arrived.array(), 2 * np.arange(size, dtype=np.float32))
        assert arrived.array() is arrived.array()
        assert arrived.array().flags.owndata


@pytest.mark.parametrize("size", [100, 1 << 20, 8 << 20])
def test_an_array_may_be_changed_once_it_is_uploaded(context: Context, size: int) -> None:
    values = np.ones(size, np.float32)
    with context.lane() as lane:
        buffer = lane.upload(values)
        values[:] = 7
        arrived = lane.download(buffer, (size,), np.float32)
    assert (arrived.array() == 1).all()


def test_any_array_goes_up(context: Context) -> None:
    arrays: tuple[Any, ...] = (
        np.arange(12, dtype=np.int64).reshape(3, 4).T,
        np.arange(10, dtype=np.uint8)[::3],
        np.float64(3.5),
        np.array([True, False]),
        np.zeros((0, 5), np.float32),
    )
    with context.lane() as lane:
        arrived = [lane.download(lane.upload(one), np.shape(one), one.dtype) for one in arrays]
    for one, got in zip(arrays, arrived, strict=True):
        np.testing.assert_array_equal(got.array(), one)
        assert (got.array().dtype, got.array().shape) == (one.dtype, np.shape(one))


def test_parts_of_buffers(context: Context) -> None:
    rows = context.allocate(4 * 8)
    with context.lane() as lane:
        lane.fill(rows, 0)
        assert lane.upload(np.array([1, 2], np.float32), rows, 8) is rows
        lane.copy(rows, 8, rows.at(16), 4, 8)
        whole = lane.download(rows, (8,), np.float32)
        part = lane.download(rows, (1, 2), np.float32, 20)
    assert whole.array().tolist() == [0, 0, 1, 2, 0, 1, 2, 0]
    assert part.array().tolist() == [[1, 2]]


def test_fill(context: Context) -> None:
    buffer = context.allocate(32)
    with context.lane() as lane:
        lane.fill(buffer, 255)
        lane.fill(buffer, 1, 4)
        lane.fill(buffer, 0xFF800000, 8, offset=8, width=4)
        lane.fill(buffer, 0, 0)
        found = lane.download(buffer, (8,), np.uint32)
    assert found.array().tolist() == [0x01010101, 2**32 - 1, 0xFF800000, 0xFF800000, *[2**32 - 1] * 4]


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": 256},
        {"value": -1},
        {"value": 2**32, "width": 4},
        {"value": 0, "width": 2},
        {"value": 0, "nbytes": 6, "width": 4},
        {"value": 0, "nbytes": 4, "offset": 2, "width": 4},
        {"value": 0, "nbytes": 65},
        {"value": 0, "offset": -1},
        {"value": 0, "offset": 65},
    ],
)
def test_what_cannot_be_filled(context: Context, arguments: dict[str, int]) -> None:
    buffer = context.allocate(64)
    with context.lane() as lane, pytest.raises(ValueError):
        lane.fill(buffer, **arguments)


def test_nothing_goes_out_of_bounds(context: Context) -> None:
    small, large = context.allocate(16), context.allocate(64)
    with context.lane() as lane:
        for wrong in (
            lambda: lane.upload(np.zeros(17, np.uint8), small),
            lambda: lane.upload(np.zeros(8, np.uint8), small, 9),
            lambda: lane.upload(np.zeros(8, np.uint8), small, -1),
            lambda: lane.download(small, (5,), np.float32),
            lambda: lane.download(small, (4,), np.float32, 4),
            lambda: lane.copy(small, 0, large, 0, 17),
            lambda: lane.copy(large, 0, small, 8, 9),
            lambda: small.at(17),
            lambda: small.at(8, 9),
            lambda: lane.temporary(-1),
            lambda: context.allocate(-1),
        ):
            with pytest.raises(ValueError):
                wrong()


def test_a_temporary_is_void_once_its_lane_is_left(context: Context) -> None:
    with context.lane() as lane:
        old = lane.temporary(64)
    with context.lane() as lane:
        for wrong in (
            lambda: lane.upload(np.zeros(8, np.uint8), old),
            lambda: lane.download(old, (1,), np.uint8),
            lambda: lane.fill(old, 0),
            lambda: old.at(0),
        ):
            with pytest.raises(ValueError, match="lane has been left"):
                wrong()


def test_an_array_that_has_not_arrived(context: Context) -> None:
    with context.lane() as lane:
        arrived = lane.download(context.allocate(4), (1,), np.float32)
        with pytest.raises(RuntimeError, match="call synchronize"):
            arrived.array()
    arrived.array()  # leaving the lane waits


def test_an_array_of_work_that_failed_arrives_nonetheless(context: Context) -> None:
    """Nothing was wrong with the device."""
    arrived: list[Pending] = []

    def work() -> None:
        with context.lane() as lane:
            arrived.append(lane.download(context.allocate(4), (1,), np.float32))
            raise KeyError

    with pytest.raises(KeyError):
        work()
    arrived[0].array()


def test_leaving_gives_back_what_fits_the_next(context: Context, simulation: Simulation) -> None:
    def work() -> tuple[int, ...]:
        with context.lane() as lane:
            one, other = lane.temporary(5000), lane.temporary(1 << 20)
            buffer = lane.upload(np.zeros(1 << 20, np.uint8))
            lane.download(buffer, (1 << 20,), np.uint8)
            assert len({one.address, other.address, buffer.address}) == 3
            return one.address, other.address, buffer.address

    first = work()
    used, pinned, streams = simulation.counts.used, simulation.counts.pinned, simulation.counts.streams
    assert used == 5 * 1024 + 2 * (1 << 20)
    assert (pinned, streams) == (2, 1)
    assert set(work()) == set(first)
    assert (simulation.counts.used, simulation.counts.pinned) == (used, pinned)


def test_staging_is_used_again_after_waiting(context: Context, simulation: Simulation) -> None:
    values = np.arange(1 << 20, dtype=np.uint8)
    with context.lane() as lane:
        for _ in range(5):
            arrived = lane.download(lane.upload(values), values.shape, values.dtype)
            lane.synchronize()
            np.testing.assert_array_equal(arrived.array(), values)
        assert simulation.counts.pinned == 2


def test_memory_is_freed_when_nothing_refers_to_it(context: Context, simulation: Simulation) -> None:
    buffer = context.allocate(1 << 20)
    part = buffer.at(1024).at(1024)
    assert simulation.counts.used == 1 << 20
    del buffer
    context.allocate(1)
    assert simulation.counts.used > 1 << 20
    assert (part.nbytes, part.address % 256) == ((1 << 20) - 2048, 0)
    del part
    gc.collect()
    context.allocate(1)
    assert simulation.counts.used <= 512


def test_memory_that_is_dropped_stays_until_its_work_is_done(context: Context) -> None:
    with context.lane() as lane:
        buffer = context.allocate(4 << 10)
        lane.fill(buffer, 0)
        out = lane.temporary(4 << 10)
        lane.copy(buffer, 0, out, 0, 4 << 10)
        del buffer
        again = context.allocate(4 << 10)  # frees the one before
        arrived = lane.download(out, (1024,), np.float32)
    assert not arrived.array().any()
    assert again.nbytes == 4 << 10


@pytest.mark.parametrize("nbytes", [0, 1, 1024, 1025, 1280, 1281, 4096, 5000, 2**20 + 1, 2**31 + 1])
def test_sizes_of_the_pool(nbytes: int) -> None:
    size = rounded(nbytes)
    assert nbytes <= size <= max(1024, nbytes * 1.25)
    assert size % 256 == 0
    assert rounded(size) == size


def test_addresses_are_aligned(context: Context) -> None:
    buffers: list[Buffer] = [context.allocate(size) for size in (1, 17, 255, 257)]
    with context.lane() as lane:
        buffers += [lane.temporary(size) for size in (0, 1, 17, 255, 257)]
        assert {buffer.address % 256 for buffer in buffers} == {0}
        assert [buffer.nbytes for buffer in buffers] == [1, 17, 255, 257, 0, 1, 17, 255, 257]


def test_times_are_between_marks(context: Context) -> None:
    """In the simulation an operation takes a millisecond."""
    with context.lane() as lane:
        for _ in range(2):  # the second time with the events of the first
            lane.mark("start")
            buffer = lane.upload(np.zeros(4, np.float32))
            lane.mark("upload")
            lane.fill(buffer, 0)
            lane.launch("double", (1,), buffer, 4)
            lane.mark("work")
            lane.fill(buffer, 0)
            lane.mark("upload")
            with pytest.raises(RuntimeError, match="call synchronize"):
                lane.times()
            lane.synchronize()
            assert lane.times() == pytest.approx({"upload": 0.002, "work": 0.002})
            assert lane.times() == {}
        lane.mark("alone")
        lane.synchronize()
        assert lane.times() == {}


def test_marks_do_not_outlive_the_lane(context: Context) -> None:
    with context.lane() as lane:
        lane.mark("before")
    with context.lane() as lane:
        lane.mark("after")
        lane.synchronize()
        assert lane.times() == {}
