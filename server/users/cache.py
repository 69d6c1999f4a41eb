"""Users' states in memory, at most so many bytes of them; who was not asked for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from matchcut.server.records import Logged, UserKey
from matchcut.server.users.fold import Fold

__all__ = ["Cache", "Entry"]

# Bytes, from what CPython 3.11 was seen to use: an entry with its key, lock, sets and arrays; an id in a set, with its
# string; one in a ring; an event that waits.
_ENTRY, _ID, _RING, _EVENT = 1400, 120, 80, 300


@dataclass(slots=True, eq=False)
class Entry:
    """What is kept of a user. All but `trims` and `size` are read and written with the lock.

    fold: None: nothing yet. of: number of the session model that it was made with. epoch: of the gallery then.
    waiting: events that are not in it yet, in any order; they are in the log. stale: it has to be made anew.
    changes: counts what was noted here. trims: counts how often the log let go of events of the user's; made_at: what
    that was when it was made. size: bytes, of the cache.
    """

    lock: Lock = field(default_factory=Lock)
    fold: Fold | None = None
    of: int = 0
    epoch: int = -1
    waiting: list[Logged] = field(default_factory=list)
    stale: bool = False
    changes: int = 0
    trims: int = 0
    made_at: int = 0
    size: int = 0

    def take(self, made: Fold, *, of: int, epoch: int, trims: int) -> None:
        """Keeps a fold of all the user's events, those that wait included.

        Args:
            epoch, trims: what they were before anything was read that it is made of.
        """
        self.fold, self.of, self.epoch, self.made_at, self.stale = made, of, epoch, trims, False
        self.waiting.clear()

    def bytes(self) -> int:
        """About how much memory it takes."""
        taken = _ENTRY + _EVENT * len(self.waiting)
        if self.fold is not None:
            rings = len(self.fold.liked) + len(self.fold.disliked)
            taken += self.fold.state.nbytes + _ID * len(self.fold.seen) + self.fold.letters + _RING * rings
        return taken


class Cache:
    """Entries by user. Safe to be used by several threads at once; its lock is held for moments only.

    An entry that went may still be in use by somebody; what is done to it then is seen by nobody else.

    evicted: how many had to go so far.

    Args:
        limit_bytes: of all entries together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.evicted = 0
        self._limit = limit_bytes
        self._entries: OrderedDict[UserKey, Entry] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """About how much memory all entries take."""
        return self._bytes

    def find(self, user: UserKey) -> Entry | None:
        """The user's entry, if there is one."""
        with self._lock:
            return self._entries.get(user)

    def place(self, user: UserKey) -> Entry:
        """The user's entry, made where there was none; it goes last now."""
        with self._lock:
            entry = self._entries.get(user)
            if entry is None:
                entry = self._entries[user] = Entry()
                self._resize(entry, entry.bytes())
            else:
                self._entries.move_to_end(user)
            return entry

    def resize(self, user: UserKey, entry: Entry) -> None:
        """Counts its bytes anew; to be called with the entry's lock."""
        size = entry.bytes()
        with self._lock:
            if self._entries.get(user) is entry:
                self._resize(entry, size)

    def drop(self, user: UserKey, entry: Entry | None = None) -> None:
        """Takes the user's entry out, if it is that one (None: whichever it is)."""
        with self._lock:
            found = self._entries.get(user)
            if found is not None and entry in (None, found):
                del self._entries[user]
                self._bytes -= found.size

    def users(self) -> list[UserKey]:
        """All, those asked for last first."""
        with self._lock:
            return list(reversed(self._entries))

    def _resize(self, entry: Entry, size: int) -> None:
        self._bytes += size - entry.size
        entry.size = size
        while self._bytes > self._limit and self._entries:
            _, gone = self._entries.popitem(last=False)
            self._bytes -= gone.size
            self.evicted += 1
