"""Makes changes: first in the record, then in the memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import inf
from threading import Lock

from matchcut.server.catalog.changes import Change, Decision, Stage, decide
from matchcut.server.catalog.changes import after as outcome_of
from matchcut.server.catalog.coder import Coder, Coding
from matchcut.server.catalog.contract import Known, Lacking, Listener, Switched
from matchcut.server.catalog.edition import LocalEdition
from matchcut.server.catalog.memory import Memory, key_of
from matchcut.server.catalog.store import Store
from matchcut.server.errors import EncoderMismatch, MatchcutError, StoreFailed
from matchcut.server.records import EncoderIdentity

Verdict = Decision | Exception
_LOOK_S = 1.0  # between two looks at whether the record is still there
_NAMED = 100  # items that are named of those that lack an encoder's vectors

_log = logging.getLogger("matchcut.catalog")


class Keeper:
    """Changes store and memory together. Its methods are called by one thread at a time, others read meanwhile.

    memory: to be read with the lock; a switch puts another in its place. own: see contract.Catalog.

    Args:
        store: None: nothing is kept.
        coding, scan_from: see local.open_catalog.
    """

    def __init__(self, memory: Memory, store: Store | None, *, coding: Coding | None, scan_from: int) -> None:
        self.memory = memory
        self.lock = Lock()  # over the memory; never held while the disk is waited for
        self.own = None if store is None else store.own()
        self._store = store
        self._listeners: dict[object, Listener] = {}
        self._coder = None if coding is None else Coder(memory, self.lock, coding, least=scan_from)

    def close(self) -> None:
        """Ends the coding."""
        if self._coder is not None:
            self._coder.close()

    def commit(self, wishes: Sequence[Change]) -> list[Verdict]:
        """First the disk, then the memory. Where all cannot be done at once, each gets a try of its own."""
        verdicts = self._decide(wishes)
        changes = [verdict.change for verdict in verdicts if isinstance(verdict, Decision) and verdict.change]
        try:
            if changes:
                with self.lock:
                    self.memory.reserve_for(changes)
                if self._store is not None:
                    self._store.apply(changes)
            else:
                self.check()  # what is there already is acknowledged, too
        except Exception as error:
            if len(wishes) > 1:
                return [verdict for wish in wishes for verdict in self.commit([wish])]
            return [_no_room(error) if isinstance(error, MemoryError) else error]
        with self.lock:
            for change in changes:
                self.memory.apply(change)
        if self._coder is not None:
            self._coder.notice(change.tenant for change in changes)
        seen = [(change.tenant, change.item_id) for change in changes if not isinstance(change, Stage)]
        for listener in list(self._listeners.values()):
            _tell(listener, seen)
        return verdicts

    def check(self) -> None:
        """See Store.check; on any thread."""
        if self._store is not None:
            self._store.check()

    def look(self) -> float:
        """See commit.Writer: tells of a record that is gone, also where nothing is to be written."""
        return _LOOK_S if self._store is None or self._store.lasts() else inf

    def follow(self, listener: Listener) -> Callable[[], None]:
        """See contract.Catalog. What it returns may be called by any thread."""
        place = object()
        _tell(listener, self.memory.items())  # nothing changes meanwhile: no lock
        self._listeners[place] = listener

        def end() -> None:
            self._listeners.pop(place, None)

        return end

    def lacking(self, encoder: EncoderIdentity) -> Lacking:
        """See contract.Catalog."""
        found = self.memory.lacking(key_of(encoder))  # nothing changes meanwhile: no lock
        first = tuple(islice(found, _NAMED))
        with self.lock:
            items = self.memory.sizes().items
        return Lacking(items, len(first) + sum(1 for _ in found), first)

    def switch(self, encoder: EncoderIdentity, *, force: bool) -> Switched:
        """See contract.Catalog. All is made ready aside, so that readers only see the end of it."""
        lacking = self.lacking(encoder)
        if lacking.count and not force:
            raise EncoderMismatch(_lacking(lacking, encoder), reason="ITEMS_LACKING")
        with self.lock:
            views = self.memory.views()
        try:
            fresh = self.memory.switched(key_of(encoder), views)
        except MemoryError as error:
            raise _no_room(error) from error
        if self._store is not None:
            self._store.switch(encoder)
        with self.lock:
            self.memory, self.own = fresh, encoder
            if self._coder is not None:
                self._coder.follow(fresh)
        if self._coder is not None:
            self._coder.notice(fresh.tenants())
        for listener in list(self._listeners.values()):
            _tell(listener, fresh.items())
        done = Switched(LocalEdition(fresh, self.lock), lacking.items, lacking.items - lacking.count)
        _log.info("%d of %d items are of %r from now on", done.count, done.items, encoder.name)
        return done

    def _decide(self, wishes: Sequence[Change]) -> list[Verdict]:
        """What each comes to after those before it."""
        ahead: dict[tuple[str, str], Known | None] = {}
        verdicts: list[Verdict] = []
        for wish in wishes:
            place = wish.tenant, wish.item_id
            if place in ahead:
                present = ahead[place]
            else:
                with self.lock:
                    present = self.memory.known(*place)
            try:
                decision = decide(wish, present, self.own)
            except MatchcutError as error:
                verdicts.append(error)
                continue
            verdicts.append(decision)
            if decision.change is not None:
                ahead[place] = outcome_of(decision.change, present)
        return verdicts


def _tell(listener: Listener, places: Iterable[tuple[str, str]]) -> None:
    """Calls the listener; its defects are not the changes'."""
    try:
        for place in places:
            listener(*place)
    except Exception:
        _log.exception("what follows the catalogue failed, and has missed a change")


def _lacking(found: Lacking, encoder: EncoderIdentity) -> str:
    tenant, item_id = found.first[0]
    return (
        f"{found.count} of {found.items} items have no vectors of {encoder.name!r} yet, such as {item_id!r} of tenant "
        f"{tenant!r}; nothing was switched: run `matchcut reindex` for each tenant, or force it, which leaves those "
        "items with the vectors that they have"
    )


def _no_room(error: MemoryError) -> StoreFailed:
    failed = StoreFailed(
        "there is no memory left for more vectors, or no room on the disk if they are kept there; remove items, or "
        "add some",
        reason="STORE_FULL",
    )
    failed.__cause__ = error
    return failed
