"""preprocess's kernels, run by Triton's interpreter as they are planned for a GPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from matchcut.kernels.gpu.preprocess import DOWN, KERNELS
from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.launch import Launch, Plan, Slot
from matchcut.kernels.launch.preprocess import ACROSS, SHORT, plan
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.preprocess import Layout, preprocess
from support.colours import of_rgb, of_yuv, picture, yuv
from support.triton_interpreter import execute, from_bf16, interpret

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


def flat(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The memory of an array from its first byte to its last."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
    return as_strided(array, (extent,), (1,))


def run(frames: NDArray[np.uint8] | Yuv420, layout: Layout = "NCHW", **options: Any) -> NDArray[Any]:
    """What the kernel gives, bfloat16 widened."""
    planned = plan(frames, *IMAGENET, layout, **options)
    if isinstance(frames, Yuv420):
        inputs: dict[str, Any] = {"luma": flat(frames.luma), "chroma": flat(frames.chroma)}
    else:
        inputs = {"pixels": flat(frames)}
    made = execute(planned, KERNELS, **inputs)["out"]
    return from_bf16(made) if options.get("dtype") == "bfloat16" else made


def wanted(frames: NDArray[np.uint8] | Yuv420, layout: Layout = "NCHW", **options: Any) -> NDArray[np.float64]:
    height, width = options.get("size") or (frames.luma.shape[1:] if isinstance(frames, Yuv420) else frames.shape[1:3])
    of = of_yuv(frames, (height, width)) if isinstance(frames, Yuv420) else of_rgb(frames, (height, width))
    mean, std = (np.array(values)[:, None, None] for values in IMAGENET)
    made: NDArray[np.float64] = (of - mean) / std
    return made if layout == "NCHW" else made.transpose(0, 2, 3, 1)


def check(made: NDArray[Any], right: NDArray[np.float64], dtype: str = "float32") -> None:
    """In float32 some 40 roundings, of numbers up to 255 * 4.1 (the colour matrix) / 57; then half a last digit."""
    assert made.shape == right.shape
    digits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    np.testing.assert_allclose(made, right, rtol=2.0**-digits, atol=40 * 2**-24 * 255 * 4.1 / 57)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_kernel_is_the_definition(kernel: Kernel, layout: Layout) -> None:
    _, kind, short = kernel.name.split("_")
    dtype = next(name for name, known in SHORT.items() if known == short)
    sources = (
        [yuv(2, 11, 13, order=order) for order in ("nv12", "i420")] if kind == "yuv420" else [picture(2, 11, 13, 3)]
    )
    for frames in sources:
        (launch,) = plan(frames, *IMAGENET, layout, size=(3, 5), dtype=dtype).launches
        assert launch.kernel == kernel.name
        check(run(frames, layout, size=(3, 5), dtype=dtype), wanted(frames, layout, size=(3, 5)), dtype)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (3, 2)),
        ((2, 33), (2, ACROSS + 3)),  # a second program across
        ((8 * DOWN + 1, 31), (2, 3)),  # rows in several rounds
        ((5, 1023), (1, 7)),
        ((3, 7), (5, 7)),
    ],
)
def test_sizes(shape: tuple[int, int], size: tuple[int, int]) -> None:
    for frames in (picture(1, *shape, 3), yuv(1, *shape)):
        check(run(frames, size=size), wanted(frames, size=size))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_what_is_not_resized_is_as_the_reference_to_the_bit(layout: Layout) -> None:
    frames = picture(2, 4, ACROSS + 1, 3)
    np.testing.assert_array_equal(run(frames, layout), preprocess(frames, *IMAGENET, layout))


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 9),
    size=st.none() | st.tuples(st.integers(1, 5), st.integers(1, 9)),
    options=st.fixed_dictionaries(
        {
            "order": st.sampled_from(["nv12", "i420"]),
            "matrix": st.sampled_from(["bt601", "bt709"]),
            "full_range": st.booleans(),
            "siting": st.sampled_from(["left", "centre"]),
        }
    ),
)
def test_planes_of_any_size(height: int, width: int, size: tuple[int, int] | None, options: dict[str, Any]) -> None:
    frames = yuv(1, height, width, **options)
    check(run(frames, size=size), wanted(frames, size=size))


@pytest.mark.parametrize("order", ["nv12", "i420"])
def test_rows_and_pictures_may_lie_apart(order: str) -> None:
    frames = yuv(2, 5, 7, order=order)
    luma = np.full((3, 8, 16), 77, np.uint8)[:2, :5, :7]
    luma[...] = frames.luma
    chroma = np.full((2, 2, 9, 9) if order == "i420" else (2, 9, 9, 2), 77, np.uint8)
    chroma = chroma[:, :, :3, :4] if order == "i420" else chroma[:, :3, :4]
    chroma[...] = frames.chroma
    apart = Yuv420(luma, chroma, order=frames.order)
    np.testing.assert_array_equal(run(apart, size=(3, 3)), run(frames, size=(3, 3)))
    whole = picture(2, 8, 9, 3)
    part = whole[:, ::2, :4]
    np.testing.assert_array_equal(run(part, size=(3, 3)), run(part.copy(), size=(3, 3)))


def test_pictures_beyond_two_gigabytes(tmp_path: Any) -> None:
    apart = 2**30
    memory = np.memmap(tmp_path / "sparse", np.uint8, "w+", shape=(3 * apart,))
    frames = as_strided(memory, (3, 2, 3, 3), (apart, 9, 3, 1))
    frames[...] = picture(3, 2, 3, 3)
    planned = plan(frames, *IMAGENET, "NCHW")
    out = np.zeros(planned.outputs[0].shape, np.float32)
    (launch,) = planned.launches
    given = {"pixels": memory[: planned.inputs[0].shape[0]], "out": out}  # not copied, unlike by execute
    kernel = next(kernel for kernel in KERNELS if kernel.name == launch.kernel)
    arguments: list[Any] = [
        given[argument.name] if isinstance(argument, Slot) else argument for argument in launch.arguments
    ]
    interpret(kernel, launch.grid, *arguments)
    np.testing.assert_array_equal(out, preprocess(frames, *IMAGENET, "NCHW"))


def test_a_plan_says_what_has_to_be_moved() -> None:
    planned = plan(yuv(2, 6, 8), *IMAGENET, "NCHW", size=(3, 4), dtype="bfloat16")
    assert isinstance(planned, Plan)
    assert planned.moved == 2 * (6 * 8 + 3 * 4 * 2) + 2 * 3 * 3 * 4 * 2
    (launch,) = planned.launches
    assert isinstance(launch, Launch)
    assert launch.grid == (1, 3, 2)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (picture(0, 4, 4, 3), {}, "0 frames of 4 x 4"),
        (np.broadcast_to(picture(1, 1, 1, 3), (65536, 1, 1, 3)), {}, "65536 frames"),
        (picture(1, 4, 4, 3), {"size": (65536, 4)}, "65536 x 4"),
        (picture(1, 4, 4, 3), {"size": (60000, 60000)}, "one launch"),
        (picture(1, 4, 8, 3)[:, :, ::2], {}, "must lie together"),
        (picture(1, 4, 4, 3)[:, ::-1], {}, "must lie together"),
        (as_strided(picture(1, 1, 1, 3), (1, 3, 4, 3), (0, 2**30, 3, 1)), {}, "apart or more"),
        (Yuv420(picture(1, 4, 8)[:, :, ::2], picture(1, 2, 2, 2)), {}, "luma must lie together"),
        (Yuv420(picture(1, 4, 4), picture(1, 2, 4, 2)[:, :, ::2]), {}, "chroma must lie together"),
        (picture(1, 4, 4, 3), {"size": (0, 1)}, "size must be"),
    ],
)
def test_what_no_launch_takes_is_refused(frames: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(frames, *IMAGENET, "NCHW", **options)
