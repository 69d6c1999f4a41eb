"""The gallery shows what the catalogue has, as the session model sees it, some milliseconds later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.kernels.device import open_device
from matchcut.server.errors import EngineFailed
from matchcut.server.records import EncoderIdentity, Floats, Item, Segment, TagFilter, TimeRange
from matchcut.server.session import DecayingMean
from matchcut.server.users import Galleries, Gallery
from matchcut.server.users import mirror as mirror_module
from support.fake_log import FakeLog
from support.user_world import DIMENSIONS, ENCODER, SECONDS, World, vector

ALL = TagFilter()


def ids(gallery: Gallery, tags: TagFilter = ALL, exclude: frozenset[str] = frozenset()) -> list[str]:
    """The items that may be ranked, in the order of rows."""
    eligible = gallery.view.eligible(exclude, tags)
    rows = range(len(gallery.view.rows)) if eligible is None else np.flatnonzero(eligible).tolist()
    return [gallery.view.item(int(gallery.view.groups[row])).item_id for row in rows]


def introduced(gallery: Gallery) -> dict[str, int]:
    """When each item was introduced."""
    numbers = {item_id: gallery.view.group(item_id) for item_id in ids(gallery)}
    return {item_id: int(gallery.introduced_us[number]) for item_id, number in numbers.items()}


def test_what_is_there_is_there_and_what_comes_follows(world: World) -> None:
    for item_id in "cab":
        world.put(item_id)
    galleries = world.galleries()
    assert ids(galleries.gallery("")) == ["c", "a", "b"]
    before = galleries.gallery("")
    world.put("d")
    world.put("a", seed=1)
    world.catalog.remove("", "c")
    world.settle()
    found, vectors = galleries.gallery("").vectors(["d", "c", "a", "never"])
    assert found == ["d", "a"]
    np.testing.assert_allclose(vectors, [vector("d"), vector("a", 1)], atol=1e-6)
    assert ids(galleries.gallery("")) == ["b", "d", "a"]
    assert ids(before) == ["c", "a", "b"]
    np.testing.assert_allclose(before.vectors(["a"])[1][0], vector("a"), atol=1e-6)


@pytest.mark.alone
def test_a_cold_item_is_there_well_within_a_second(world: World) -> None:
    galleries = world.galleries()
    began = time.perf_counter()
    world.put("new")
    assert galleries.wait(1)
    assert ids(galleries.gallery("")) == ["new"]
    assert time.perf_counter() - began < 1


def test_an_item_is_the_mean_of_its_segments(world: World) -> None:
    parts = [vector("x"), vector("y"), vector("z")]
    segments = [Segment(TimeRange(at, at + 1), part) for at, part in enumerate(parts)]
    world.catalog.put("", Item("a", duration_us=3), segments, ENCODER, b"")
    opposite = [Segment(TimeRange(0, 1), parts[0]), Segment(TimeRange(1, 2), -parts[0])]
    world.catalog.put("", Item("cancels"), opposite, ENCODER, b"")
    gallery = world.galleries().gallery("")
    mean = np.mean(parts, axis=0)
    np.testing.assert_allclose(gallery.vectors(["a"])[1][0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(gallery.vectors(["cancels"])[1][0], parts[0], atol=1e-6)
    assert gallery.view.range(gallery.view.group("a")) == TimeRange(0, 3)


def test_tags_exclusions_and_tenants_are_the_catalogues(world: World) -> None:
    world.put("a", tags=("x",))
    world.put("b", tags=("x", "y"))
    world.put("c", tenant="other", tags=("x",))
    galleries = world.galleries()
    only = TagFilter(any_of=frozenset("x"))
    assert ids(galleries.gallery(""), only) == ["a", "b"]
    assert ids(galleries.gallery(""), only, frozenset("a")) == ["b"]
    assert ids(galleries.gallery("other")) == ["c"]
    assert ids(galleries.gallery("nobody")) == []
    epoch, _ = galleries.changed_since("", 0)
    world.catalog.update("", Item("a", tags=("z",)))
    world.settle()
    assert ids(galleries.gallery(""), only) == ["b"]
    assert galleries.changed_since("", epoch) == (epoch, set())  # the vector is the same


def test_when_items_were_introduced(world: World) -> None:
    world.put("old")
    galleries = world.galleries()
    world.time_us = 5000
    world.put("new")
    world.put("old", seed=1)
    world.settle()
    assert introduced(galleries.gallery("")) == {"old": 0, "new": 5000}
    world.time_us = 9000
    world.put("newer")
    world.settle()
    assert introduced(world.galleries().gallery("")) == {"old": 0, "new": 5000, "newer": 9000}  # after a restart


def test_a_second_gallery_calls_nothing_old_that_is_not(faked: World) -> None:
    assert isinstance(faked.log, FakeLog)
    faked.log.broken = True
    first = faked.galleries()
    faked.put("a")
    faked.settle()
    assert introduced(first.gallery("")) == {"a": 1000}  # the log cannot say
    faked.log.broken = False
    assert introduced(faked.galleries(unheard_us=7000).gallery("")) == {"a": 7000}


class Picky(DecayingMean):
    """Cannot take items whose id begins with "bad"; says NaN of those with "nan"."""

    def items(self, item_ids: Sequence[str], content: Floats) -> Floats:
        if any(item_id.startswith("bad") for item_id in item_ids):
            raise EngineFailed("a bad one")
        made = super().items(item_ids, content).copy()
        made[[item_id.startswith("nan") for item_id in item_ids]] = np.nan
        return made


def test_one_item_that_fails_is_left_out_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    galleries = world.galleries(Picky(ENCODER))
    with caplog.at_level(logging.WARNING, "matchcut.users"):
        for item_id in ("a", "bad", "b", "nan", "c"):
            world.put(item_id)
        world.settle()
    assert ids(galleries.gallery("")) == ["a", "b", "c"]
    assert {record.args[0] for record in caplog.records if isinstance(record.args, tuple)} == {"bad", "nan"}


def test_the_thread_outlives_any_defect(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    galleries = world.galleries()
    get = world.catalog.get

    def fail(tenant: str, item_id: str) -> object:
        if item_id == "cursed":
            raise RuntimeError("defect")
        return get(tenant, item_id)

    monkeypatch.setattr(world.catalog, "get", fail)
    world.put("cursed")
    world.settle()
    world.put("a")
    world.settle()
    assert ids(galleries.gallery("")) == ["a"]
    assert "could not be brought into the gallery" in caplog.text


def test_after_a_switch_items_stay_until_the_model_is_replaced(world: World) -> None:
    for item_id in "ab":
        world.put(item_id)
    galleries = world.galleries()
    other = EncoderIdentity("other", "1", "d2", 3)
    for item_id in "ab":
        known = world.catalog.known("", item_id)
        assert known is not None
        segments = [Segment(TimeRange(), np.eye(3, dtype=np.float32)[0])]
        world.catalog.stage("", item_id, segments, other, b"new", of=known.content)
    world.catalog.switch(other)
    world.catalog.update("", Item("a", tags=("t",)))
    world.catalog.put("", Item("c"), [Segment(TimeRange(), np.eye(3, dtype=np.float32)[1])], other, b"")
    world.settle()
    assert ids(galleries.gallery("")) == ["a", "b"]
    assert ids(galleries.gallery(""), TagFilter(any_of=frozenset("t"))) == ["a"]
    fresh = world.galleries(DecayingMean(other)).gallery("")
    assert ids(fresh) == ["a", "b", "c"]
    np.testing.assert_array_equal(fresh.vectors(["c"])[1][0], np.eye(3)[1])


def test_what_changed_is_told_and_too_much_is_said_to_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_TOLD", 3)
    galleries = world.galleries()
    assert galleries.changed_since("", 0) == (0, set())
    world.put("a")
    world.put("b")
    world.settle()
    world.catalog.remove("", "a")
    world.put("c", tenant="other")
    world.settle()
    assert galleries.changed_since("", 0) == (3, {"a", "b"})
    assert galleries.changed_since("", 2) == (3, {"a"})
    assert galleries.changed_since("", 3) == (3, set())
    assert galleries.changed_since("", -1) == galleries.changed_since("", 4) == (3, None)
    for item_id in "defgh":
        world.put(item_id)
    world.settle()
    epoch, changed = galleries.changed_since("", 0)
    assert (epoch, changed) == (8, None)
    assert galleries.changed_since("", 7) == (8, {"h"})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-1, 3)), max_size=60))
def test_numbers_vectors_and_times_agree_whatever_happens(changes: list[tuple[str, int]]) -> None:
    world = World()
    try:
        galleries = world.galleries()
        first: dict[str, int] = {}
        for at, (item_id, seed) in enumerate(changes):
            world.time_us = 2000 + at
            if seed < 0:
                world.catalog.remove("", item_id)
            else:
                first.setdefault(item_id, world.time_us)
                world.put(item_id, seed)
            world.settle()
        gallery = galleries.gallery("")
        there = [item.item_id for item in world.catalog.page("", after="", size=9, tags=ALL)[0]]
        assert sorted(ids(gallery)) == there
        assert introduced(gallery) == {item_id: first[item_id] for item_id in there}
        for item_id in there:
            stored = world.catalog.get("", item_id)
            assert stored is not None
            np.testing.assert_allclose(gallery.vectors([item_id])[1], [stored.segments[0].vector], atol=1e-6)
    finally:
        world.close()


def test_readers_see_items_and_times_of_one_moment(world: World) -> None:
    galleries = world.galleries()
    wrong: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            gallery = galleries.gallery("")
            if len(gallery.introduced_us) != (gallery.view.groups.max(initial=-1) + 1):
                wrong.append("another number of times than items")
            if not all(int(item_id[1:]) + 1 == time_us for item_id, time_us in introduced(gallery).items()):
                wrong.append("another item's time")

    reader = threading.Thread(target=read)
    reader.start()
    for at in range(150):
        world.time_us = at + 1
        world.put(f"i{at}")
        world.settle()
        if at % 3:
            world.catalog.remove("", f"i{at - 1}")  # so that it is compacted now and then
    world.settle()
    over.set()
    reader.join()
    assert wrong == []
    assert galleries.gallery("").view.count == 50


def test_many_rows_are_coded_for_the_scan(world: World) -> None:
    for at in range(300):
        world.put(f"i{at}")
    device = open_device()
    galleries = Galleries(
        world.catalog, world.log, DecayingMean(ENCODER), clock_us=lambda: 0, coding=device, scan_from=100
    )
    try:
        assert galleries.wait_ready(SECONDS)
        until = time.monotonic() + SECONDS
        while galleries.gallery("").view.coded is None and time.monotonic() < until:
            time.sleep(0.01)
        assert galleries.gallery("").view.coded is not None
    finally:
        galleries.close()


def test_projected_content_is_of_the_galleries_space(world: World) -> None:
    content = np.stack([vector("x"), vector("y")])
    projected = world.galleries().project(content)
    assert projected.shape == (2, DIMENSIONS)
    np.testing.assert_array_equal(projected, content)


def test_a_closed_one_follows_no_more(world: World) -> None:
    galleries = world.galleries()
    galleries.close()
    galleries.close()
    world.put("a")
    assert ids(galleries.gallery("")) == []
