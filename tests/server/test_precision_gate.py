"""The gate, the search for what stays in float32, and the frames that both are done with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from matchcut.server import models, precision
from matchcut.server.errors import InvalidInput
from matchcut.server.precision import GATES, Figures, Gate, judge, search
from matchcut.server.precision.gate import FEWEST
from matchcut.server.records import Floats

RNG = np.random.default_rng(0)
VECTORS: Floats = RNG.standard_normal((40, 16)).astype(np.float32)


def test_the_gates_of_the_contract() -> None:
    assert {"fp16": Gate(0.999), "bf16": Gate(0.999), "int8": Gate(0.995, overlap=0.97)} == GATES


def test_the_same_vectors_are_the_same_whatever_their_length() -> None:
    figures = judge(VECTORS * 3, VECTORS)
    assert figures.frames == 40
    assert figures.cosine == pytest.approx(1)
    assert figures.overlap == 1
    assert GATES["int8"].faults(figures) == []


def test_the_least_cosine_counts() -> None:
    turned = VECTORS.copy()
    turned[7] = -turned[7]
    figures = judge(turned, VECTORS)
    assert figures.cosine == pytest.approx(-1)
    assert figures.mean_cosine == pytest.approx(38 / 40)
    assert GATES["fp16"].faults(figures) == ["cosine -1.00000 < 0.999"]


def test_overlap_counts_neighbours_that_are_the_same() -> None:
    # On a circle each one's ten nearest are five on either side; in other order they are whoever sits there.
    angles = np.arange(40) * 2 * np.pi / 40
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    order = np.arange(40)
    order[[0, 20]] = order[[20, 0]]
    expected = 0.0
    for at in range(40):
        near = {(at + step) % 40 for step in (*range(-5, 0), *range(1, 6))}
        place = int(np.flatnonzero(order == at)[0])
        moved = {int(order[(place + step) % 40]) for step in (*range(-5, 0), *range(1, 6))}
        expected += len(near & moved) / 10 / 40
    found = judge(circle[np.argsort(order)], circle).overlap
    assert found == pytest.approx(expected)
    assert expected < 1


@pytest.mark.parametrize(("frames", "known"), [(1, False), (FEWEST - 1, False), (FEWEST, True)])
def test_few_frames_have_no_overlap(frames: int, known: bool) -> None:
    figures = judge(VECTORS[:frames], VECTORS[:frames])
    assert (figures.overlap is not None) is known
    assert bool(GATES["int8"].faults(figures)) is not known
    assert GATES["fp16"].faults(figures) == []
    assert ("not measured" in str(figures)) is not known


def test_what_is_no_number_never_passes() -> None:
    broken = VECTORS.copy()
    broken[3] = np.nan
    assert GATES["fp16"].faults(judge(broken, VECTORS))
    assert GATES["fp16"].faults(judge(np.zeros_like(VECTORS), VECTORS)) == ["cosine 0.00000 < 0.999"]
    assert Gate(0.5, 0.5).faults(Figures(30, 1.0, 1.0, float("nan"))) == ["top-10 overlap nan < 0.5"]


def test_a_narrowed_gate_lets_less_through() -> None:
    narrow = GATES["int8"].narrowed(0.5)
    assert narrow.cosine == pytest.approx(0.9975)
    assert narrow.overlap == pytest.approx(0.985)
    assert GATES["fp16"].narrowed(0.5).overlap == 0


@given(count=st.integers(0, 60), least=st.integers(0, 70))
def test_the_fewest_layers_are_found(count: int, least: int) -> None:
    tried: list[int] = []

    def enough(number: int) -> bool:
        assert 0 <= number < count
        tried.append(number)
        return number >= least

    found = search.fewest(count, enough)
    assert found == (least if least < count else None)
    assert len(tried) <= 9
    assert search.onwards(0, count, lambda number: number >= least) == found


@given(st.lists(st.booleans(), max_size=30))
def test_a_number_that_is_found_was_enough(answers: list[bool]) -> None:
    found = search.fewest(len(answers), lambda number: answers[number])
    assert found is None or answers[found]


def test_layers_are_ordered_by_the_damage_that_they_do_alone() -> None:
    noise = {"good": 0.01, "bad": 1.0, "middling": 0.1}
    told: list[int] = []
    order = search.by_damage(
        list(noise),
        lambda name: VECTORS + noise[name] * RNG.standard_normal(VECTORS.shape).astype(np.float32),
        VECTORS,
        told.append,
    )
    assert order == ["bad", "middling", "good"]
    assert told == [1, 2, 3]


# ---- frames ----


def test_the_halves_of_a_clip_do_not_meet(media: Path, small_encoder: Path) -> None:
    encoder = models.load(small_encoder)
    frames = precision.read([media / "bikes.mp4", media / "world.mp4"], encoder, rate=2.0, most=64)
    assert frames.media == ("bikes.mp4", "world.mp4")
    assert frames.calibration.shape == (10 + 16, 3, 32, 32)
    assert frames.held_out.shape == (10 + 16, 3, 32, 32)
    assert frames.calibration.dtype == np.float32
    alone = precision.read([media / "bikes.mp4"], encoder, rate=2.0, most=64)
    np.testing.assert_array_equal(frames.calibration[:10], alone.calibration)
    np.testing.assert_array_equal(frames.held_out[:10], alone.held_out)
    for frame in alone.calibration:
        assert not any(np.array_equal(frame, other) for other in alone.held_out)
    fewer = precision.read([media / "bikes.mp4"], encoder, rate=2.0, most=7)
    assert len(fewer.calibration) + len(fewer.held_out) == 7


def test_pictures_take_turns_and_blank_ones_are_left_out(media: Path, small_encoder: Path, tmp_path: Path) -> None:
    encoder = models.load(small_encoder)
    Image.new("RGB", (64, 64), "black").save(tmp_path / "black.png")
    paths = [media / "cheetah.jpg", tmp_path / "black.png", media / "lion.jpg", media / "tower.jpg"]
    frames = precision.read(paths, encoder, rate=1.0, most=100)
    assert (len(frames.calibration), len(frames.held_out)) == (1, 2)


def test_media_that_is_of_no_use(media: Path, small_encoder: Path, tmp_path: Path) -> None:
    encoder = models.load(small_encoder)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 1000)
    with pytest.raises(InvalidInput, match=r"broken\.mp4: "):
        precision.read([media / "bikes.mp4", broken], encoder, rate=1.0, most=10)
    with pytest.raises(InvalidInput, match=r"none\.mp4 cannot be read: No such file"):
        precision.read([tmp_path / "none.mp4"], encoder, rate=1.0, most=10)
    with pytest.raises(InvalidInput, match="cannot be read"):
        precision.read([tmp_path], encoder, rate=1.0, most=10)
    for paths in ([], [media / "lion.jpg"]):
        with pytest.raises(InvalidInput, match="too few to calibrate and to judge; give more media"):
            precision.read(paths, encoder, rate=1.0, most=10)
