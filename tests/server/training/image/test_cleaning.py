"""Planted copies are found, what only looks alike is not, and hashes are compared with all that may be near."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from matchcut.server.records import InputSize, Pixels
from matchcut.server.training.image import cleaning
from matchcut.server.training.image.cleaning import candidates, clean, components, hashes, nearly_equal
from matchcut.server.training.image.pictures import Pictures, digits, folder

SIZE = InputSize(64, 64)
MakeFolder = Callable[..., Path]


def of(pixels: Pixels, labels: list[int]) -> Pictures:
    names = tuple(f"{at}.png" for at in range(len(labels)))
    return Pictures(pixels, np.array(labels, np.int64), names, ("a", "b"))


def scene(seed: int, side: int = 64) -> Pixels:
    """Something with large and small parts, as a photograph has."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + random.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)


def compressed(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=40)
    return np.asarray(Image.open(buffer).convert("RGB"))


def lighter(pixels: Pixels) -> Pixels:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(1.15))


def smaller(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((40, 40)).resize(image.size))


def test_planted_files_are_found(make_folder: MakeFolder) -> None:
    root = make_folder(each=4)
    copy = root / "stripes0" / "00.png"
    (root / "stripes0" / "zz_copy.png").write_bytes(copy.read_bytes())
    (root / "stripes2" / "zz_other_class.png").write_bytes((root / "stripes1" / "00.png").read_bytes())
    Image.open(root / "stripes1" / "02.png").save(root / "stripes1" / "zz_again.jpg", quality=70)
    read = folder(root, SIZE)
    found = clean(read)

    def names(pairs: tuple[tuple[int, int], ...]) -> set[tuple[str, str]]:
        return {(read.names[a], read.names[b]) for a, b in pairs}

    crossed = ("stripes1/00.png", "stripes2/zz_other_class.png")
    assert names(found.equal) == {("stripes0/00.png", "stripes0/zz_copy.png"), crossed}
    assert ("stripes1/02.png", "stripes1/zz_again.jpg") in names(found.near)
    assert crossed in names(found.conflicts)
    left_out = {read.names[row] for row in np.flatnonzero(~found.keep)}
    assert left_out == {"stripes0/zz_copy.png", *crossed}  # of a conflict neither is right for certain


@pytest.mark.parametrize("change", [compressed, lighter, smaller])
@pytest.mark.parametrize("paired", [20_000, 0])
def test_changed_copies_are_nearly_equal(
    change: Callable[[Pixels], Pixels], paired: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "PAIRED", paired)  # without pairs by hashes
    scenes = [scene(seed) for seed in range(12)]
    found = clean(of(np.stack([*scenes, change(scenes[5])]), [0] * 13))
    assert found.near == ((5, 12),)
    assert found.keep.all()
    assert found.groups[12] == found.groups[5] == 5
    assert not found.conflicts


@pytest.mark.parametrize(("near", "found"), [(0.9, ((0, 1),)), (0.99999, ()), (1.0, ())])
def test_what_is_nearly_equal_can_be_said(near: float, found: tuple[tuple[int, int], ...]) -> None:
    one = scene(1)
    cleaned = clean(of(np.stack([one, compressed(one), one]), [0] * 3), near)
    assert (cleaned.near, cleaned.equal) == (found, ((0, 2),))


def test_nearly_equal_pictures_of_two_classes_are_a_conflict_but_stay() -> None:
    one = scene(1)
    found = clean(of(np.stack([one, scene(2), compressed(one)]), [0, 0, 1]))
    assert found.conflicts == ((0, 2),)
    assert found.keep.all()


def test_flat_pictures_are_not_near_to_each_other() -> None:
    greys = np.stack([np.full((64, 64, 3), grey, np.uint8) for grey in (0, 10, 20, 200)])
    assert clean(of(greys, [0, 0, 1, 1])).near == ()


def test_digits_of_different_people_are_not_taken_for_copies() -> None:
    found = clean(digits(InputSize(32, 32)))
    assert not found.equal
    assert not found.conflicts
    assert len(found.near) < 40  # of 1,797, most of them ones


def test_all_pairs_are_compared_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "BLOCK", 2)
    scenes = [scene(seed) for seed in range(7)]
    pixels = np.stack([*scenes, *map(compressed, scenes)])
    assert clean(of(pixels, [0] * 14)).near == tuple((at, at + 7) for at in range(7))


def test_the_digest_names_pixels_and_labels() -> None:
    pixels = np.stack([scene(1), scene(2)])
    digest = clean(of(pixels, [0, 1])).digest
    assert clean(of(pixels.copy(), [0, 1])).digest == digest
    assert clean(of(pixels, [1, 1])).digest != digest
    assert clean(of(pixels[::-1], [0, 1])).digest != digest


def test_no_pictures_have_no_copies() -> None:
    assert nearly_equal(np.empty((0, 32, 32), np.float32)) == []


def test_hashes_do_not_see_brightness_and_contrast() -> None:
    grey = np.random.default_rng(0).uniform(0, 255, (9, 32, 32)).astype(np.float32)
    codes = hashes(grey)
    assert (hashes(grey * 0.5 + 30) == codes).all()
    assert len(set(codes.tolist())) == 9


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sets(st.integers(0, 63), max_size=7)).map(
            lambda pair: (0, 0x0F0F0F0F0F0F0F0F, (1 << 64) - 1)[pair[0]] ^ sum(1 << bit for bit in pair[1])
        ),
        max_size=24,
    )
)
def test_candidates_are_all_that_differ_in_few_bits(values: list[int]) -> None:
    codes = np.array(values, np.uint64)
    found = {tuple(sorted(pair)) for pair in candidates(codes)}
    expected = {
        (a, b) for b in range(len(values)) for a in range(b) if (values[a] ^ values[b]).bit_count() <= cleaning.BITS
    }
    assert found == expected


def test_a_crowd_of_one_hash_is_compared_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "WINDOW", 3)
    pairs = set(candidates(np.zeros(50, np.uint64)))
    assert len(pairs) == 3 * 47 + 2 + 1
    assert len(set(components(50, sorted(pairs)).tolist())) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_components(pairs: list[tuple[int, int]]) -> None:
    found = components(10, pairs)
    assert all(found[a] == found[b] for a, b in pairs)
    assert all(found[at] <= at and found[found[at]] == found[at] for at in range(10))
    # Nothing hangs together without a pair: as many parts as pairs that do not close a ring leave.
    joined = {at: {at} for at in range(10)}
    for a, b in pairs:
        if joined[a] is not joined[b]:
            joined[a] |= joined[b]
            for each in joined[a]:
                joined[each] = joined[a]
    assert len(set(found.tolist())) == len({id(each) for each in joined.values()})
