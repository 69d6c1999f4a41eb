"""How an item's media was read, as text and back."""

from __future__ import annotations

import hashlib
from dataclasses import astuple

import pytest

from matchcut.server.feed import ByteFeed
from matchcut.server.ingest import VECTORS, Recipe
from matchcut.server.records import Container, Media, MediaLimits, Sampling, ShotMode, TimeRange
from matchcut.server.segments import SegmentBounds

BOUNDS = SegmentBounds(500_000, 10_000_000, 512)
RECIPES = [
    Recipe(Sampling(), (), None, BOUNDS),
    Recipe(Sampling(29.97, 40_000, ShotMode.OFF, (0, 7)), (TimeRange(1, 2), TimeRange(3, 9)), None, BOUNDS),
    Recipe(Sampling(0.1 + 0.2, 0, ShotMode.EXACT), (), MediaLimits(1, 2, 3, 4, 5), SegmentBounds(0, 5_000_000, 3)),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_text_and_back(recipe: Recipe) -> None:
    again = Recipe.parse(recipe.text())
    assert again == recipe
    assert again is not None
    assert again.content(b"digest") == recipe.content(b"digest")  # to the last bit of a float


def test_each_part_changes_the_content() -> None:
    contents = {recipe.content(digest) for recipe in RECIPES for digest in (b"a", b"b")}
    assert len(contents) == 6


def test_the_content_is_what_it_always_was() -> None:
    sampling = Sampling(1.0, 0, ShotMode.EXACT)
    recipe = (astuple(sampling), (), None, astuple(BOUNDS))
    assert repr(recipe) == (
        "((1.0, 0, <ShotMode.EXACT: 'exact'>, ()), (), None, (500000, 10000000, 512))"
    )  # another text would make every item of every catalogue look like new
    expected = hashlib.sha256(b"digest" + repr(recipe).encode()).digest()
    assert Recipe(sampling, (), None, BOUNDS).content(b"digest") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", VECTORS, "null", "[]", "{}", "[1,2,3,4]", '[[1,0,"slow",[]],[],null,[0,1,1]]'),
        *('[[1,0,"off",[]],[],null,[0,1,1]]', '[[1,0,"off",[]],[[1,2,3]],null,[0,9000000,1]]'),
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert Recipe.parse(text) is None


def test_media_is_read_by_it() -> None:
    form = Container(ByteFeed([b""]))
    media = Media(form, Sampling(5.0), MediaLimits(), wanted=MediaLimits(bytes=9), segments=(TimeRange(0, 1),))
    applied = RECIPES[1].applied(media)
    assert (applied.form, applied.limits) == (form, media.limits)
    assert Recipe.of(applied, BOUNDS) == RECIPES[1]
