"""The shortlist: exactly the best by the query, with what is popular and new beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.kernels.device import Cpu
from matchcut.server.catalog import View, open_catalog
from matchcut.server.personal import shortlist as module
from matchcut.server.personal.shortlist import Popular, shortlist
from matchcut.server.records import EncoderIdentity, Floats, Item, Segment, TagFilter, TimeRange

ENCODER = EncoderIdentity("tiny", "1", "d", 8)
RANDOM = np.random.default_rng(3)


def unit(vector: Floats) -> Floats:
    made: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def view() -> View:
    """60 items, every third of them tagged."""
    catalog = open_catalog(None)
    for n in range(60):
        vector = unit(RANDOM.standard_normal(8).astype(np.float32))
        item = Item(f"item{n}", tags=("third",) if n % 3 == 0 else ())
        catalog.put("", item, [Segment(TimeRange(), vector)], ENCODER, b"%d" % n)
    return catalog.view("", ENCODER)


def nobody_left() -> None:
    """The caller is there."""


def rows(
    view: View, query: Floats | None, popular: tuple[str, ...] = (), *, size: int = 8, third: bool = False
) -> list[int]:
    tags = TagFilter(all_of=frozenset({"third"} if third else ()))
    eligible = view.eligible(frozenset({"item0"}), tags)
    found = shortlist(Cpu(), view, query, eligible, popular, size=size, check=nobody_left)
    assert (found.ranked is None) == (query is None)
    return [int(row) for row in found.rows]


def test_the_best_by_the_query_are_all_there_and_each_row_is_there_once(view: View) -> None:
    query = unit(RANDOM.standard_normal(8).astype(np.float32))
    found = rows(view, query, ("item5", "item6"))
    scores = view.rows @ query
    best = [row for row in np.argsort(-scores) if row != 0][:8]
    assert set(best) <= set(found)
    assert {5, 6} <= set(found), "two in eight places are for what is popular"
    assert {58, 59} <= set(found), "and two for what is new"
    assert found == sorted(set(found))
    assert 0 not in found


def test_filters_hold_for_what_is_popular_and_new_too(view: View) -> None:
    found = rows(view, None, ("item0", "item1", "gone", "item3", "item6"), size=4, third=True)
    assert all(row % 3 == 0 and row for row in found)
    assert {3, 6, 54, 57} == set(found)


def test_new_items_are_looked_for_until_there_are_enough(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 2)
    assert rows(view, None, size=8, third=True) == [48, 51, 54, 57]
    assert len(rows(view, None, size=1000, third=True)) == 19


def test_an_empty_catalogue_has_nothing() -> None:
    empty = open_catalog(None).view("", ENCODER)
    query = unit(np.ones(8, np.float32))
    for asked in (query, None):
        found = shortlist(Cpu(), empty, asked, None, ("item1",), size=4, check=nobody_left)
        assert len(found.rows) == 0
        assert found.ranked is None


def test_what_is_popular_is_put_in_order_once_for_each_reading() -> None:
    popular = Popular(2)
    first = {"a": 10, "c": 30, "b": 30}
    assert popular.of("", first) == ("b", "c")
    first["a"] = 99  # nobody does that; it shows that the order is remembered
    assert popular.of("", first) == ("b", "c")
    assert popular.of("", {"a": 99, "b": 1}) == ("a", "b")
    assert popular.of("other", {"x": 10}) == ("x",)


@given(st.dictionaries(st.text("abc", max_size=3), st.integers(1, 6)), st.integers(1, 12))
def test_the_most_popular_are_found_without_sorting_all(users: dict[str, int], most: int) -> None:
    in_order = sorted(users, key=lambda item_id: (-users[item_id], item_id))
    assert Popular(most).of("", users) == tuple(in_order[:most])
