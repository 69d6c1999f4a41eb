"""Whoever follows a catalogue is told of every item that is there, and of every change after it is visible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.errors import InvalidInput, StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Segment, TimeRange

Put = Callable[..., Any]
Told = list[tuple[str, str]]


def listen(catalog: Catalog) -> tuple[Told, Callable[[], None]]:
    told: Told = []
    return told, catalog.follow(lambda tenant, item_id: told.append((tenant, item_id)))


def test_what_is_there_comes_first_in_the_order_of_ingest(catalog: Catalog, put: Put) -> None:
    for item_id in ("c", "a", "b"):
        put(catalog, item_id)
    put(catalog, "a", seed=1)  # counts as new
    told, _ = listen(catalog)
    assert told == [("", "c"), ("", "b"), ("", "a")]


def test_changes_follow_and_what_is_none_does_not(
    catalog: Catalog, put: Put, clip: Callable[..., Any], encoder: EncoderIdentity
) -> None:
    told, end = listen(catalog)
    put(catalog, "a")
    put(catalog, "a")  # the same
    put(catalog, "a", tenant="other")
    put(catalog, "a", seed=1)
    catalog.update("", Item("a", "new title"))
    with pytest.raises(InvalidInput):
        catalog.put("", Item("b"), [], encoder, b"")
    catalog.remove("", "a")
    catalog.remove("", "a")  # it is gone
    assert told == [("", "a"), ("other", "a"), ("", "a"), ("", "a"), ("", "a")]
    end()
    end()
    put(catalog, "c")
    assert len(told) == 5


def test_a_change_is_visible_when_it_is_told(catalog: Catalog, put: Put) -> None:
    seen: list[bool] = []
    catalog.follow(lambda tenant, item_id: seen.append(catalog.known(tenant, item_id) is not None))
    put(catalog, "a")
    catalog.remove("", "a")
    assert seen == [True, False]


def test_a_switch_changes_all_and_what_is_kept_aside_nothing(catalog: Catalog, put: Put) -> None:
    for item_id in "ab":
        put(catalog, item_id)
    told, _ = listen(catalog)
    told.clear()
    other = EncoderIdentity("other", "1", "d2", 3)
    for item_id in "ab":
        known = catalog.known("", item_id)
        assert known is not None
        segments = [Segment(TimeRange(), np.ones(3, np.float32))]
        catalog.stage("", item_id, segments, other, b"x", of=known.content)
    assert told == []
    catalog.switch(other)
    assert told == [("", "a"), ("", "b")]


def test_a_listener_that_fails_is_not_the_changes_fault(
    catalog: Catalog, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(tenant: str, item_id: str) -> None:
        raise RuntimeError("defect")

    catalog.follow(fail)
    told, _ = listen(catalog)
    put(catalog, "a")
    assert told == [("", "a")]
    assert catalog.count("") == 1
    assert "has missed a change" in caplog.text


def test_items_from_the_disk_are_told(tmp_path: Path, put: Put) -> None:
    first = open_catalog(tmp_path / "c")
    put(first, "a", tenant="t")
    first.close()
    with pytest.raises(StoreFailed, match="closed"):
        listen(first)
    second = open_catalog(tmp_path / "c")
    told, end = listen(second)
    second.close()
    end()
    assert told == [("t", "a")]


def test_a_view_knows_the_number_of_each_item_that_is_there(
    catalog: Catalog, put: Put, encoder: EncoderIdentity
) -> None:
    for item_id in "abc":
        put(catalog, item_id)
    before = catalog.view("", encoder)
    catalog.remove("", "b")
    put(catalog, "a", seed=1)
    put(catalog, "d")
    after = catalog.view("", encoder)
    assert [before.group(item_id) for item_id in "abcd"] == [0, 1, 2, -1]
    assert before.numbers("abcd").tolist() == [0, 1, 2, -1]
    assert before.numbers("").tolist() == []
    assert after.numbers("dxba").tolist() == [after.group(item_id) for item_id in "dxba"]
    assert [after.item(after.group(item_id)).item_id for item_id in "acd"] == ["a", "c", "d"]
    assert after.group("b") == after.group("") == -1
    assert after.group("a") != before.group("a")
