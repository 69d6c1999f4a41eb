"""What a view shows, and that nothing that comes after it shows in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from matchcut.server.catalog import Catalog, Sizes, View
from matchcut.server.records import EncoderIdentity, Item, TagFilter, TimeRange

ALL = TagFilter()
NONE: frozenset[str] = frozenset()


def ids(view: View, exclude: frozenset[str] = NONE, tags: TagFilter = ALL) -> list[str]:
    """The item of each eligible row."""
    eligible = view.eligible(exclude, tags)
    rows = range(len(view.rows)) if eligible is None else np.flatnonzero(eligible).tolist()
    return [view.item(int(view.groups[row])).item_id for row in rows]


def test_a_view_stays_as_it_was(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    for item_id in "abc":
        put(catalog, item_id)
    view = catalog.view("", encoder)
    rows, groups = view.rows.copy(), view.groups.copy()
    put(catalog, "d")
    put(catalog, "a", seed=1)
    catalog.update("", Item("b", "new", tags=("t",)))
    catalog.remove("", "c")
    for item_id in ("e", "f", "g"):  # room has to be made for these
        put(catalog, item_id)
    np.testing.assert_array_equal(view.rows, rows)
    np.testing.assert_array_equal(view.groups, groups)
    assert ids(view) == ["a", "a", "b", "b", "c", "c"]
    assert view.item(1).title == "title of b"
    assert view.item(0).attributes == {"seed": "0"}
    assert view.range(3) == TimeRange(10, 20)
    assert view.count == 3
    assert ids(view, tags=TagFilter(any_of=frozenset("t"))) == []
    later = catalog.view("", encoder)
    assert ids(later) == [item_id for item_id in "bdaefg" for _ in range(2)]
    assert ids(later, tags=TagFilter(any_of=frozenset("t"))) == ["b", "b"]
    assert later.count == 6


def test_a_view_cannot_be_written_to(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    put(catalog, "a")
    view = catalog.view("", encoder)
    for array in (view.rows, view.groups):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_exclusion_follows_what_the_view_knows(
    catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    for item_id in "abc":
        put(catalog, item_id)
    view = catalog.view("", encoder)
    assert view.eligible(NONE, ALL) is None
    assert view.eligible(frozenset({"unknown"}), ALL) is None
    assert ids(view, frozenset("a")) == ["b", "b", "c", "c"]
    for seed in (1, 2):  # a gets new numbers that the view does not know
        put(catalog, "a", seed=seed)
    put(catalog, "d")
    assert ids(view, frozenset("ad")) == ["b", "b", "c", "c"]
    assert ids(catalog.view("", encoder), frozenset("ad")) == ["b", "b", "c", "c"]
    assert ids(view, frozenset("abc")) == []


def test_tags_filter(catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity) -> None:
    def put(item_id: str, *tags: str) -> None:
        made = clip(item_id, segments=1, tags=tags)
        catalog.put("", made.item, made.segments, encoder, made.content)

    put("a", "x", "y")
    put("b", "x")
    put("c")
    x, y = frozenset("x"), frozenset("y")
    view = catalog.view("", encoder)
    assert ids(view, tags=TagFilter(all_of=x | y)) == ["a"]
    assert ids(view, tags=TagFilter(any_of=x | y)) == ["a", "b"]
    assert ids(view, tags=TagFilter(none_of=y)) == ["b", "c"]
    assert ids(view, frozenset("b"), TagFilter(none_of=y)) == ["c"]
    put("d", "y")  # the answers that are remembered are asked for one item more
    assert ids(catalog.view("", encoder), tags=TagFilter(none_of=y)) == ["b", "c"]
    assert ids(catalog.view("", encoder), tags=TagFilter(any_of=y)) == ["a", "d"]
    assert ids(view, tags=TagFilter(any_of=y)) == ["a"]
    catalog.update("", Item("c", tags=("y",)))  # and forgotten where tags change
    assert ids(catalog.view("", encoder), tags=TagFilter(any_of=y)) == ["a", "c", "d"]
    catalog.remove("", "a")
    assert ids(catalog.view("", encoder), tags=TagFilter(any_of=y)) == ["c", "d"]


def test_more_filters_than_are_remembered(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    put(catalog, "a", segments=1)
    view = catalog.view("", encoder)
    for at in range(200):
        assert ids(view, tags=TagFilter(none_of=frozenset({f"t{at}"}))) == ["a"]
        assert ids(view, tags=TagFilter(all_of=frozenset({f"t{at}"}))) == []


def test_dead_rows_go_when_they_are_the_most(
    catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    for item_id in "abcdefgh":
        put(catalog, item_id)
    before = catalog.view("", encoder)
    for item_id in "aceg":
        catalog.remove("", item_id)
    assert len(catalog.view("", encoder).rows) == 16  # half is dead, which is not the most
    put(catalog, "b", seed=1)
    after = catalog.view("", encoder)
    assert len(after.rows) == 8
    assert ids(after) == ["d", "d", "f", "f", "h", "h", "b", "b"]
    assert after.radius == pytest.approx(before.radius)
    assert ids(before) == [item_id for item_id in "abcdefgh" for _ in range(2)]
    assert ids(after, frozenset("d")) == ["f", "f", "h", "h", "b", "b"]
    catalog.update("", Item("h", "new"))
    put(catalog, "i")
    last = catalog.view("", encoder)
    assert ids(last) == ["d", "d", "f", "f", "h", "h", "b", "b", "i", "i"]
    for row, group in enumerate(last.groups.tolist()):
        stored = catalog.get("", last.item(group).item_id)
        assert stored is not None
        segment = next(segment for segment in stored.segments if segment.range == last.range(row))
        np.testing.assert_array_equal(segment.vector, last.rows[row])


def test_the_radius_bounds_every_row(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    for item_id in "abc":
        put(catalog, item_id)
    view = catalog.view("", encoder)
    assert view.radius == pytest.approx(np.linalg.norm(view.rows.astype(np.float64), axis=1).max(), rel=1e-12)


def test_eligible_rows_are_remembered_by_the_view_and_nobody_elses_to_write(
    catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    for item_id in "abcd":
        put(catalog, item_id)
    assert catalog.view("", encoder).eligible(NONE, ALL) is None
    catalog.remove("", "b")
    view = catalog.view("", encoder)
    there = view.eligible(NONE, ALL)
    assert there is not None
    assert there is view.eligible(NONE, ALL)
    assert there is view.eligible(frozenset({"b", "unknown"}), ALL), "none of them is there to be excluded"
    with pytest.raises(ValueError, match="read-only"):
        there[0] = False
    assert ids(view, frozenset("a")) == ["c", "c", "d", "d"]
    assert ids(view, frozenset("acd")) == []
    assert ids(view) == ["a", "a", "c", "c", "d", "d"], "an exclusion is of one request"


def test_nothing_is_coded_where_no_device_asks_for_it(
    catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    put(catalog, "a", segments=2000)
    assert catalog.view("", encoder).coded is None
    assert catalog.sizes() == Sizes(2000, 0, 0, items=1)
