"""The log of events on one machine: one thread at a time writes, all others read."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from os import urandom
from pathlib import Path
from threading import Lock

from matchcut.server.commit import Writer
from matchcut.server.disk import no_room
from matchcut.server.errors import MatchcutError, StoreFailed
from matchcut.server.events import receipts, rows, schema
from matchcut.server.events.anonymity import published, step
from matchcut.server.events.changing import Change, Tenant
from matchcut.server.events.contract import Appended, EventLog, LogSizes
from matchcut.server.events.incoming import Append, apply, kept
from matchcut.server.events.later import Later
from matchcut.server.events.popular import Popular
from matchcut.server.events.pseudonyms import Pseudonyms
from matchcut.server.events.retention import Retention
from matchcut.server.events.store import KIND, Store
from matchcut.server.records import Event, Exposure, ItemCounts, Logged, Receipt, UserKey

_MOST = 8192  # events in one commit, the last call's aside
_CALL = 16  # events that a call counts as, at least
_STRANGERS = 10_000  # tenants without events whose salts are remembered
_USERS = 64  # users that are read in one statement
_ITEMS = 10_000  # items, the same
_UNTENDED = 64  # events after which the length of the log of changes is looked at
_REST_S = 0.25  # between two looks at what else there is to do
_FAILED_S = 5.0  # until upkeep that failed is tried again
_PATIENCE_S = 5.0  # for which a deletion waits for readers to let it go through

_log = logging.getLogger("matchcut.events")


def open_log(
    path: Path | None,
    *,
    limit_bytes: int = 0,
    days: int = 365,
    user_events: int = 1000,
    threshold: int = 10,
    clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    trimmed: Callable[[Sequence[UserKey]], None] = lambda keys: None,
    gone: Callable[[], None] = lambda: None,
) -> EventLog:
    """The log in a file, which is not read for it: however many users there are, it opens at once.

    Args:
        path: of the file, made where it is missing, in a folder that is there and that this process alone uses; None:
            in memory, gone at the end.
        limit_bytes, gone: see store.Store.
        days, user_events, clock_us, trimmed: see retention.Retention. `trimmed` is called by the writer's thread: it
            must be quick, and must not change the log.
        threshold: of anonymity, in users; see anonymity.

    Raises:
        StoreFailed: it is damaged, or not a log of this version.
    """
    popular = Popular(threshold)
    store = Store(path, limit_bytes=limit_bytes, changed=popular.changed, gone=gone)
    retention = Retention(store, days=days, user_events=user_events, clock_us=clock_us, trimmed=trimmed)
    return LocalLog(store, popular, retention, threshold=threshold, clock_us=clock_us)


class LocalLog:
    """See contract.EventLog.

    Args:
        store, popular, retention: the parts, of one log.
        threshold, clock_us: see open_log.
    """

    def __init__(
        self, store: Store, popular: Popular, retention: Retention, *, threshold: int, clock_us: Callable[[], int]
    ) -> None:
        self._store = store
        self._popular = popular
        self._retention = retention
        self._threshold = threshold
        self._clock_us = clock_us
        self._later = Later()
        self._lock = Lock()  # over the tenants
        self._strangers: OrderedDict[str, Tenant] = OrderedDict()
        self._forgetting = Lock()
        self._unconfirmed: dict[UserKey, tuple[int, int]] = {}  # events and exposures deleted, but not yet wiped
        self._unwiped = self._closed = False
        self._untended = 0  # events since the length of the log of changes was looked at
        popular.begin(store.tenants.values())
        self._writer: Writer[Append, Appended] = Writer(
            self._commit,
            noun=KIND.noun,
            most=_MOST,
            weigh=lambda change: max(_CALL, len(change.rows)),
            upkeep=self._upkeep,
            direct=True,
        )

    def key(self, tenant: str, user_id: str) -> UserKey:
        """See contract.EventLog."""
        return UserKey(tenant, self._tenant(tenant).pseudonyms.user(user_id))

    def append(self, tenant: str, events: Sequence[Event]) -> Appended:
        """See contract.EventLog.

        Raises:
            InvalidInput: an event lacks an id or a field is out of range; nothing is kept.
        """
        if not events:
            return Appended((), 0)
        whose = self._tenant(tenant)
        return self._writer.submit(Append(whose, kept(whose.pseudonyms, events)))

    def events(self, user: UserKey) -> list[Logged]:
        """See contract.EventLog."""
        return self.events_of([user])[0]

    def events_of(self, users: Sequence[UserKey]) -> list[list[Logged]]:
        """See contract.EventLog."""
        found: list[list[Logged]] = [[] for _ in users]
        tenants: dict[str, list[int]] = {}
        for at, user in enumerate(users):
            tenants.setdefault(user.tenant, []).append(at)
        for name, places in tenants.items():
            number = self._tenant(name).number
            for first in range(0, len(places), _USERS) if number else ():
                some = places[first : first + _USERS]
                digests = b"".join(users[at].digest for at in some)
                answer = self._store.read(schema.EVENTS_OF, {"tenant": number, "U": digests, "n": len(some)})
                for at, logged in rows.read(answer):
                    found[some[at]].append(logged)
        return found

    def expose(self, user: UserKey, exposure: Exposure) -> None:
        """See contract.EventLog."""
        self._later.expose(self._tenant(user.tenant), user.digest, exposure)

    def popularity(self, tenant: str) -> Mapping[str, int]:
        """See contract.EventLog; the numbers are rounded as all that are published, see anonymity."""
        return self._popular.of(self._tenant(tenant))

    def counts(self, tenant: str, item_ids: Sequence[str], limit: int) -> list[ItemCounts]:
        """See contract.EventLog."""
        number = self._tenant(tenant).number
        if not item_ids:
            asked = {"tenant": number, "threshold": self._threshold, "step": step(self._threshold), "n": limit}
            return [self._counted(*row) for row in json.loads(self._store.read(schema.MOST, asked))]
        found = [self._counted(item_id, *[0] * len(schema.COUNTED)) for item_id in item_ids]
        answer = self._store.read(schema.COUNTS, rows.items(item_ids) | {"tenant": number})
        for at, *numbers in json.loads(answer):
            found[at] = self._counted(item_ids[at], *numbers)
        return found

    def introduced(self, tenant: str, item_ids: Sequence[str], now_us: int) -> dict[str, int]:
        """See contract.EventLog."""
        whose = self._tenant(tenant)
        found = self._later.introduced(whose, item_ids)  # first: what is written meanwhile is on the disk then
        for first in range(0, len(item_ids), _ITEMS) if whose.number else ():
            some = item_ids[first : first + _ITEMS]
            answer = self._store.read(schema.INTRODUCED, rows.items(some) | {"tenant": whose.number})
            found |= {some[at]: time_us for at, time_us in json.loads(answer)}
        unknown = [item_id for item_id in item_ids if item_id not in found]
        return found | self._later.introduce(whose, unknown, now_us) if unknown else found

    def forget(self, tenant: str, user_id: str) -> Receipt:
        """See contract.EventLog. Takes longer the first time after a start: all of the file is looked through.

        Raises:
            StoreFailed: the user is deleted, but the bytes are still on the disk, as another process reads the file and
                keeps the old log of changes in use (reason STORE_BUSY), or the disk is full (STORE_FULL) or failed: to
                be called again; or as append(), and nothing has changed.
        """
        whose = self._tenant(tenant)
        user = UserKey(tenant, whose.pseudonyms.user(user_id))
        with self._forgetting:
            receipt = self._writer.alone(lambda: self._delete(whose, user))
            scrubber = self._writer.alone(self._store.hold)
            try:
                if scrubber is not None:
                    scrubber.clean(scrubber.suspects())
                patience = time.monotonic() + _PATIENCE_S
                while not self._writer.alone(self._store.wipe):
                    if time.monotonic() > patience:
                        self._unwiped = True  # it is tried again in the background
                        raise StoreFailed(
                            "the user is deleted, but a reader of the log of events keeps the bytes on the disk; "
                            "let it finish, and call again",
                            reason="STORE_BUSY",
                        )
                    time.sleep(0.02)
            except (OSError, sqlite3.Error) as error:
                self._unwiped = True
                full = isinstance(error, sqlite3.Error) and no_room(error)
                raise StoreFailed(
                    f"the user is deleted, but could not be wiped from the disk ({error}); "
                    f"{'give it more space' if full else 'see to it'}, and call again",
                    reason="STORE_FULL" if full else "",
                ) from error
            finally:
                self._store.release()
            self._unconfirmed.pop(user, None)
            return receipt

    def sizes(self) -> LogSizes:
        """See contract.EventLog."""
        with self._lock:
            tenants = list(self._store.tenants.values())
        return LogSizes(
            sum(tenant.events for tenant in tenants),
            sum(tenant.users for tenant in tenants),
            sum(tenant.exposures for tenant in tenants),
            self._store.bytes,
        )

    def close(self) -> None:
        """See contract.EventLog."""
        with self._forgetting:
            self._writer.close()
            if not self._closed:
                self._closed = True
                try:
                    self._flush()
                except MatchcutError as error:  # of what came before, all is durable
                    _log.error("the lists that were shown last are not kept: %s", error.message)
                finally:
                    self._store.close()

    def _tenant(self, name: str) -> Tenant:
        """A tenant; one of which nothing is kept yet is remembered for a while."""
        with self._lock:
            known = self._store.tenants.get(name) or self._strangers.get(name)
            if known is None:
                known = self._strangers[name] = Tenant(name, Pseudonyms.fresh())
                if len(self._strangers) > _STRANGERS:
                    self._strangers.popitem(last=False)
            return known

    def _commit(self, appends: Sequence[Append]) -> list[Appended | Exception]:
        """All in one transaction; where that cannot be done, each gets a try of its own."""
        try:
            made = self._store.change(lambda change: apply(change, appends))
        except MatchcutError as error:
            if len(appends) > 1:
                return [verdict for append in appends for verdict in self._commit([append])]
            return [error]
        self._enrol({append.tenant for append in appends})
        verdicts: list[Appended | Exception] = []
        for (tenant, wanted), news in zip(appends, made, strict=True):
            new = [row for row, is_new in zip(wanted, news, strict=True) if is_new]
            self._retention.came(tenant, new)
            logged = tuple((UserKey(tenant.name, row.user), rows.logged(row)) for row in new)
            verdicts.append(Appended(logged, len(wanted) - len(new)))
            self._untended += len(wanted)
        if self._untended >= _UNTENDED:
            self._tend()
        return verdicts

    def _enrol(self, tenants: Iterable[Tenant]) -> None:
        """They are in the file now."""
        with self._lock:
            for tenant in tenants:
                self._store.tenants[tenant.name] = tenant
                self._strangers.pop(tenant.name, None)

    def _delete(self, tenant: Tenant, user: UserKey) -> Receipt:
        waiting = self._later.take(tenant, user.digest)
        time_us, nonce = self._clock_us(), urandom(16)
        before = self._unconfirmed.get(user, (0, 0))

        def work(change: Change) -> Receipt:
            events, exposures = change.forget(tenant, user.digest)
            receipt = receipts.receipt(events + before[0], exposures + len(waiting) + before[1], time_us, nonce)
            change.certify(receipt, nonce)
            return receipt

        try:
            receipt = self._store.change(work)
        except BaseException:
            self._later.back(waiting)
            raise
        self._unconfirmed[user] = receipt.events, receipt.exposures
        self._retention.forgotten(tenant, user.digest)
        return receipt

    def _upkeep(self) -> float:
        """See commit.Writer."""
        if not self._store.lasts():
            return inf
        try:
            self._tend()
            self._flush()
            self._wipe()
            if self._popular.load(self._store, self._store.tenants):
                return 0.0
            return min(_REST_S, self._retention.tend())
        except Exception as error:  # what serves goes on; it is tried again
            _log.error("the upkeep of the log of events failed, and will be tried again: %s", error)
            return _FAILED_S

    def _tend(self) -> None:
        self._untended = 0
        try:
            self._store.tend()
        except (sqlite3.Error, OSError) as error:  # nothing is lost: the log of changes only grows longer
            _log.error("the log of changes could not be copied into the log of events: %s", error)

    def _wipe(self) -> None:
        """Wipes what a deletion could not."""
        if self._unwiped and self._forgetting.acquire(blocking=False):
            try:
                self._unwiped = not self._store.wipe()
            except (sqlite3.Error, OSError) as error:  # the rest of the upkeep goes on, and may make room for it
                _log.error("what was deleted from the log of events is not wiped from the disk yet: %s", error)
            finally:
                self._forgetting.release()

    def _flush(self) -> None:
        """Writes what may come later."""
        if self._later.waits():
            self._store.change(self._later.write)
            self._enrol(self._later.done())

    def _counted(self, item_id: str, *numbers: int) -> ItemCounts:
        users, _, *kinds = (published(number, self._threshold) for number in numbers)
        return ItemCounts(item_id, users, {kind: n for kind, n in zip(schema.KINDS, kinds, strict=True) if n})
