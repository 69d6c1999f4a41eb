"""The gate that lets still video cost little."""

from __future__ import annotations

import numpy as np

from matchcut.server.records import Pixels
from matchcut.server.stills import StillGate, difference


def picture(seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (224, 224, 3), dtype=np.uint8)


def test_the_difference_is_that_of_the_worst_block() -> None:
    frame = np.full((224, 224, 3), 100, np.uint8)
    other = frame.copy()
    other[32:64, 64:96] = 90  # exactly one of the 7 x 7 blocks
    assert difference(frame, other) == difference(other, frame) == 10.0
    assert difference(frame, frame) == 0.0


def test_sides_that_do_not_divide_by_seven_and_tiny_pictures() -> None:
    for shape in ((30, 50, 3), (3, 2, 3), (1, 1, 3)):
        frame = np.zeros(shape, np.uint8)
        assert difference(frame, frame) == 0.0
        assert difference(frame, np.full(shape, 255, np.uint8)) > 200


def test_equal_frames_reuse_and_others_do_not() -> None:
    gate = StillGate(1.0)
    assert [gate.same(frame) for frame in (picture(), picture(), picture(1), picture(1))] == [False, True, False, True]


def test_slow_change_adds_up_against_the_encoded_frame() -> None:
    gate = StillGate(2.0)
    answers = [gate.same(np.full((64, 64, 3), level, np.uint8)) for level in (100, 101, 102, 103, 104)]
    assert answers == [False, True, False, True, False]


def test_zero_switches_it_off() -> None:
    gate = StillGate(0.0)
    assert not any(gate.same(picture()) for _ in range(3))
