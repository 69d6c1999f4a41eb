"""Folders of small pictures whose classes are easy to tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matchcut.server.records import Pixels

MakeFolder = Callable[..., Path]


def striped(label: int, seed: int, *, side: int = 48) -> Pixels:
    """(side, side, 3) uint8: stripes whose direction is the class's, of any phase and colour, with noise."""
    random = np.random.default_rng([label, seed])
    y, x = np.mgrid[:side, :side] / side
    along = (x, y, x + y)[label]
    wave = np.sin(2 * np.pi * (along * random.uniform(3, 4) + random.uniform()))
    colour = random.uniform(60, 120, 3)
    picture = 128 + wave[:, :, None] * colour + random.normal(0, 8, (side, side, 3))
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def folder_of(root: Path, *, classes: int = 3, each: int = 12, side: int = 48) -> Path:
    """ROOT/stripes0/00.png and so on."""
    for label in range(classes):
        place = root / f"stripes{label}"
        place.mkdir(parents=True)
        for seed in range(each):
            Image.fromarray(striped(label, seed, side=side)).save(place / f"{seed:02}.png")
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of stripes; see folder_of."""

    def make(name: str = "data", **options: int) -> Path:
        return folder_of(tmp_path / name, **options)

    return make
