"""What the last pictures tell: whether one is a mix of two others."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server.shots.history import History


def test_a_mixture_is_told_from_motion() -> None:
    one, other, unlike = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    for middle, expected in (((one.astype(int) + other) // 2, 1.0), (one, 0.0), (unlike, 0.0)):
        history = History()
        for number, look in enumerate((one, middle.astype(np.uint8), other)):
            history.add(number, look)
        assert history.mixture(0, 2) == pytest.approx(expected, abs=0.05)
