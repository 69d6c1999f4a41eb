"""Answers to tag filters are remembered, and no item is asked twice."""

from __future__ import annotations

from matchcut.server.catalog.contract import Known
from matchcut.server.catalog.tags import TagMasks
from matchcut.server.records import EncoderIdentity, Item, TagFilter

X = TagFilter(any_of=frozenset("x"))


class Watched(list[Known]):
    """A list that counts how often an entry is looked at."""

    looks = 0

    def __getitem__(self, at: object) -> Known:  # type: ignore[override]
        self.looks += 1
        return super().__getitem__(at)  # type: ignore[call-overload, no-any-return]


def entries(*tags: str) -> Watched:
    encoder = EncoderIdentity("e", "1", "d", 1)
    return Watched(Known(Item(str(at), tags=tuple(have)), encoder, b"") for at, have in enumerate(tags))


def test_only_new_items_are_asked() -> None:
    masks, items = TagMasks(), entries("x", "y", "xy", "")
    assert masks.mask(X, items, 2).tolist() == [True, False]
    assert items.looks == 2
    assert masks.mask(X, items, 4).tolist() == [True, False, True, False]
    assert items.looks == 4
    assert masks.mask(X, items, 3).tolist() == [True, False, True]
    assert items.looks == 4


def test_the_memory_is_bounded() -> None:
    masks, items = TagMasks(), entries("x")
    for at in range(200):
        masks.mask(TagFilter(any_of=frozenset({str(at)})), items, 1)
        masks.mask(X, items, 1)
    assert len(masks._masks) <= 64
    assert items.looks < 200 + 10  # the filter that is in use is seldom forgotten
