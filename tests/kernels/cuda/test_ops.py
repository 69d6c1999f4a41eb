"""preprocess, pool and attend of a GPU against the reference, and what a plan is given on a lane.

Everywhere in Triton's interpreter and on the simulated driver; with MATCHCUT_TEST_GPU=1 on the GPU of the machine
instead. The kernels themselves are tested in tests/kernels/gpu, where the tolerances have their reasons.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from matchcut.kernels.cuda.errors import CudaAbsent, CudaError, DeviceLost, OutOfDeviceMemory
from matchcut.kernels.cuda.execute import execute
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.device import Device
from matchcut.kernels.launch import pool as pool_plan
from matchcut.kernels.launch import preprocess as preprocess_plan
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.pool import attend, pool
from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd, Pooling
from matchcut.kernels.preprocess import Layout, preprocess
from matchcut.kernels.topk import search
from support.colours import picture, yuv
from support.interpreted import Interpreted

GPU = os.environ.get("MATCHCUT_TEST_GPU") == "1"
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
CLOSE = 2 * 40 * 2**-24 * 255 * 4.1 / 57  # twice what each may be off


@pytest.fixture(params=["gpu"] if GPU else ["interpreter", "simulation"])
def home(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    if request.param == "gpu":
        opened = Cuda()
        yield opened
        opened.close()
    elif request.param == "interpreter":
        context: Any = Interpreted()
        yield Cuda(context=context)
    else:
        from cuda_sim.contexts import simulated_context
        from matchcut.kernels.gpu.pool import KERNELS as POOL
        from matchcut.kernels.gpu.preprocess import KERNELS as PREPROCESS

        with simulated_context([*POOL, *PREPROCESS]) as simulated:
            yield Cuda(context=simulated)


def ran(home: Cuda, name: str) -> bool:
    """Whether such a kernel ran; on a GPU nobody counts."""
    context: Any = home.context
    if isinstance(context, Interpreted):
        return bool(context.only.launched[name])
    if GPU:
        return True
    from cuda_sim.simulation import load

    return any(launch.name == name for launch in load().launches)


def wide(bits: NDArray[Any]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32) if bits.dtype == np.uint16 else bits


def test_it_is_a_device(home: Cuda) -> None:
    device: Device = home
    assert device.name == "cuda"
    assert device.variant.startswith("cuda-")
    assert ", compute capability " in device.title


def test_pictures_that_are_not_resized_are_the_references_to_the_bit(home: Cuda) -> None:
    frames = picture(2, 5, 7, 3)
    layouts: tuple[Layout, ...] = ("NCHW", "NHWC")
    for layout in layouts:
        made = home.preprocess(frames, *IMAGENET, layout)
        np.testing.assert_array_equal(made, preprocess(frames, *IMAGENET, layout))
        assert made.flags.c_contiguous
    np.testing.assert_array_equal(
        home.preprocess(picture(2, 9, 7, 3)[:, ::2], *IMAGENET, "NCHW"),
        preprocess(picture(2, 9, 7, 3)[:, ::2], *IMAGENET, "NCHW"),
    )
    assert ran(home, "preprocess_rgb_fp32")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("order", ["nv12", "i420"])
def test_planes_are_resized_and_converted(home: Cuda, dtype: Any, order: str) -> None:
    frames = yuv(2, 11, 13, order=order)
    apart = np.zeros((2, 11, 20), np.uint8)[:, :, :13]
    apart[...] = frames.luma
    for given in (frames, Yuv420(apart, frames.chroma, order=frames.order)):
        made = home.preprocess(given, *IMAGENET, "NCHW", size=(3, 5), dtype=dtype)
        right = preprocess(frames, *IMAGENET, "NCHW", size=(3, 5), dtype=dtype)
        assert (made.dtype, made.shape) == (right.dtype, right.shape)
        rounding = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
        np.testing.assert_allclose(wide(made), wide(right), rtol=rounding, atol=CLOSE)
    assert ran(home, f"preprocess_yuv420_{preprocess_plan.SHORT[dtype]}")


def test_what_no_launch_takes_comes_from_the_reference(home: Cuda) -> None:
    none = np.empty((0, 4, 4, 3), np.uint8)
    assert home.preprocess(none, *IMAGENET, "NCHW").shape == (0, 3, 4, 4)
    with pytest.raises(ValueError, match="frames must be"):
        home.preprocess(np.zeros((1, 4, 4), np.uint8), *IMAGENET, "NCHW")
    with pytest.raises(ValueError, match="std not zero"):
        home.preprocess(picture(1, 2, 2, 3), [0, 0, 0], [1, 0, 1], "NCHW")
    assert home.pool(np.empty((0, 3), np.float32), np.array([0])).shape == (0, 3)
    long = np.random.default_rng(0).random((3, 2049), np.float32)
    np.testing.assert_array_equal(home.pool(long, np.array([0, 3])), pool(long, np.array([0, 3])))
    kind = Attention(np.ones(2049, np.float32))
    for made, right in zip(
        home.attend(long, np.array([0, 3]), kind), attend(long, np.array([0, 3]), kind), strict=True
    ):
        np.testing.assert_array_equal(made, right)
    with pytest.raises(ValueError, match="vectors must be"):
        home.pool(np.zeros(3, np.float32), np.array([0, 3]))


def test_bfloat16_on_an_old_gpu_comes_from_the_reference() -> None:
    context: Any = Interpreted()
    context.capability = 75
    made = Cuda(context=context).preprocess(picture(1, 2, 2, 3), *IMAGENET, "NCHW", dtype="bfloat16")
    np.testing.assert_array_equal(made, preprocess(picture(1, 2, 2, 3), *IMAGENET, "NCHW", dtype="bfloat16"))
    assert not context.only.launched


@pytest.mark.parametrize(
    "kind", [Mean(), Max(), GeM(), Attention(np.ones(33, np.float32)), MeanStd()], ids=lambda kind: kind.name
)
def test_vectors_are_pooled(home: Cuda, kind: Pooling) -> None:
    random = np.random.default_rng(3)
    vectors, offsets = random.random((70, 33), np.float32), np.array([0, 1, 68, 70])
    weights, mask = random.random(70).astype(np.float32), random.random(70) < 0.8
    mask[offsets[:-1]] = True
    for normalise in (True, False):
        options: dict[str, Any] = {"weights": weights, "mask": mask, "normalise": normalise}
        made = home.pool(vectors, offsets, kind=kind, **options)
        right = pool(vectors, offsets, kind=kind, **options)
        assert (made.dtype, made.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(made, right, rtol=1e-5, atol=3e-6)
        if isinstance(kind, Attention):
            made, shares = home.attend(vectors, offsets, kind, **options)
            right, wanted = attend(vectors, offsets, kind, **options)
            np.testing.assert_allclose(made, right, rtol=1e-5, atol=3e-6)
            np.testing.assert_allclose(shares, wanted, rtol=1e-5)
    assert ran(home, f"pool_{kind.name}_512")


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [(2, np.nan, "segment 1 holds NaN or infinity"), (2, 0, "segment 1 has the mean zero"), (0, None, "no vector")],
)
def test_what_cannot_be_pooled_is_told_as_by_the_reference(home: Cuda, row: int, value: Any, message: str) -> None:
    vectors, mask = np.ones((3, 4), np.float32), np.ones(3, np.bool_)
    if value is None:
        mask[:2] = False
    else:
        vectors[row] = value
    for work in (home.pool, pool):
        with pytest.raises(ValueError, match=message):
            work(vectors, np.array([0, 2, 3]), mask=mask)


def test_what_one_plan_leaves_on_the_lane_another_takes(home: Cuda) -> None:
    vectors = np.random.default_rng(4).random((9, 5), np.float32)
    first = pool_plan.plan(9, 5, np.array([0, 2, 5, 9]))
    second = pool_plan.plan(3, 5, np.array([0, 1, 3]), kind=Max())
    with home.context.lane() as lane:
        parts = execute(lane, first, vectors=vectors)
        whole = execute(lane, second, vectors=parts["out"])
        arriving = lane.download(whole["out"], (2, 5), np.float32)
    right = pool(pool(vectors, np.array([0, 2, 5, 9])), np.array([0, 1, 3]), kind=Max())
    np.testing.assert_allclose(arriving.array(), right, atol=3e-6)


def test_inputs_have_to_fit_their_slots(home: Cuda) -> None:
    plan = pool_plan.plan(3, 5, np.array([0, 3]))
    with home.context.lane() as lane:
        with pytest.raises(ValueError, match=r"vectors takes \(3, 5\) float32, not nothing"):
            execute(lane, plan)
        with pytest.raises(ValueError, match=r"vectors takes \(3, 5\) float32, not \(3, 5\) float64"):
            execute(lane, plan, vectors=np.zeros((3, 5)))
        with pytest.raises(ValueError, match="vectors takes 60 bytes, and there are 16"):
            execute(lane, plan, vectors=lane.temporary(16))


def test_rankings_of_rows_without_codes_come_from_the_reference() -> None:
    context: Any = Interpreted()
    random = np.random.default_rng(5)
    rows, groups, eligible = random.random((60, 7), np.float32), np.arange(60) // 2, random.random(60) < 0.7
    lists = [np.empty(0, np.int64), np.arange(25)]
    found = Cuda(context=context).search_each(
        rows[:2], rows, groups=groups, k=9, eligible=eligible, excluded=lists, minimum=0.5
    )
    for at, one in enumerate(found):
        left = eligible & ~np.isin(groups, lists[at])
        assert list(one) == list(search(rows[at : at + 1], rows, groups=groups, k=9, eligible=left, minimum=0.5))
        assert one.variant == "cpu-numpy"
    assert not context.only.launched


def test_what_a_failure_says_of_the_device() -> None:
    context: Any = Interpreted()
    home = Cuda(context=context)
    told = {DeviceLost: "lost", OutOfDeviceMemory: "full", CudaError: "failed", CudaAbsent: "failed"}
    for error, meaning in told.items():
        assert home.failure(error("words")) == meaning
    assert home.failure(ValueError("words")) is None
    context.fails = DeviceLost("gone")
    for work in (
        lambda: home.pool(np.ones((1, 2), np.float32), np.array([0, 1])),
        lambda: home.preprocess(picture(1, 2, 2, 3), *IMAGENET, "NCHW"),
    ):
        with pytest.raises(DeviceLost, match="gone"):
            work()
