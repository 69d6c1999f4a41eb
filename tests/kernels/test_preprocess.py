"""preprocess against a float64 evaluation of its definition."""

from __future__ import annotations

from typing import Any, Literal

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matchcut.kernels.pixels import Matrix, Order, Siting, Yuv420
from matchcut.kernels.preprocess import Layout, bfloat16_bits, preprocess
from matchcut.kernels.resample import triangle
from support.colours import of_rgb, of_yuv, picture, yuv
from support.triton_interpreter import from_bf16, to_bf16

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
LITE = ([127.0] * 3, [128.0] * 3)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 7, 31, 3), (3, 16, 5, 3), (0, 4, 4, 3), (1, 224, 224, 3)])
def test_is_the_definition(layout: Layout, shape: tuple[int, ...]) -> None:
    frames = pixels(*shape)
    mean, std = IMAGENET
    wanted = (frames.astype(np.float64) - mean) / std
    if layout == "NCHW":
        wanted = wanted.transpose(0, 3, 1, 2)
    made = preprocess(frames, mean, std, layout)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert made.shape == wanted.shape
    # Both terms of pixel * (1 / std) - mean / std stay under 4.5, whose unit in the last place is 2**-21.
    np.testing.assert_allclose(made, wanted, rtol=0, atol=3 * 2**-21)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_is_exact_for_binary_fractions(layout: Layout) -> None:
    every_level = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    made = preprocess(every_level, *LITE, layout)
    channel = made[0, 0].ravel() if layout == "NCHW" else made[0, ..., 0].ravel()
    assert channel.tolist() == [(level - 127) / 128 for level in range(256)]


def test_channels_are_not_confused() -> None:
    made = preprocess(np.array([[[[10, 20, 30]]]], np.uint8), [0, 10, 20], [1, 2, 5], "NCHW")
    assert made.ravel().tolist() == [10.0, 5.0, 2.0]


def test_takes_a_view_that_is_not_contiguous() -> None:
    frames = pixels(2, 20, 30, 3)
    view = frames[:, ::2, ::-3]
    for layout in ("NCHW", "NHWC"):
        np.testing.assert_array_equal(preprocess(view, *LITE, layout), preprocess(view.copy(), *LITE, layout))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": pixels(4, 4, 3)}, "frames must be"),
        ({"frames": pixels(1, 4, 4, 4)}, "frames must be"),
        ({"frames": pixels(1, 4, 4, 3).astype(np.float32)}, "float32"),
        ({"mean": [1.0, 2.0]}, "3 values"),
        ({"std": [1.0, 0.0, 1.0]}, "not zero"),
        ({"mean": [1.0, float("nan"), 1.0]}, "finite"),
        ({"layout": "CHWN"}, "layout must be"),
        ({"size": (0, 4)}, "size must be"),
        ({"size": (4,)}, "size must be"),
        ({"frames": pixels(1, 0, 4, 3), "size": (4, 4)}, "0 x 4 pixels cannot be resized"),
        ({"dtype": "float64"}, "dtype must be"),
    ],
)
def test_refuses_what_it_cannot_take(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"frames": pixels(1, 4, 4, 3), "mean": LITE[0], "std": LITE[1], "layout": "NCHW"}
    with pytest.raises(ValueError, match=message):
        preprocess(**(given | change))


LEVELS = ([0.0] * 3, [1.0] * 3)  # leaves levels as they are


def levels(frames: Any, **options: Any) -> Any:
    return preprocess(frames, *LEVELS, "NCHW", **options)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 1), (1, 1)), ((1, 1), (5, 3)), ((31, 33), (7, 70)), ((9, 4), (9, 31)), ((97, 101), (3, 2)), ((5, 6), (5, 6))],
)
def test_resizes_by_the_definition(shape: tuple[int, int], size: tuple[int, int]) -> None:
    frames = picture(2, *shape, 3)
    made = levels(frames, size=size)
    assert made.shape == (2, 3, *size)
    # Computed in float64 and rounded once: half a unit in the last place at 255.
    np.testing.assert_allclose(made, of_rgb(frames, size), rtol=0, atol=2**-17)
    assert np.array_equal(preprocess(frames, *LEVELS, "NHWC", size=size), made.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(7, 70), (64, 5), (31, 33)])
def test_resizes_as_pillow(size: tuple[int, int]) -> None:
    frames = picture(1, 31, 33, 3)
    for channel in range(3):
        image = Image.fromarray(frames[0, ..., channel].astype(np.float32))
        wanted = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        # Pillow rounds to float32 between the two axes.
        np.testing.assert_allclose(levels(frames, size=size)[0, channel], wanted, rtol=0, atol=1e-4)


def test_the_same_size_changes_nothing() -> None:
    frames = picture(2, 7, 31, 3)
    for layout in ("NCHW", "NHWC"):
        same = preprocess(frames, *IMAGENET, layout, size=(7, 31))
        np.testing.assert_array_equal(same, preprocess(frames, *IMAGENET, layout))


@settings(max_examples=200, deadline=None)
@given(outputs=st.integers(1, 300), count=st.integers(1, 300))
def test_weights_sum_to_one_and_stay_inside(outputs: int, count: int) -> None:
    made = triangle(outputs, count)
    assert (made.first >= 0).all()
    assert (made.first + made.weights.shape[1] <= count).all()
    assert (made.weights >= 0).all()
    np.testing.assert_allclose(made.weights.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(made.dense[::-1, ::-1], made.dense, rtol=0, atol=1e-9)  # left is as right
    assert made.weights.any(axis=0).all(), "no column of zeros only"


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    size=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12)),
    order=st.sampled_from(["nv12", "i420"]),
    matrix=st.sampled_from(["bt601", "bt709"]),
    full_range=st.booleans(),
    siting=st.sampled_from(["left", "centre"]),
)
def test_planes_become_colours_by_the_definition(
    height: int,
    width: int,
    size: tuple[int, int] | None,
    order: Order,
    matrix: Matrix,
    full_range: bool,
    siting: Siting,
) -> None:
    frames = yuv(2, height, width, order=order, matrix=matrix, full_range=full_range, siting=siting)
    made = levels(frames, size=size)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, of_yuv(frames, size or (height, width)), rtol=0, atol=2**-16)


def uniform(y: int, u: int, v: int, **options: Any) -> Yuv420:
    return Yuv420(np.full((1, 4, 4), y, np.uint8), np.array([[[[u, v]] * 2] * 2], np.uint8), **options)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_the_ends_of_each_range_are_black_and_white(matrix: Matrix) -> None:
    for full, black, white in ((False, 16, 235), (True, 0, 255)):
        options = {"matrix": matrix, "full_range": full}
        np.testing.assert_allclose(levels(uniform(black, 128, 128, **options)), 0, atol=1e-4)
        np.testing.assert_allclose(levels(uniform(white, 128, 128, **options)), 255, atol=1e-4)
    assert levels(uniform(0, 255, 255)).min() == 0, "what is out of range is cut off"
    assert levels(uniform(255, 255, 255)).max() == 255


@pytest.mark.parametrize(("matrix", "space"), [("bt601", Colorspace.ITU601), ("bt709", Colorspace.ITU709)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_of_swscale(matrix: Matrix, space: Colorspace, full: bool) -> None:
    for y, u, v in ((100, 90, 160), (180, 140, 100), (60, 128, 128), (120, 60, 70)):
        frames = uniform(y, u, v, matrix=matrix, full_range=full)
        joined = np.concatenate([frames.luma[0], frames.chroma[0].reshape(2, 4)])
        frame = av.VideoFrame.from_ndarray(joined, format="nv12")
        frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
        # swscale reads the matrix from here; both sides, or it takes the default for one of them.
        theirs = frame.reformat(format="rgb24", src_colorspace=space, dst_colorspace=space).to_ndarray()
        np.testing.assert_allclose(
            levels(frames)[0, :, 0, 0], theirs[0, 0], atol=3
        )  # it cuts off to whole levels, twice


def test_full_range_bt601_is_that_of_jpeg() -> None:
    y, u, v = picture(3, 16, 16)
    wanted = np.asarray(Image.merge("YCbCr", [Image.fromarray(plane) for plane in (y, u, v)]).convert("RGB"))
    # One pixel a picture, so that chroma is not resampled.
    chroma = np.stack([u.ravel(), v.ravel()], axis=1)[:, None, None, :]
    frames = Yuv420(y.reshape(-1, 1, 1), chroma, matrix="bt601", full_range=True)
    np.testing.assert_allclose(levels(frames)[:, :, 0, 0], wanted.reshape(-1, 3), atol=1)


def test_chroma_lies_where_its_siting_says() -> None:
    chroma = np.array([[[[128, 128], [144, 128]]]], np.uint8)
    luma = np.full((1, 1, 4), 100, np.uint8)
    blue = {
        siting: levels(Yuv420(luma, chroma, full_range=True, siting=siting))[0, 2, 0] - 100
        for siting in ("left", "centre")
    }
    step = 16 * 2 * (1 - 0.0722)
    np.testing.assert_allclose(blue["left"], [0, step / 2, step, step], atol=1e-4)
    np.testing.assert_allclose(blue["centre"], [0, step / 4, step * 3 / 4, step], atol=1e-4)


@pytest.mark.parametrize("order", ["nv12", "i420"])
def test_planes_may_lie_apart(order: Order) -> None:
    frames = yuv(2, 5, 7, order=order)
    luma = np.zeros((3, 8, 16), np.uint8)[:2, :5, :7]
    luma[...] = frames.luma
    chroma = np.zeros((2, 2, 9, 9) if order == "i420" else (2, 9, 9, 2), np.uint8)
    chroma = chroma[:, :, :3, :4] if order == "i420" else chroma[:, :3, :4]
    chroma[...] = frames.chroma
    np.testing.assert_array_equal(levels(Yuv420(luma, chroma, order=order), size=(3, 3)), levels(frames, size=(3, 3)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"luma": picture(4, 4)}, "luma must be"),
        ({"luma": np.zeros((1, 4, 4))}, "luma must be"),
        ({"chroma": picture(1, 2, 2, 3)}, r"chroma must be \(1, 2, 2, 2\)"),
        ({"chroma": picture(1, 1, 2, 2)}, "chroma must be"),
        ({"luma": picture(1, 4, 5), "order": "i420"}, r"chroma must be \(1, 2, 2, 3\)"),
        ({"order": "yv12"}, "order must be one of 'nv12', 'i420', not 'yv12'"),
        ({"matrix": "bt2020"}, "matrix must be"),
        ({"siting": "top"}, "siting must be"),
    ],
)
def test_planes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"luma": picture(1, 4, 4), "chroma": picture(1, 2, 2, 2)}
    with pytest.raises(ValueError, match=message):
        Yuv420(**(given | change))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_shorter_numbers_are_the_nearest(dtype: Literal["float16", "bfloat16"], layout: Layout) -> None:
    frames = picture(2, 7, 31, 3)
    whole = preprocess(frames, *IMAGENET, layout)
    made = preprocess(frames, *IMAGENET, layout, dtype=dtype)
    if dtype == "float16":
        assert made.dtype == np.float16
        np.testing.assert_array_equal(made, whole.astype(np.float16))
    else:
        np.testing.assert_array_equal(made, to_bf16(whole))
        np.testing.assert_allclose(
            from_bf16(made.view(np.uint16)), whole, rtol=2**-8
        )  # 8 binary digits, half of the last


def test_ties_go_to_the_even_bfloat16() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -0.0, 1], np.float32)
    assert from_bf16(bfloat16_bits(values)).tolist() == [1, 1 + 2**-6, 0, 1]
