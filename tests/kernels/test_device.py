"""Every device gives the answers of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.kernels.device import Device, open_device
from matchcut.kernels.pool import pool
from matchcut.kernels.preprocess import preprocess
from matchcut.kernels.topk import search


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_runs_the_ops(name: str) -> None:
    device: Device = open_device(name)
    assert (device.name, device.variant) == ("cpu", "cpu-numpy")
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    vectors = random.random((6, 3), np.float32)
    offsets, groups = np.array([0, 2, 6]), np.arange(6)
    np.testing.assert_array_equal(
        device.preprocess(frames, [1, 2, 3], [4, 5, 6], "NHWC"), preprocess(frames, [1, 2, 3], [4, 5, 6], "NHWC")
    )
    np.testing.assert_array_equal(device.pool(vectors, offsets), pool(vectors, offsets))
    calls: list[int] = []
    found = device.search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1, check=lambda: calls.append(1))
    assert calls
    assert list(found) == list(search(vectors[:1], vectors, groups=groups, k=3, minimum=0.1))


def test_an_unknown_device_is_told_the_choices() -> None:
    with pytest.raises(ValueError, match="no device 'tpu'; choose one of 'auto', 'cpu'"):
        open_device("tpu")
