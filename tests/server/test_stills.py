"""The gate that lets still video cost little."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server import stills
from matchcut.server.records import Pixels
from matchcut.server.stills import StillGate, difference


def picture(seed: int = 0, shape: tuple[int, ...] = (224, 224, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_the_difference_is_the_fourth_power_mean() -> None:
    flat = np.full((224, 224, 3), 100, np.uint8)
    assert difference(flat, flat) == 0
    assert difference(flat + np.uint8(3), flat) == pytest.approx(3)
    assert difference(flat - np.uint8(3), flat) == pytest.approx(3)
    sixteenth = flat.copy()
    sixteenth[:56, :56] += 8
    assert difference(sixteenth, flat) == difference(flat, sixteenth) == pytest.approx(4)
    assert difference(np.zeros_like(flat), np.full_like(flat, 255)) == pytest.approx(255, rel=1e-3)  # summed in float32


def test_a_small_thing_that_moves_weighs_more_than_a_faint_change_of_the_same_mean() -> None:
    flat = np.full((224, 224, 3), 100, np.uint8)
    thing = flat.copy()
    thing[:14, :14] = 228  # 1/256 of the picture, 128 levels: a mean of half a level, as below
    faint = flat.copy()
    faint[::2] += 1
    assert difference(thing, flat) > 30 * difference(faint, flat)


@pytest.mark.parametrize("shape", [(224, 224, 3), (30, 50, 3), (3, 2, 3), (1, 1, 3)])
def test_the_gate_decides_as_the_difference_does(shape: tuple[int, ...]) -> None:
    encoded = picture(1, shape)
    other = encoded ^ np.uint8(1)  # every value differs by one
    assert difference(other, encoded) == pytest.approx(1)
    for threshold, expected in ((1.001, True), (0.999, False)):
        gate = StillGate(threshold)
        assert not gate.same(encoded)
        assert gate.same(other) is expected


@pytest.mark.parametrize("row", range(stills.STRIDE + 1))
def test_a_change_in_any_row_is_seen(row: int) -> None:
    gate = StillGate(0.5)
    encoded = picture()
    changed = encoded.copy()
    changed[row, 0, 0] ^= 128
    assert [gate.same(encoded), gate.same(encoded.copy()), gate.same(changed)] == [False, True, False]


def test_moving_pictures_are_told_apart_by_their_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = stills.fourth_powers

    def counted(frame: Pixels, other: Pixels) -> float:
        looks.append(len(frame))
        return real(frame, other)

    monkeypatch.setattr(stills, "fourth_powers", counted)
    gate = StillGate(0.5)
    assert [gate.same(picture()), gate.same(picture(1))] == [False, False]
    assert looks == [224 // stills.STRIDE]


def test_equal_frames_reuse_and_others_do_not() -> None:
    gate = StillGate(0.5)
    assert [gate.same(frame) for frame in (picture(), picture(), picture(1), picture(1))] == [False, True, False, True]


def test_slow_change_adds_up_against_the_encoded_frame() -> None:
    gate = StillGate(2.0)
    answers = [gate.same(np.full((64, 64, 3), level, np.uint8)) for level in (100, 101, 102, 103, 104)]
    assert answers == [False, True, False, True, False]


def test_zero_switches_it_off() -> None:
    gate = StillGate(0.0)
    assert not any(gate.same(picture()) for _ in range(3))
