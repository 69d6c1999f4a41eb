"""The catalogue's items as a session model sees them, kept up to date beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence, Set
from threading import Condition, Lock, Thread
from typing import NamedTuple

import numpy as np

from matchcut.server.catalog import Catalog
from matchcut.server.catalog.changes import Amend, Change, Put, Remove
from matchcut.server.catalog.coder import Coding
from matchcut.server.catalog.contract import Known, Stored
from matchcut.server.errors import MatchcutError
from matchcut.server.events.contract import EventLog
from matchcut.server.records import EncoderIdentity, Floats, Item
from matchcut.server.session import SessionModel
from matchcut.server.users.content import content, digest
from matchcut.server.users.contract import Gallery
from matchcut.server.users.mirror import Mirror

__all__ = ["Galleries"]

_BATCH = 128  # items that go through the model together, and are put in while readers wait
_PATIENCE_S = 5.0  # how long the first one to ask waits, where nothing was made ahead
_SCAN_FROM = 1024  # rows from which on they are coded for the scan; see catalog.open_catalog

_log = logging.getLogger("matchcut.users")


class _Found(NamedTuple):
    """An item of the model's encoder whose content is not in the gallery yet."""

    tenant: str
    item: Item
    content: Floats
    digest: bytes


class Galleries:
    """Every tenant's gallery for one session model. Safe to be used by several threads at once.

    One thread follows the catalogue: items are looked up, go through the model in batches, and are in the gallery some
    milliseconds after they are in the catalogue. An item that the model cannot take is left out, and said in the log.
    Once another encoder has taken over the catalogue, items stay as this model saw them last: it is to be replaced by
    one that takes that encoder's vectors.

    model: which is its owner's to close.

    Args:
        catalog: which is followed.
        log: says when items were first heard of, and is told of new ones.
        coding, scan_from: see catalog.open_catalog.
        clock_us: the time, in microseconds since the epoch.
        unheard_us: when items are said to be introduced that are in the catalogue now while the log has never heard
            of them. 0, long ago, is right where the log is new; the time is where another gallery was there before.
        ahead: False: nothing is done, and no memory taken, until somebody asks for a gallery; who asks first waits for
            it, some seconds at most.

    Raises:
        StoreFailed: the catalogue is closed.
    """

    def __init__(
        self,
        catalog: Catalog,
        log: EventLog,
        model: SessionModel,
        *,
        clock_us: Callable[[], int],
        unheard_us: int = 0,
        coding: Coding | None = None,
        scan_from: int = _SCAN_FROM,
        ahead: bool = True,
    ) -> None:
        self.model = model
        self._catalog = catalog
        self._events = log
        self._clock_us = clock_us
        self._unheard_us = unheard_us
        identity = model.identity
        self._encoder = EncoderIdentity(identity.name, identity.version, identity.digest, identity.dimensions)
        self._mirror = Mirror(self._encoder, coding=coding, scan_from=scan_from)
        self._lock = Lock()  # over what follows, and what waits
        self._news = Condition(self._lock)
        self._waiting: dict[tuple[str, str], None] = {}  # in the order in which they changed
        self._busy = self._closed = False
        self._first = 0  # items of the first fill that are not in yet
        self._end: Callable[[], None] | None = None  # None: nobody has asked yet
        self._beginning = Lock()
        self._thread = Thread(target=self._run, name="gallery", daemon=True)
        if ahead:
            self._begin()

    @property
    def ready(self) -> bool:
        """Whether all is in that was in the catalogue at the start."""
        return self._end is not None and self._first == 0

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits for `ready`, so many seconds at most; what it is then. Also ends when this is closed."""
        self._begin()
        with self._news:
            self._news.wait_for(lambda: self.ready or self._closed, timeout)
            return self.ready

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until all is in that the catalogue has told so far, so many seconds at most; whether it is."""
        self._begin()
        with self._news:
            return self._news.wait_for(lambda: not (self._waiting or self._busy), timeout)

    def gallery(self, tenant: str) -> Gallery:
        """A tenant's items as of now."""
        self._asked()
        return self._mirror.gallery(tenant)

    def changed_since(self, tenant: str, epoch: int) -> tuple[int, set[str] | None]:
        """How far the gallery is now, and the ids of items that came, went or got another vector since it was at
        `epoch`; None: too many to tell. At the very start it is at 0.

        What gallery() gives afterwards is at least as far.
        """
        self._asked()
        return self._mirror.changed_since(tenant, epoch)

    def has(self, tenant: str, item_id: str) -> bool:
        """Whether the catalogue has the item, be it in the gallery yet or not."""
        return self._catalog.known(tenant, item_id) is not None

    def project(self, content: Floats) -> Floats:
        """(n, d) what the model makes of content vectors, (n, c) of unit length, that belong to no item.

        Raises:
            EngineFailed: as SessionModel.items.
        """
        return self.model.items([""] * len(content), content)

    def close(self) -> None:
        """Follows the catalogue no more; galleries that were given out stay usable. Closing again does nothing."""
        with self._beginning:
            end = self._end
            with self._news:
                self._closed = True
                self._news.notify_all()
        if end is not None:
            end()
            self._thread.join()
        self._mirror.close()

    def _asked(self) -> None:
        """Somebody wants a gallery: it is begun, if it was not, and then waited for."""
        if self._end is None and self._begin():
            self.wait_ready(_PATIENCE_S)

    def _begin(self) -> bool:
        """Follows the catalogue from now on; whether this call was the one that began. Not once it is closed."""
        with self._beginning:
            if self._end is not None or self._closed:
                return False
            end = self._catalog.follow(self._notice)
            with self._lock:
                self._first = len(self._waiting)
            self._end = end
            self._thread.start()
            return True

    def _notice(self, tenant: str, item_id: str) -> None:
        with self._news:
            self._waiting[tenant, item_id] = None
            self._news.notify_all()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            first = min(self._first, len(batch))  # those of the first fill wait before all others
            try:
                self._take(batch, frozenset(batch[:first]))
            except Exception:  # whatever it is, the next ones are to come
                _log.exception("%d items could not be brought into the gallery", len(batch))
            with self._news:
                self._busy = False
                self._first -= first
                self._news.notify_all()

    def _next(self) -> list[tuple[str, str]] | None:
        """What is to be looked at; None: it is the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            batch = [place for place, _ in zip(self._waiting, range(_BATCH), strict=False)]
            for place in batch:
                del self._waiting[place]
            self._busy = True
            return batch

    def _take(self, batch: Iterable[tuple[str, str]], first: Set[tuple[str, str]]) -> None:
        """Brings what the catalogue has of these items now into the gallery; `first` are those of the first fill."""
        changes: list[Change] = []
        found: list[_Found] = []
        for tenant, item_id in batch:
            stored = self._catalog.get(tenant, item_id)
            if stored is None:
                changes.append(Remove(tenant, item_id))
            elif (stored.encoder.digest, stored.encoder.dimensions) != self._takes():
                changes += [Amend(tenant, stored.item)] if self._mirror.known(tenant, item_id) else []
            else:
                changes += self._look(tenant, stored, found)
        for item, vector in zip(found, self._vectors(found), strict=True):
            changes.append(Remove(item.tenant, item.item.item_id) if vector is None else self._put(item, vector))
        self._mirror.apply(changes, self._introduced(changes, first))

    def _takes(self) -> tuple[str, int]:
        return self.model.encoder.digest, self.model.encoder.dimensions

    def _look(self, tenant: str, stored: Stored, found: list[_Found]) -> list[Change]:
        """Adds an item to those that the model has to see; else what is to be done without it."""
        try:
            vector = content(stored)
        except MatchcutError as error:
            _log.warning("item %r of tenant %r has no content to recommend by: %s", stored.item.item_id, tenant, error)
            return [Remove(tenant, stored.item.item_id)]
        mark = digest(vector, stored)
        known = self._mirror.known(tenant, stored.item.item_id)
        if known is not None and known.content == mark:
            return [Amend(tenant, stored.item)]
        found.append(_Found(tenant, stored.item, vector, mark))
        return []

    def _put(self, found: _Found, vector: Floats) -> Put:
        span = np.array([[0, found.item.duration_us]], np.int64)
        return Put(found.tenant, Known(found.item, self._encoder, found.digest), span, vector[np.newaxis])

    def _vectors(self, found: Sequence[_Found]) -> list[Floats | None]:
        """(d,) each as the model sees it; None where it cannot take it."""
        if not found:
            return []
        try:
            vectors = self.model.items(
                [each.item.item_id if each.tenant == self.model.tenant else "" for each in found],
                np.stack([each.content for each in found]),
            )
            if vectors.shape != (len(found), self._encoder.dimensions) or not np.isfinite(vectors).all():
                raise ValueError(f"it made vectors of shape {vectors.shape}, or not finite ones")
        except Exception as error:
            if len(found) > 1:
                return [vector for each in found for vector in self._vectors([each])]
            _log.warning(
                "item %r of tenant %r: the session model failed: %s", found[0].item.item_id, found[0].tenant, error
            )
            return [None]
        return list(vectors.astype(np.float32, copy=False))

    def _introduced(self, changes: Iterable[Change], first: Set[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """When the items were first heard of; where the log cannot say, now."""
        wanted: dict[tuple[str, int], list[str]] = {}
        now = self._clock_us()
        for change in changes:
            if isinstance(change, Put):
                unheard = self._unheard_us if (change.tenant, change.item_id) in first else now
                wanted.setdefault((change.tenant, unheard), []).append(change.item_id)
        times: dict[tuple[str, str], int] = {}
        for (tenant, unheard), item_ids in wanted.items():
            try:
                told = self._events.introduced(tenant, item_ids, unheard)
            except MatchcutError as error:
                _log.warning("when %d items were introduced is not known for now: %s", len(item_ids), error)
                told = {}
            times |= {(tenant, item_id): told.get(item_id, unheard) for item_id in item_ids}
        return times
