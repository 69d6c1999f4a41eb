"""Any sequence of changes, views and restarts against a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from matchcut.kernels.device import open_device
from matchcut.kernels.topk import search
from matchcut.server.catalog import Catalog, View, open_catalog
from matchcut.server.errors import EncoderMismatch, NotFound
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter, TimeRange

ENCODERS = [EncoderIdentity("one", "1", "d1", 2), EncoderIdentity("two", "1", "d2", 3)]
IDS, TENANTS, TAGS = st.sampled_from("abcde"), st.sampled_from(["", "t"]), st.sets(st.sampled_from("xyz"))
DEVICE = open_device("cpu", threads=1)
FILTER = TagFilter(any_of=frozenset("xy"), none_of=frozenset("z"))


class Entry(NamedTuple):
    item: Item
    encoder: EncoderIdentity
    content: int
    vectors: list[list[float]]
    staged: tuple[EncoderIdentity, list[list[float]]] | None = None

    def lacks(self, encoder: EncoderIdentity) -> bool:
        return encoder not in (self.encoder, self.staged and self.staged[0])

    def switched(self, encoder: EncoderIdentity) -> Entry:
        if self.staged is None or self.staged[0] != encoder:
            return self._replace(staged=None)
        return self._replace(encoder=encoder, vectors=self.staged[1], staged=None)


def segments_of(vectors: NDArray[np.float32]) -> list[Segment]:
    return [Segment(TimeRange(at, at + 1), vector) for at, vector in enumerate(vectors)]


@dataclass
class Taken:
    """A view, and what it has to show."""

    view: View
    entries: list[Entry]

    def check(self) -> None:
        for tags in (TagFilter(), FILTER):
            for exclude in (frozenset[str](), frozenset("ab")):
                wanted = [
                    (entry.item, vector, (at, at + 1))
                    for entry in self.entries
                    if entry.item.item_id not in exclude and tags.passes(entry.item.tags)
                    for at, vector in enumerate(entry.vectors)
                ]
                eligible = self.view.eligible(exclude, tags)
                rows = range(len(self.view.rows)) if eligible is None else np.flatnonzero(eligible).tolist()
                self.check_ranking(eligible)
                assert wanted == [
                    (self.view.item(int(self.view.groups[row])), self.view.rows[row].tolist(), self.view.range(row))
                    for row in rows
                ]
        assert self.view.count == len(self.entries)
        assert self.view.coded is None or self.view.coded.count == len(self.view.rows)
        assert (np.diff(self.view.groups) >= 0).all()
        assert all(np.linalg.norm(vector) <= self.view.radius for entry in self.entries for vector in entry.vectors)

    def check_ranking(self, eligible: NDArray[np.bool_] | None) -> None:
        """Codes, where there are any, change no answer."""
        view = self.view
        if view.coded is not None:
            queries = np.array([[3, -1, 2], [0, 1, -4]], np.float32)[:, : view.rows.shape[1]]
            expected = search(queries, view.rows, groups=view.groups, k=2, eligible=eligible)
            found = DEVICE.search(queries, view.rows, groups=view.groups, k=2, eligible=eligible, coded=view.coded)
            assert list(found) == list(expected)


class Machine(RuleBasedStateMachine):
    """The catalogue beside {tenant: {id: entry}}, in the order of ingest."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.catalog = self.open()
        self.model: dict[str, dict[str, Entry]] = {"": {}, "t": {}}
        self.own: EncoderIdentity | None = None
        self.taken: list[Taken] = []

    def open(self) -> Catalog:
        return open_catalog(self.folder)

    def teardown(self) -> None:
        self.catalog.close()
        shutil.rmtree(self.folder)

    @rule(tenant=TENANTS, item_id=IDS, tags=TAGS, encoder=st.sampled_from(ENCODERS), content=st.integers(0, 4))
    def put(self, tenant: str, item_id: str, tags: set[str], encoder: EncoderIdentity, content: int) -> None:
        random = np.random.default_rng(content)
        vectors = random.integers(-4, 5, (1 + content % 3, encoder.dimensions)).astype(np.float32)
        segments = segments_of(vectors)
        item = Item(item_id, tags=tuple(sorted(tags)), duration_us=content)
        outcome = self.catalog.put(tenant, item, segments, encoder, bytes([content]))
        entries, before = self.model[tenant], self.model[tenant].get(item_id)
        if before is not None and (before.encoder, before.content) == (encoder, content):
            assert outcome is (Outcome.UNCHANGED if before.item == item else Outcome.UPDATED)
            entries[item_id] = before._replace(item=item)
        else:
            assert outcome is (Outcome.CREATED if before is None else Outcome.REPLACED)
            entries.pop(item_id, None)
            entries[item_id] = Entry(item, encoder, content, vectors.tolist())

    @rule(tenant=TENANTS, item_id=IDS, tags=TAGS, title=st.sampled_from(["", "new"]))
    def update(self, tenant: str, item_id: str, tags: set[str], title: str) -> None:
        item = Item(item_id, title, tags=tuple(sorted(tags)))
        before = self.model[tenant].get(item_id)
        if before is None:
            with pytest.raises(NotFound):
                self.catalog.update(tenant, item)
            return
        item = replace(item, duration_us=before.item.duration_us)
        outcome = self.catalog.update(tenant, replace(item, duration_us=99))
        assert outcome is (Outcome.UNCHANGED if item == before.item else Outcome.UPDATED)
        self.model[tenant][item_id] = before._replace(item=item)

    @rule(tenant=TENANTS, item_id=IDS)
    def remove(self, tenant: str, item_id: str) -> None:
        assert self.catalog.remove(tenant, item_id) is (self.model[tenant].pop(item_id, None) is not None)

    @rule(tenant=TENANTS, item_id=IDS, encoder=st.sampled_from(ENCODERS), seed=st.integers(5, 9), other=st.booleans())
    def stage(self, tenant: str, item_id: str, encoder: EncoderIdentity, seed: int, other: bool) -> None:
        entries, before = self.model[tenant], self.model[tenant].get(item_id)
        vectors = np.random.default_rng(seed).integers(-4, 5, (1 + seed % 3, encoder.dimensions)).astype(np.float32)
        content = bytes([9 if other or before is None else before.content])

        def stage() -> Outcome:
            return self.catalog.stage(tenant, item_id, segments_of(vectors), encoder, content, of=content)

        if before is None or other:
            with pytest.raises(NotFound if before is None else EncoderMismatch):
                stage()
        elif before.encoder == encoder:
            assert stage() is Outcome.UNCHANGED
        elif self.own == encoder:
            assert stage() is Outcome.REPLACED
            del entries[item_id]
            entries[item_id] = Entry(before.item, encoder, before.content, vectors.tolist())
        else:
            assert stage() is Outcome.CREATED
            entries[item_id] = before._replace(staged=(encoder, vectors.tolist()))

    @rule(encoder=st.sampled_from(ENCODERS), force=st.booleans())
    def switch(self, encoder: EncoderIdentity, force: bool) -> None:
        every = [entry for entries in self.model.values() for entry in entries.values()]
        lacking = sum(entry.lacks(encoder) for entry in every)
        if lacking and not force:
            with pytest.raises(EncoderMismatch, match=f"^{lacking} of {len(every)} items"):
                self.catalog.switch(encoder)
            return
        edition = self.catalog.edition()
        done = self.catalog.switch(encoder, force=force)
        assert (done.items, done.count) == (len(every), len(every) - lacking)
        for tenant, entries in self.model.items():
            for one in ENCODERS:
                here = [entry for entry in entries.values() if entry.encoder == one]
                self.taken.append(Taken(edition.view(tenant, one), here))
            self.model[tenant] = {item_id: entry.switched(encoder) for item_id, entry in entries.items()}
        self.own = encoder

    @rule(tenant=TENANTS, encoder=st.sampled_from(ENCODERS))
    def view(self, tenant: str, encoder: EncoderIdentity) -> None:
        entries = [entry for entry in self.model[tenant].values() if entry.encoder == encoder]
        self.taken.append(Taken(self.catalog.view(tenant, encoder), entries))

    @precondition(lambda self: self.taken)
    @rule()
    def look_back(self) -> None:
        for taken in self.taken:
            taken.check()

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = self.open()

    @invariant()
    def knows_what_is_aside(self) -> None:
        assert self.catalog.own == self.own
        for encoder in ENCODERS:
            lacking = {
                (tenant, item_id)
                for tenant, entries in self.model.items()
                for item_id, entry in entries.items()
                if entry.lacks(encoder)
            }
            found = self.catalog.lacking(encoder)
            assert (set(found.first), found.count) == (lacking, len(lacking))
            ready = self.catalog.readiness(encoder)
            assert (ready.items, ready.ready) == (found.items, found.items - found.count)
            for tenant, entries in self.model.items():
                page, _ = self.catalog.page(tenant, after="", size=9, tags=TagFilter(), lacking=encoder)
                assert [item.item_id for item in page] == sorted(i for t, i in lacking if t == tenant)
                assert self.catalog.readiness(encoder, tenant).ready == len(entries) - len(page)

    @invariant()
    def agrees(self) -> None:
        for tenant, entries in self.model.items():
            assert self.catalog.count(tenant) == len(entries)
            items, more = self.catalog.page(tenant, after="", size=9, tags=TagFilter())
            assert (items, more) == ([entries[item_id].item for item_id in sorted(entries)], False)
            for encoder in ENCODERS:
                here = [entry for entry in entries.values() if entry.encoder == encoder]
                Taken(self.catalog.view(tenant, encoder), here).check()
            for item_id in "abcde":
                stored, entry = self.catalog.get(tenant, item_id), entries.get(item_id)
                assert (stored is None) is (entry is None)
                if stored is not None and entry is not None:
                    assert (stored.item, stored.encoder) == (entry.item, entry.encoder)
                    assert [segment.vector.tolist() for segment in stored.segments] == entry.vectors


class TestMachine(Machine.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class CodedMachine(Machine):
    """The same where every shelf is coded, as soon as the thread that does it gets to it."""

    def open(self) -> Catalog:
        return open_catalog(self.folder, coding=DEVICE, scan_from=1)

    @rule()
    def wait_for_codes(self) -> None:
        end = time.monotonic() + 20
        while (sizes := self.catalog.sizes()).coded < sizes.segments:
            assert time.monotonic() < end, "this takes too long"
            time.sleep(0.001)


class TestCodedMachine(CodedMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class FiledMachine(CodedMachine):
    """The same where vectors are in files."""

    def open(self) -> Catalog:
        return open_catalog(self.folder, coding=DEVICE, scan_from=1, in_file=True)


@pytest.mark.usefixtures("few_in_files")
class TestFiledMachine(FiledMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
