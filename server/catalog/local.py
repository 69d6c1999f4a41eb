"""The catalogue of one machine: durable in SQLite, read from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog.changes import Amend, Put, Remove, Stage
from matchcut.server.catalog.coder import Coding
from matchcut.server.catalog.contract import (
    FILE,
    Catalog,
    Edition,
    Known,
    Lacking,
    Listener,
    Readiness,
    Sizes,
    Stored,
    Switched,
    View,
)
from matchcut.server.catalog.edition import LocalEdition
from matchcut.server.catalog.filed import filed, held
from matchcut.server.catalog.folder import Folder
from matchcut.server.catalog.keeper import Keeper
from matchcut.server.catalog.memory import Memory, key_of
from matchcut.server.catalog.store import Store
from matchcut.server.commit import Writer
from matchcut.server.errors import EncoderMismatch, InvalidInput
from matchcut.server.records import EncoderIdentity, Floats, Item, Outcome, Segment, TagFilter

_LOOK = 1024  # items that a filter looks at before others get their turn
_CODED = 1024  # fewer rows are ranked as fast without codes


def open_catalog(
    path: Path | None,
    *,
    limit_bytes: int = 0,
    coding: Coding | None = None,
    scan_from: int = _CODED,
    in_file: bool = False,
    gone: Callable[[], None] = lambda: None,
) -> Catalog:
    """The catalogue that lives in a folder, all of it read into memory, or the vectors into a file of the folder.

    Args:
        path: the folder, made where it is missing; None: in memory only, gone at the end.
        limit_bytes, gone: see store.Store.
        coding: the device that ranks, which makes the codes for it in the background; None: no rows are coded.
        scan_from: rows from which on a tenant's vectors of one encoder are coded.
        in_file: whether vectors are kept in a file and not in memory, if there is a folder; see filed.Filed.

    Raises:
        StoreFailed: another process has it, it is damaged, or it is not a catalogue of this version.
    """
    memory = Memory(filed(path) if path is not None and in_file else held)
    with ExitStack() as opened:
        store = None
        if path is not None:
            folder = Folder(path)
            opened.callback(folder.close)
            store = Store(path / FILE, limit_bytes=limit_bytes, gone=gone)
            opened.callback(store.close)
            memory.reserve(store.sizes())
            memory.load(store.items())
            for stage in store.staged():
                memory.apply(stage)
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
        self._resources = resources
        self._keeper = Keeper(memory, store, coding=coding, scan_from=scan_from)
        self._lock = self._keeper.lock
        upkeep = None if store is None else self._keeper.look
        self._writer = Writer(self._keeper.commit, noun="catalogue", upkeep=upkeep)

    @property
    def own(self) -> EncoderIdentity | None:
        """See contract.Catalog."""
        return self._keeper.own

    def put(
        self,
        tenant: str,
        item: Item,
        segments: Sequence[Segment],
        encoder: EncoderIdentity,
        content: bytes,
        recipe: str = "",
    ) -> Outcome:
        """See contract.Catalog."""
        known = Known(_own(item), encoder, content, recipe)
        return self._writer.submit(Put(tenant, known, *_arrays(item.item_id, segments, encoder))).outcome

    def stage(
        self,
        tenant: str,
        item_id: str,
        segments: Sequence[Segment],
        encoder: EncoderIdentity,
        content: bytes,
        recipe: str = "",
        *,
        of: bytes,
    ) -> Outcome:
        """See contract.Catalog."""
        known = Known(Item(item_id), encoder, content, recipe)
        return self._writer.submit(Stage(tenant, known, of, *_arrays(item_id, segments, encoder))).outcome

    def lacks(self, tenant: str, item_id: str, encoder: EncoderIdentity) -> bool:
        """See contract.Catalog."""
        self._keeper.check()
        with self._lock:
            return self._keeper.memory.lacks(tenant, item_id, key_of(encoder))

    def readiness(self, encoder: EncoderIdentity, tenant: str | None = None) -> Readiness:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.readiness(key_of(encoder), tenant)

    def lacking(self, encoder: EncoderIdentity) -> Lacking:
        """See contract.Catalog."""
        return self._writer.alone(lambda: self._keeper.lacking(encoder))

    def edition(self) -> Edition:
        """See contract.Catalog."""
        with self._lock:
            return LocalEdition(self._keeper.memory, self._lock)

    def switch(self, encoder: EncoderIdentity, *, force: bool = False) -> Switched:
        """See contract.Catalog."""
        return self._writer.alone(lambda: self._keeper.switch(encoder, force=force))

    def update(self, tenant: str, item: Item) -> Outcome:
        """See contract.Catalog."""
        return self._writer.submit(Amend(tenant, _own(item))).outcome

    def remove(self, tenant: str, item_id: str) -> bool:
        """See contract.Catalog."""
        return self._writer.submit(Remove(tenant, item_id)).change is not None

    def known(self, tenant: str, item_id: str) -> Known | None:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.known(tenant, item_id)

    def get(self, tenant: str, item_id: str) -> Stored | None:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.stored(tenant, item_id)

    def view(self, tenant: str, encoder: EncoderIdentity) -> View:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.view(tenant, key_of(encoder))

    def count(self, tenant: str) -> int:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.count(tenant)

    def page(
        self, tenant: str, *, after: str, size: int, tags: TagFilter, lacking: EncoderIdentity | None = None
    ) -> tuple[list[Item], bool]:
        """See contract.Catalog."""
        found: list[Item] = []
        most = _LOOK if tags or lacking else size + 1
        while len(found) <= size:
            with self._lock:
                looked = self._keeper.memory.items_after(tenant, after, most)
                kept = looked if lacking is None else self._without(tenant, looked, lacking)
            found += [item for item in kept if tags.passes(item.tags)]
            if len(looked) < most:
                break
            after = looked[-1].item_id
        return found[:size], len(found) > size

    def follow(self, listener: Listener) -> Callable[[], None]:
        """See contract.Catalog."""
        return self._writer.alone(lambda: self._keeper.follow(listener))

    def sizes(self) -> Sizes:
        """See contract.Catalog."""
        with self._lock:
            return self._keeper.memory.sizes()

    def close(self) -> None:
        """See contract.Catalog."""
        self._writer.close()
        self._keeper.close()
        self._resources.close()

    def _without(self, tenant: str, items: Sequence[Item], encoder: EncoderIdentity) -> list[Item]:
        """Those that have no vectors of the encoder."""
        key = key_of(encoder)
        return [item for item in items if self._keeper.memory.lacks(tenant, item.item_id, key)]


def _arrays(item_id: str, segments: Sequence[Segment], encoder: EncoderIdentity) -> tuple[NDArray[np.int64], Floats]:
    """(segments, 2) ranges and (segments, dimensions) vectors, checked; see contract.Catalog.put for what it raises."""
    if not segments:
        raise InvalidInput(f"{item_id!r} has no segment; give it at least one", field="segments")
    for at, segment in enumerate(segments):
        if segment.vector.shape != (encoder.dimensions,):
            raise EncoderMismatch(
                f"segments[{at}] of {item_id!r} has a vector of shape {segment.vector.shape}, "
                f"{encoder.name!r} makes ({encoder.dimensions},)",
                field=f"segments[{at}].vector",
            )
    vectors = np.stack([segment.vector for segment in segments]).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise InvalidInput(f"a vector of {item_id!r} holds NaN or infinity", field="segments")
    return np.array([segment.range for segment in segments], np.int64), vectors


def _own(item: Item) -> Item:
    """The item with attributes that no caller can change later."""
    return replace(item, attributes=dict(item.attributes))
