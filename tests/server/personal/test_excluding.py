"""Exclusions that grow from list to list: the same rows as View.eligible leaves, and only new ids are looked up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.catalog import Catalog, View, open_catalog
from matchcut.server.personal.excluding import Excluding
from matchcut.server.records import EncoderIdentity, Item, Segment, TagFilter, TimeRange

ENCODER = EncoderIdentity("tiny", "1", "d", 2)
ALL = TagFilter()
THIRD = TagFilter(all_of=frozenset({"third"}))
IDS = st.frozensets(st.integers(0, 13).map("item{}".format))  # item10 and later are not there


def put(catalog: Catalog, number: int) -> None:
    item = Item(f"item{number}", tags=("third",) if number % 3 == 0 else ())
    catalog.put("", item, [Segment(TimeRange(), np.ones(2, np.float32))], ENCODER, b"%d" % number)


@pytest.fixture(scope="module")
def views() -> list[View]:
    """Of ten items; the same without item4; and with another item4."""
    catalog = open_catalog(None)
    for number in range(10):
        put(catalog, number)
    made = [catalog.view("", ENCODER)]
    catalog.remove("", "item4")
    made.append(catalog.view("", ENCODER))
    put(catalog, 4)
    return [*made, catalog.view("", ENCODER)]


class Counting:
    """A view that notes which ids are looked up."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.asked: list[set[str]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._view, name)

    def numbers(self, item_ids: Sequence[str]) -> object:
        self.asked.append(set(item_ids))
        return self._view.numbers(item_ids)


@given(st.lists(st.tuples(st.integers(0, 2), IDS, st.sampled_from([ALL, THIRD])), max_size=8))
def test_it_leaves_the_rows_that_the_view_leaves(
    views: list[View], lists: list[tuple[int, frozenset[str], TagFilter]]
) -> None:
    excluding = Excluding()
    for at, exclude, tags in lists:
        view = views[at]
        found, wanted = excluding.eligible(view, exclude, tags), view.eligible(exclude, tags)
        every = np.ones(len(view.rows), np.bool_)
        assert np.array_equal(every if found is None else found, every if wanted is None else wanted)


def test_only_ids_that_are_new_are_looked_up(views: list[View]) -> None:
    view, excluding = Counting(views[0]), Excluding()
    for exclude in ({"item1", "item2"}, {"item1", "item2", "item3"}, {"item1", "item2", "item3"}, {"item3"}):
        left = excluding.eligible(view, exclude, ALL)  # type: ignore[arg-type]
        assert left is not None
        assert [f"item{row}" for row in np.flatnonzero(~left)] == sorted(exclude)
    assert view.asked == [{"item1", "item2"}, {"item3"}, {"item3"}]


def test_of_another_view_all_are_looked_up(views: list[View]) -> None:
    excluding = Excluding()
    excluding.eligible(views[0], {"item4", "item5"}, ALL)
    last = Counting(views[2])  # where item4 has another row
    left = excluding.eligible(last, {"item4", "item5"}, ALL)  # type: ignore[arg-type]
    assert last.asked == [{"item4", "item5"}]
    assert left is not None
    assert np.flatnonzero(~left).tolist() == [4, 5, 10]  # row 4 is of the item that is gone


def test_a_view_is_not_kept_and_what_it_gave_is_not_changed() -> None:
    catalog = open_catalog(None)
    for number in range(3):
        put(catalog, number)
    catalog.remove("", "item0")
    view, excluding = catalog.view("", ENCODER), Excluding()
    passing = view.eligible(frozenset(), ALL)
    assert passing is not None
    excluding.eligible(view, {"item1"}, ALL)
    assert passing.tolist() == [False, True, True]
    put(catalog, 3)  # the catalogue has another view from now on
    last = excluding._last
    assert last is not None
    assert last[0]() is view.rows
    del view
    assert last[0]() is None
