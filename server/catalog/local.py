"""The catalogue of one machine: durable in SQLite, read from memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from matchcut.server.catalog.changes import Amend, Change, Decision, Put, Remove, after, decide
from matchcut.server.catalog.coder import Coder, Coding
from matchcut.server.catalog.contract import Catalog, Known, Sizes, Stored, View
from matchcut.server.catalog.folder import Folder
from matchcut.server.catalog.memory import Memory, key_of
from matchcut.server.catalog.store import Store
from matchcut.server.catalog.writer import Verdict, Writer
from matchcut.server.errors import EncoderMismatch, InvalidInput, NotFound, StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter

_LOOK = 1024  # items that a filter looks at before others get their turn
_CODED = 1024  # fewer rows are ranked as fast without codes


def open_catalog(
    path: Path | None, *, limit_bytes: int = 0, coding: Coding | None = None, scan_from: int = _CODED
) -> Catalog:
    """The catalogue that lives in a folder, all of it read into memory.

    Args:
        path: the folder, made where it is missing; None: in memory only, gone at the end.
        limit_bytes: see store.Store.
        coding: the device that ranks, which makes the codes for it in the background; None: no rows are coded.
        scan_from: rows from which on a tenant's vectors of one encoder are coded.

    Raises:
        StoreFailed: another process has it, it is damaged, or it is not a catalogue of this version.
    """
    memory = Memory()
    with ExitStack() as opened:
        store = None
        if path is not None:
            folder = Folder(path)
            opened.callback(folder.close)
            store = Store(path / "catalog.sqlite", limit_bytes=limit_bytes)
            opened.callback(store.close)
            memory.reserve(store.sizes())
            for put in store.items():
                memory.apply(put)
        return LocalCatalog(memory, store, opened.pop_all(), coding=coding, scan_from=scan_from)


class LocalCatalog:
    """See contract.Catalog.

    Args:
        memory: what is there, as the store has it.
        store: None: nothing is kept.
        resources: closed at the end.
        coding, scan_from: see open_catalog.
    """

    def __init__(
        self,
        memory: Memory,
        store: Store | None,
        resources: ExitStack,
        *,
        coding: Coding | None = None,
        scan_from: int = _CODED,
    ) -> None:
        self._memory = memory
        self._store = store
        self._resources = resources
        self._lock = Lock()  # over the memory; never held while the disk is waited for
        self._coder = None if coding is None else Coder(memory, self._lock, coding, least=scan_from)
        self._writer = Writer(self._commit)

    def put(
        self, tenant: str, item: Item, segments: Sequence[Segment], encoder: EncoderIdentity, content: bytes
    ) -> Outcome:
        """See contract.Catalog."""
        if not segments:
            raise InvalidInput(f"{item.item_id!r} has no segment; give it at least one", field="segments")
        for at, segment in enumerate(segments):
            if segment.vector.shape != (encoder.dimensions,):
                raise EncoderMismatch(
                    f"segments[{at}] of {item.item_id!r} has a vector of shape {segment.vector.shape}, "
                    f"{encoder.name!r} makes ({encoder.dimensions},)",
                    field=f"segments[{at}].vector",
                )
        vectors = np.stack([segment.vector for segment in segments]).astype(np.float32, copy=False)
        if not np.isfinite(vectors).all():
            raise InvalidInput(f"a vector of {item.item_id!r} holds NaN or infinity", field="segments")
        ranges = np.array([segment.range for segment in segments], np.int64)
        known = Known(_own(item), encoder, content)
        return self._writer.submit(Put(tenant, known, ranges, vectors)).outcome

    def update(self, tenant: str, item: Item) -> Outcome:
        """See contract.Catalog."""
        return self._writer.submit(Amend(tenant, _own(item))).outcome

    def remove(self, tenant: str, item_id: str) -> bool:
        """See contract.Catalog."""
        return self._writer.submit(Remove(tenant, item_id)).change is not None

    def known(self, tenant: str, item_id: str) -> Known | None:
        """See contract.Catalog."""
        with self._lock:
            return self._memory.known(tenant, item_id)

    def get(self, tenant: str, item_id: str) -> Stored | None:
        """See contract.Catalog."""
        with self._lock:
            return self._memory.stored(tenant, item_id)

    def view(self, tenant: str, encoder: EncoderIdentity) -> View:
        """See contract.Catalog."""
        with self._lock:
            return self._memory.view(tenant, key_of(encoder))

    def count(self, tenant: str) -> int:
        """See contract.Catalog."""
        with self._lock:
            return self._memory.count(tenant)

    def page(self, tenant: str, *, after: str, size: int, tags: TagFilter) -> tuple[list[Item], bool]:
        """See contract.Catalog."""
        found: list[Item] = []
        most = _LOOK if tags else size + 1
        while len(found) <= size:
            with self._lock:
                looked = self._memory.items_after(tenant, after, most)
            found += [item for item in looked if tags.passes(item.tags)]
            if len(looked) < most:
                break
            after = looked[-1].item_id
        return found[:size], len(found) > size

    def sizes(self) -> Sizes:
        """See contract.Catalog."""
        with self._lock:
            return self._memory.sizes()

    def close(self) -> None:
        """See contract.Catalog."""
        self._writer.close()
        if self._coder is not None:
            self._coder.close()
        self._resources.close()

    def _commit(self, wishes: Sequence[Change]) -> list[Verdict]:
        """First the disk, then the memory. Where all cannot be done at once, each gets a try of its own."""
        verdicts = self._decide(wishes)
        changes = [verdict.change for verdict in verdicts if isinstance(verdict, Decision) and verdict.change]
        try:
            if changes:
                with self._lock:
                    self._memory.reserve_for(changes)
                if self._store is not None:
                    self._store.apply(changes)
        except Exception as error:
            if len(wishes) > 1:
                return [verdict for wish in wishes for verdict in self._commit([wish])]
            return [_no_room(error) if isinstance(error, MemoryError) else error]
        with self._lock:
            for change in changes:
                self._memory.apply(change)
        if self._coder is not None:
            self._coder.notice(change.tenant for change in changes)
        return verdicts

    def _decide(self, wishes: Sequence[Change]) -> list[Verdict]:
        """What each comes to after those before it."""
        ahead: dict[tuple[str, str], Known | None] = {}
        verdicts: list[Verdict] = []
        for wish in wishes:
            place = wish.tenant, wish.item_id
            present = ahead[place] if place in ahead else self.known(*place)
            try:
                decision = decide(wish, present)
            except NotFound as error:
                verdicts.append(error)
                continue
            verdicts.append(decision)
            if decision.change is not None:
                ahead[place] = after(decision.change, present)
        return verdicts


def _own(item: Item) -> Item:
    """The item with attributes that no caller can change later."""
    return replace(item, attributes=dict(item.attributes))


def _no_room(error: MemoryError) -> StoreFailed:
    failed = StoreFailed("there is no memory left for more vectors; remove items, or add memory", reason="STORE_FULL")
    failed.__cause__ = error
    return failed
