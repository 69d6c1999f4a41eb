"""What a catalogue promises, in memory and on disk alike."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from matchcut.server.catalog import Catalog, View, local
from matchcut.server.errors import EncoderMismatch, InvalidInput, NotFound, StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter, TimeRange

ALL = TagFilter()
NONE: frozenset[str] = frozenset()


def ids(view: View, exclude: frozenset[str] = NONE, tags: TagFilter = ALL) -> list[str]:
    """The item of each eligible row."""
    eligible = view.eligible(exclude, tags)
    rows = range(len(view.rows)) if eligible is None else np.flatnonzero(eligible).tolist()
    return [view.item(int(view.groups[row])).item_id for row in rows]


def test_keeps_an_item_whole(catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity) -> None:
    made = clip("a", tags=("x", "y"))
    assert catalog.put("", made.item, made.segments, encoder, made.content) is Outcome.CREATED
    stored, known = catalog.get("", "a"), catalog.known("", "a")
    assert stored is not None
    assert known is not None
    assert (stored.item, stored.encoder) == (made.item, encoder)
    assert [segment.range for segment in stored.segments] == [TimeRange(0, 10), TimeRange(10, 20)]
    for kept, given in zip(stored.segments, made.segments, strict=True):
        np.testing.assert_array_equal(kept.vector, given.vector)
        assert kept.vector.dtype == np.float32
    assert (known.item, known.encoder, known.content) == (made.item, encoder, made.content)


def test_what_is_not_there(catalog: Catalog, encoder: EncoderIdentity) -> None:
    assert catalog.get("", "a") is None
    assert catalog.known("", "a") is None
    assert catalog.remove("", "a") is False
    assert catalog.count("") == 0
    assert catalog.page("", after="", size=10, tags=ALL) == ([], False)
    view = catalog.view("", encoder)
    assert (view.rows.shape, view.groups.shape, view.count, view.radius) == ((0, 6), (0,), 0, 0.0)
    assert view.eligible(frozenset({"a"}), TagFilter(all_of=frozenset({"x"}))) is None
    with pytest.raises(NotFound, match="no item 'a'"):
        catalog.update("", Item("a"))


def test_tells_what_a_put_did(catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity) -> None:
    made, other = clip("a"), clip("a", seed=1, segments=3)

    def put(item: Item, clip: Any = made, encoder: EncoderIdentity = encoder) -> Outcome:
        return catalog.put("", item, clip.segments, encoder, clip.content)

    assert put(made.item) is Outcome.CREATED
    assert put(made.item) is Outcome.UNCHANGED
    assert put(replace(made.item, title="new")) is Outcome.UPDATED
    assert put(other.item, other) is Outcome.REPLACED
    stored = catalog.get("", "a")
    assert stored is not None
    assert (stored.item, len(stored.segments)) == (other.item, 3)
    assert put(other.item, other, replace(encoder, digest="d2")) is Outcome.REPLACED
    assert catalog.count("") == 1


def test_the_same_content_put_again_brings_its_record(
    catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    made = clip("a")
    catalog.put("", made.item, made.segments, encoder, made.content)
    view = catalog.view("", encoder)
    longer = replace(made.item, duration_us=made.item.duration_us + 7)
    assert catalog.put("", longer, made.segments, encoder, made.content) is Outcome.UPDATED
    stored = catalog.get("", "a")
    assert stored is not None
    assert stored.item == longer
    assert catalog.view("", encoder).rows is view.rows or catalog.view("", encoder).rows.shape == view.rows.shape
    assert catalog.put("", longer, made.segments, encoder, made.content) is Outcome.UNCHANGED


def test_an_update_leaves_segments_and_duration(
    catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    put(catalog, "a")
    before = catalog.get("", "a")
    assert before is not None
    assert catalog.update("", replace(before.item, duration_us=0)) is Outcome.UNCHANGED
    assert catalog.update("", Item("a", "new", tags=("t",))) is Outcome.UPDATED
    after = catalog.get("", "a")
    assert after is not None
    assert after.item == Item("a", "new", tags=("t",), duration_us=before.item.duration_us)
    assert [s.range for s in after.segments] == [s.range for s in before.segments]
    known = catalog.known("", "a")
    assert known is not None
    assert known.content == b"0"


def test_tenants_do_not_meet(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    put(catalog, "a", seed=1, tenant="one")
    put(catalog, "a", seed=2, tenant="two")
    put(catalog, "b", tenant="two")
    assert (catalog.count("one"), catalog.count("two"), catalog.count("")) == (1, 2, 0)
    assert ids(catalog.view("one", encoder)) == ["a", "a"]
    assert catalog.remove("one", "a")
    assert catalog.get("one", "a") is None
    stored = catalog.get("two", "a")
    assert stored is not None
    assert stored.item.attributes == {"seed": "2"}
    assert ids(catalog.view("one", encoder)) == []


def test_encoders_do_not_meet(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    wide = replace(encoder, dimensions=2)  # the same digest, but vectors that cannot be compared
    other = replace(encoder, digest="d2")
    put(catalog, "a")
    put(catalog, "b")
    segment = Segment(TimeRange(), np.ones(2, np.float32))
    assert catalog.put("", Item("c"), [segment], wide, b"c") is Outcome.CREATED
    moved = Segment(TimeRange(), np.ones(6, np.float32))
    assert catalog.put("", Item("a"), [moved], other, b"a") is Outcome.REPLACED
    assert ids(catalog.view("", encoder)) == ["b", "b"]
    assert ids(catalog.view("", wide)) == ["c"]
    assert ids(catalog.view("", other)) == ["a"]
    assert ids(catalog.view("", replace(encoder, name="another name, the same digest"))) == ["b", "b"]
    stored = catalog.get("", "a")
    assert stored is not None
    assert stored.encoder == other


def test_pages(
    catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOOK", 3)  # so that a filter has to look several times
    for at in (5, 2, 8, 1, 9, 0, 3, 7, 4, 6):
        made = clip(f"i{at}", tags=("even",) if at % 2 == 0 else ())
        catalog.put("", made.item, made.segments, encoder, made.content)
    for tags, wanted in ((ALL, range(10)), (TagFilter(all_of=frozenset({"even"})), range(0, 10, 2))):
        for size in (1, 2, 3, 4, 5, 10, 11):
            seen: list[str] = []
            more = True
            while more:
                items, more = catalog.page("", after=seen[-1] if seen else "", size=size, tags=tags)
                assert len(items) == size or not more
                assert items
                seen += [item.item_id for item in items]
            assert seen == [f"i{at}" for at in wanted]
    catalog.remove("", "i5")
    items, more = catalog.page("", after="i4", size=2, tags=ALL)
    assert ([item.item_id for item in items], more) == (["i6", "i7"], True)
    assert catalog.count("") == 9


def test_ids_sort_by_code_point(catalog: Catalog, put: Callable[..., Any]) -> None:
    strange = ["", "Z", "a", "ä", "\uffee", "😀", "a\x00b", "a b", "%", "'"]
    catalog.page("", after="", size=1, tags=ALL)
    for item_id in strange:
        put(catalog, item_id)
    items, _ = catalog.page("", after="", size=20, tags=ALL)
    assert [item.item_id for item in items] == sorted(strange)[1:]  # all come after "", save "" itself
    assert all(catalog.get("", item_id) for item_id in strange)


def test_refuses_vectors_that_cannot_be_compared(
    catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    made = clip("a")
    broken = made.segments[1].vector.copy()
    broken[0] = np.nan
    with pytest.raises(InvalidInput, match="'a' has no segment"):
        catalog.put("", made.item, [], encoder, b"")
    with pytest.raises(EncoderMismatch, match=r"segments\[0\] of 'a'") as caught:
        catalog.put("", made.item, made.segments, replace(encoder, dimensions=7), b"")
    assert caught.value.field == "segments[0].vector"
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        catalog.put("", made.item, [made.segments[0], Segment(TimeRange(), broken)], encoder, b"")
    assert catalog.count("") == 0


def test_callers_cannot_change_what_is_kept(
    catalog: Catalog, clip: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    made = clip("a")
    attributes = {"k": "v"}
    catalog.put("", replace(made.item, attributes=attributes), made.segments, encoder, made.content)
    attributes["k"] = "changed"
    stored = catalog.get("", "a")
    assert stored is not None
    assert stored.item.attributes == {"k": "v"}
    stored.segments[0].vector[:] = 0
    again = catalog.get("", "a")
    assert again is not None
    np.testing.assert_array_equal(again.segments[0].vector, made.segments[0].vector)


def test_many_threads_at_once(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    def work(thread: int) -> list[Outcome]:
        outcomes = [put(catalog, f"{thread}-{at}") for at in range(12)]
        outcomes += [put(catalog, "shared", seed=thread, segments=1 + thread)]
        view = catalog.view("", encoder)
        assert {f"{thread}-{at}" for at in range(12)} <= set(ids(view))  # each sees what it put in
        assert catalog.remove("", f"{thread}-3")
        return outcomes

    with ThreadPoolExecutor(8) as pool:
        outcomes = [outcome for found in pool.map(work, range(8)) for outcome in found]
    assert outcomes.count(Outcome.CREATED) == 8 * 12 + 1
    assert outcomes.count(Outcome.REPLACED) == 7
    assert catalog.count("") == 8 * 11 + 1
    stored = catalog.get("", "shared")
    assert stored is not None
    assert len(stored.segments) == 1 + int(stored.item.attributes["seed"])
    view = catalog.view("", encoder)
    assert len(ids(view)) == 8 * 11 * 2 + len(stored.segments)


def test_a_closed_catalogue_says_so(catalog: Catalog, put: Callable[..., Any], encoder: EncoderIdentity) -> None:
    put(catalog, "a")
    view = catalog.view("", encoder)
    catalog.close()
    catalog.close()
    with pytest.raises(StoreFailed, match="closed") as caught:
        put(catalog, "b")
    assert caught.value.reason == "STORE_CLOSED"
    assert ids(view) == ["a", "a"]
