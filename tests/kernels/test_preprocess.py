"""preprocess against a float64 evaluation of its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from matchcut.kernels.preprocess import Layout, preprocess

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
    ],
)
def test_refuses_what_it_cannot_take(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"frames": pixels(1, 4, 4, 3), "mean": LITE[0], "std": LITE[1], "layout": "NCHW"}
    with pytest.raises(ValueError, match=message):
        preprocess(**(given | change))
