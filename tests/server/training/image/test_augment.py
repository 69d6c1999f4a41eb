"""Pictures are changed within bounds, by the generator's chance only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from matchcut.server.training.image.augment import Augment
from matchcut.server.training.image.samples import PictureSamples, VectorSamples, statistics

STILL = Augment(degrees=0, scale=0, shift=0, brightness=0, contrast=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6) -> torch.Tensor:
    return torch.rand((count, 3, 16, 20), generator=generator(9)) * 255


def test_nothing_allowed_changes_nothing() -> None:
    assert torch.allclose(STILL(pictures(), generator()), pictures(), atol=1e-2)


def test_chance_is_the_generators() -> None:
    augment = Augment()
    one, again, other = (
        augment(pictures(), generator(1)),
        augment(pictures(), generator(1)),
        augment(pictures(), generator(2)),
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, pictures(), atol=5)
    assert one.shape == pictures().shape
    assert float(one.min()) >= 0
    assert float(one.max()) <= 255


def test_half_of_them_are_mirrored() -> None:
    given = pictures(200)
    made = Augment(degrees=0, scale=0, shift=0, brightness=0, contrast=0, flip=True)(given, generator())
    same = [torch.allclose(a, b, atol=1e-2) for a, b in zip(made, given, strict=True)]
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-2) for a, b in zip(made, given, strict=True)]
    assert sum(same) + sum(mirrored) == 200
    assert 60 < sum(mirrored) < 140


@pytest.mark.parametrize("name", ["degrees", "scale", "shift", "brightness", "contrast"])
def test_each_bound_does_something(name: str) -> None:
    amount: Any = {"degrees": 20.0}.get(name, 0.3)
    changed = replace(STILL, **{name: amount})
    assert not torch.allclose(changed(pictures(), generator()), pictures(), atol=3)


def samples(augment: Augment | None) -> PictureSamples:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    rows = np.array([4, 0, 2])
    return PictureSamples(pixels, rows, np.array([1, 0, 1]), (100.0, 110.0, 120.0), (50.0, 60.0, 70.0), augment)


def test_batches_are_normalised() -> None:
    found = samples(Augment()).batch(np.array([2, 0]), None)
    expected = (samples(None).pixels[[2, 4]] - np.array([100.0, 110.0, 120.0])) / np.array([50.0, 60.0, 70.0])
    assert found.numpy() == pytest.approx(expected.transpose(0, 3, 1, 2), abs=1e-5)


def test_only_batches_to_learn_from_are_changed() -> None:
    rows = np.arange(3)
    plain = samples(None).batch(rows, None)
    assert torch.equal(samples(Augment()).batch(rows, None), plain)
    assert torch.equal(samples(None).batch(rows, generator()), plain)
    assert not torch.equal(samples(Augment()).batch(rows, generator()), plain)


def test_vectors_are_of_a_view_at_random_to_learn_from() -> None:
    vectors = np.arange(3 * 50 * 1, dtype=np.float32).reshape(3, 50, 1)
    made = VectorSamples(vectors, np.zeros(50, np.int64))
    rows = np.arange(50)
    assert made.batch(rows, None).numpy().ravel().tolist() == list(range(50))
    views = made.batch(rows, generator()).numpy().ravel() // 50
    assert set(views.tolist()) == {0.0, 1.0, 2.0}


def test_statistics_are_those_of_the_rows() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (700, 4, 4, 3), np.uint8)  # more than a block
    rows = np.arange(0, 700, 2)
    mean, std = statistics(pixels, rows)
    chosen = pixels[rows].reshape(-1, 3).astype(np.float64)
    assert mean == pytest.approx(chosen.mean(axis=0), abs=1e-4)
    assert std == pytest.approx(chosen.std(axis=0), abs=1e-4)


def test_pictures_of_one_colour_have_a_deviation() -> None:
    assert statistics(np.full((3, 4, 4, 3), 7, np.uint8), np.arange(3))[1] == (1.0, 1.0, 1.0)
