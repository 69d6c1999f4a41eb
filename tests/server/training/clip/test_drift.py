"""Drifting digits: only the order of the frames tells the classes apart, and video keeps what they show."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput
from matchcut.server.records import InputSize
from matchcut.server.training.clip import drift
from matchcut.server.training.clip.reading import Recipe, decoded

SIZES = st.integers(32, 96)
HALVES = st.integers(3, 20)


@given(size=SIZES, half=HALVES, x=st.integers(0, 95), y=st.integers(0, 95))
def test_all_classes_are_seen_at_the_same_places_in_another_order(size: int, half: int, x: int, y: int) -> None:
    start = x % size, y % size
    every = [drift.places(label, 2 * half, size, start) for label in range(4)]
    sets = [sorted(map(tuple, found.tolist())) for found in every]
    assert sets[0] == sets[1] == sets[2] == sets[3]
    assert len({found.tobytes() for found in every}) == 4
    for found in every:
        assert found.shape == (2 * half, 2)
        assert tuple(found[0]) == tuple(found[half]) == start


@pytest.mark.parametrize(("label", "across", "along"), [(0, -1, -1), (1, -1, 1), (2, 1, -1), (3, 1, 1)])
def test_the_class_says_where_it_goes(label: int, across: int, along: int) -> None:
    found = drift.places(label, 16, 32, (5, 7))
    moves = np.diff(found, axis=0)
    assert set((moves[:7, 0] * across) % 32) == {4}
    assert set((moves[8:, 1] * along) % 32) == {4}
    assert not moves[:7, 1].any()
    assert not moves[8:, 0].any()


@pytest.mark.parametrize("frames", [0, 2, 4, 7, -6])
def test_too_few_or_odd_frames_are_refused(frames: int) -> None:
    with pytest.raises(InvalidInput, match="even number of at least 6"):
        drift.places(0, frames, 32, (0, 0))


def test_the_digits_are_real_ones() -> None:
    digits = drift.digits()
    assert digits.shape == (1797, 8, 8)
    assert (digits.min(), digits.max()) == (0, 1)
    assert digits.mean() == pytest.approx(0.3053, abs=1e-4)  # 4.8842 of 16, as scikit-learn ships them


def test_video_keeps_every_frame() -> None:
    shown = drift.draw(drift.digits()[3], 2, frames=12, size=32, rng=np.random.default_rng(1))
    again = drift.draw(drift.digits()[3], 2, frames=12, size=32, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(shown, again)
    found = decoded(io.BytesIO(drift.video(shown)), Recipe(InputSize(32, 32), drift.FPS, 99))
    assert (found.shape, found.dtype) == (shown.shape, shown.dtype)
    # Each frame is nearest to itself: none is lost, doubled or moved.
    apart = np.abs(found[:, None].astype(int) - shown[None].astype(int)).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == list(range(12))
    assert np.diag(apart).max() < 12
