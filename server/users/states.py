"""Users' states: made of the log, kept in memory while they are asked for, and moved on by each event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

from matchcut.server.errors import InvalidInput
from matchcut.server.events.contract import Appended, EventLog
from matchcut.server.events.strengths import strength
from matchcut.server.records import Event, Logged, Receipt, UserKey
from matchcut.server.users.cache import Cache, Entry
from matchcut.server.users.contract import Taste
from matchcut.server.users.fold import Fold, fold, further, taste
from matchcut.server.users.gallery import Galleries
from matchcut.server.users.rebuilding import Rebuilding
from matchcut.server.users.served import Lease, Served

__all__ = ["RING", "UserSizes", "Users"]

RING = 50  # items in liked and in disliked
CACHE_BYTES = 256 << 20
_WAITING = 64  # events of a user that may wait; with more, the state is made anew from the log


@dataclass(frozen=True, slots=True)
class UserSizes:
    """What is in memory: states of so many users, about so many bytes. evicted, replayed: how often, so far."""

    users: int = 0
    bytes: int = 0
    evicted: int = 0
    replayed: int = 0


class Users:
    """What is known of users. Safe to be used by several threads at once.

    A state is what SessionModel.step makes, one after the other in the order of (time, digest), of all the user's
    events in the log that speak for an item that is there. An event that comes in order costs one step, at the next
    recall. Whatever else happens (a late event, an item that came, went or changed, another model, events that the log
    let go of) has it made anew from the log at the next recall, so that order, duplicates and restarts make no
    difference. Nothing of it is kept but in memory.

    A state whose making was begun before an event was appended has the event noted at its entry, which is there before
    the log is read; one that is begun later finds the event in the log. Where a user was forgotten in between, events
    are not noted but looked up.

    Args:
        log: of the events; its owner closes it, after this.
        galleries: those of the first session model. Models and galleries that are served are closed by this.
        cache_bytes: of states in memory, at most, within a factor that depends on the strings.
        ring: most items in Taste.liked and Taste.disliked.
    """

    def __init__(
        self, log: EventLog, galleries: Galleries, *, cache_bytes: int = CACHE_BYTES, ring: int = RING
    ) -> None:
        self._log = log
        self._ring = ring
        self._cache = Cache(cache_bytes)
        self._served = Served(galleries)
        self._lock = Lock()  # over the counts that follow
        self._forgotten = 0  # how often somebody was, so far
        self._replayed = 0
        self._rebuilding = Rebuilding(self._cache, self._served, log, ring)

    @contextmanager
    def using(self) -> Iterator[Galleries]:
        """The galleries of the model that is served now, which stay usable for as long as the block runs.

        Whoever recalls a state and ranks with it does both inside, with the same galleries: vectors of two models must
        not meet. A model that was replaced is closed only when the last such block ends.

        Raises:
            Unavailable: this is closed.
        """
        with self._served.lease() as lease:
            yield lease.galleries

    def record(self, tenant: str, events: Sequence[Event]) -> tuple[Appended, int]:
        """Keeps events, durably when it returns; also how many of the new ones are of items that are not there yet.

        Raises:
            StoreFailed, Unavailable: as EventLog.append, or this is closed; nothing has changed.
        """
        with self._served.lease() as lease:
            forgotten = self._forgotten
            appended = self._log.append(tenant, events)
            by_user: dict[UserKey, list[Logged]] = {}
            for user, logged in appended.logged:
                by_user.setdefault(user, []).append(logged)
            for user, its in by_user.items():
                entry = self._cache.find(user)
                if entry is not None:
                    self._note(user, entry, its, forgotten)
            item_ids = Counter(logged.item_id for _, logged in appended.logged)
            unknown = sum(count for item_id, count in item_ids.items() if not lease.galleries.has(tenant, item_id))
        return appended, unknown

    def recall(self, tenant: str, user_id: str, galleries: Galleries | None = None) -> Taste:
        """What is known of the user, all events included whose record() has returned.

        Args:
            galleries: of using(), to be asked inside of its block; None: those served now.

        Raises:
            EngineFailed: the model failed; the state is as it was, and the next recall tries again.
            StoreFailed: the log cannot be read.
            Unavailable: this is closed.
        """
        user = self._log.key(tenant, user_id)
        with self._served.lease() as lease:
            if galleries is not None and galleries is not lease.galleries:  # a request that began before a swap
                return taste(galleries.model, self._replay(galleries, tenant, self._log.events(user)))
            entry = self._cache.place(user)
            with entry.lock:
                made = self._up_to_date(user, entry, lease)
                known = taste(lease.galleries.model, made)
                if made.last is None and not made.seen:
                    self._cache.drop(user, entry)  # nobody's state is not worth a place
                else:
                    self._cache.resize(user, entry)
            return known

    def replay(self, tenant: str, events: Sequence[Event], galleries: Galleries | None = None) -> Taste:
        """What these events say of a user, of whom nothing is read and nothing kept.

        The same as if they had been recorded, but that events of the very same time are in the order of another digest.
        Of two of one id the first counts.

        Args:
            galleries: as of recall().

        Raises:
            EngineFailed, Unavailable: as recall().
        """
        first: dict[str, Event] = {}
        for event in events:
            first.setdefault(event.event_id, event)
        logged = [
            Logged(each.time_us, _digest(each.event_id), each.item_id, each.kind, strength(each))
            for each in first.values()
        ]
        logged.sort(key=_order)
        with self._served.lease() as lease:
            used = lease.galleries if galleries is None else galleries
            return taste(used.model, self._replay(used, tenant, logged))

    def forget(self, tenant: str, user_id: str) -> Receipt:
        """Deletes all that is kept of the user, in the log and in memory; states that are being made are not kept.

        Raises:
            StoreFailed: as EventLog.forget.
        """
        user = self._log.key(tenant, user_id)
        try:
            return self._log.forget(tenant, user_id)
        finally:
            # In this order: an event that was deleted may be about to be noted. Until the count changes it is noted at
            # an entry that goes with the next line, afterwards it is looked up in the log instead.
            with self._lock:
                self._forgotten += 1
            self._cache.drop(user)

    def trimmed(self, users: Iterable[UserKey]) -> None:
        """The log has let go of old events of these; to be called by one thread, once it is done. Takes no lock for
        long, so that the log's own thread may call it."""
        for user in users:
            entry = self._cache.find(user)
            if entry is not None:
                entry.trims += 1

    def swap(self, galleries: Galleries) -> None:
        """Serves another session model, once all of the catalogue is in its galleries, which is waited for.

        Recalls go on all the time: each ends with the model that it began with. States in memory are made anew in the
        background, many at once, those asked for last first, or at the next recall. The model before and its galleries
        are closed when nobody uses them any more; the new ones are this object's from now on, also where it raises.

        Raises:
            InvalidInput: the galleries were closed before they were ready.
        """
        if not galleries.wait_ready():
            galleries.model.close()
            raise InvalidInput("the galleries of the new session model were closed; make new ones")
        self._served.replace(galleries)
        self._rebuilding.wake()

    def sizes(self) -> UserSizes:
        """How much there is, for whoever watches the server."""
        replayed = self._replayed + self._rebuilding.rebuilt
        return UserSizes(len(self._cache), self._cache.bytes, self._cache.evicted, replayed)

    def rebuilt(self, timeout: float | None = None) -> bool:
        """Waits until all states in memory are of the model served now, so many seconds at most; whether they are."""
        return self._rebuilding.wait(timeout)

    def close(self) -> None:
        """Frees model and galleries once nobody uses them. Closing again does nothing."""
        self._rebuilding.close()
        self._served.replace(None)

    def _note(self, user: UserKey, entry: Entry, events: Sequence[Logged], forgotten: int) -> None:
        """Events that were appended when `forgotten` had been counted are to be taken in at the next recall."""
        with entry.lock:
            entry.changes += 1
            if forgotten != self._forgotten or len(entry.waiting) + len(events) > _WAITING:
                entry.stale = True
                entry.waiting.clear()
            else:
                entry.waiting += events
            self._cache.resize(user, entry)

    def _up_to_date(self, user: UserKey, entry: Entry, lease: Lease) -> Fold:
        """The user's fold, all events included; with the entry's lock."""
        galleries, trims = lease.galleries, entry.trims
        epoch, changed = galleries.changed_since(user.tenant, entry.epoch)
        known = entry.fold
        fits = known is not None and (entry.of, entry.stale, entry.made_at) == (lease.number, False, trims)
        waiting: list[Logged] | None = None
        if known is not None and fits and changed is not None and changed.isdisjoint(known.seen):
            waiting = _in_order(entry.waiting, known)
        if known is None or waiting is None:
            known = self._replay(galleries, user.tenant, self._log.events(user))
        elif waiting:
            further(galleries.model, galleries.gallery(user.tenant), known, waiting, self._ring)
        entry.take(known, of=lease.number, epoch=epoch, trims=trims)
        return known

    def _replay(self, galleries: Galleries, tenant: str, events: Sequence[Logged]) -> Fold:
        with self._lock:
            self._replayed += 1
        return fold(galleries.model, galleries.gallery(tenant), [events], self._ring)[0]


def _in_order(waiting: Sequence[Logged], known: Fold) -> list[Logged] | None:
    """The events in their order, those before the last one of the fold left out; None: one of them comes too late.

    An event at the very place of the last one is the last one: the fold was made when it was in the log, but not noted.
    """
    events = sorted((each for each in waiting if known.last is None or each.order != known.last), key=_order)
    late = next(
        (True for each in events if each.strength and known.last is not None and each.order < known.last), False
    )
    return None if late else events


def _order(event: Logged) -> tuple[int, bytes]:
    return event.order


def _digest(event_id: str) -> bytes:
    return blake2b(event_id.encode(), digest_size=16).digest()
