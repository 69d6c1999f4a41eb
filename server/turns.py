"""Whose turn it is to compute: clips are worked at one after the other, not all at the same time.

As soon as each core has a clip to work at, one more at the same time makes all of them later and none of them sooner:
two of a second each are there after two seconds both, where one after the other is there after one and after two. So
only so many have a turn, and the others wait, first come, first served. Three rules keep that fair:

- A turn has an end. Who is not done by then, with a film, goes on in the background.
- A client's requests follow each other on a line of its own, so that of one who sends many at once the others need
  await one. This is Self-Clocked Fair Queueing (Golestani, INFOCOM 1994), counted in turns.
- What is in the background gives its turn to whoever is not, at once. What is put in is there from the beginning:
  somebody waits for an answer sooner than for that. But something there goes on for a while every PATIENCE seconds.

Who waits for something else meanwhile, as for the next bytes of a slow upload, gives the turn away. Live streams take
no turns: they compute little at a time, and what they show is of now.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf

from matchcut.server.clock import Clock
from matchcut.server.feed import Caller

__all__ = ["Purpose", "Turn", "Turns", "Waiter"]

PATIENCE = 5.0  # seconds after which the first of the background goes on, whoever else waits,
MERCY = 0.5  # for so many: a tenth of the time
GRACE = 0.001  # seconds after a deadline at which its passing is sure to be seen


class Purpose(Enum):
    """What a request is for."""

    ASK = auto()
    PUT = auto()


@dataclass(slots=True, eq=False)
class Waiter:
    """One that waits, or has its turn.

    tag: its place on its client's line. number: counts waiters. since: time.monotonic(). called: its turn has come;
    spared: for a while, whoever else waits.
    """

    background: bool
    client: str
    since: float
    tag: int = 0
    number: int = 0
    called: bool = False
    spared: bool = False
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def order(self) -> tuple[int, int]:
        """What the line is sorted by."""
        return self.tag, self.number


class Turns:
    """The turns of a server. Safe to be used by several threads at once.

    Args:
        at_once: how many may have one.
        seconds: after which a turn is over, where others wait.
        patience: see PATIENCE.
    """

    def __init__(self, at_once: int, *, seconds: float, patience: float = PATIENCE) -> None:
        self.seconds = seconds
        self._patience = patience
        self._free = at_once
        self._line: list[Waiter] = []
        self._reached = 0
        self._ends: dict[str, int] = {}  # the last tag on the line of each client that waits
        self._count = 0
        self._spared = -inf  # when one of the background went on last while others waited, as time.monotonic()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def take(self, client: str, *, background: bool = False) -> Waiter:
        """A place in the line, whose turn may have come."""
        with self._lock:
            waiter = self._join(Waiter(background, client, time.monotonic()))
            self._call()
            return waiter

    def give(self) -> None:
        """A turn is over."""
        with self._lock:
            self._free += 1
            self._call()

    def again(self, client: str) -> Waiter:
        """A turn is over, and its owner wants another one in the background: as give() and take()."""
        with self._lock:
            another = self._join(Waiter(True, client, time.monotonic()))
            self._free += 1
            self._call()
            return another

    def back(self, waiter: Waiter, *, gives: bool = False) -> None:
        """One that had a turn waits where it did before; gives: it has its turn until now."""
        with self._lock:
            waiter.called = waiter.spared = False
            waiter.since = time.monotonic()
            waiter.woken.clear()
            self._add(waiter)
            self._free += gives
            self._call()

    def pressed(self) -> bool:
        """Whether one waits that goes before what is in the background."""
        return not all(waiter.background for waiter in tuple(self._line))

    def withdraw(self, waiter: Waiter) -> None:
        """It waits no longer; a turn that it was given meanwhile goes to the next."""
        with self._lock:
            if waiter.called:
                self._free += 1
                self._call()
            else:
                self._remove(waiter)

    def _join(self, waiter: Waiter) -> Waiter:
        self._count += 1
        waiter.number = self._count
        waiter.tag = max(self._reached, self._ends.get(waiter.client, 0)) + 1
        self._add(waiter)
        return waiter

    def _add(self, waiter: Waiter) -> None:
        insort(self._line, waiter, key=lambda one: one.order)
        self._ends[waiter.client] = max(self._ends.get(waiter.client, 0), waiter.tag)

    def _remove(self, waiter: Waiter) -> None:
        self._line.remove(waiter)
        if not any(one.client == waiter.client for one in self._line):
            del self._ends[waiter.client]

    def _call(self) -> None:
        """Gives the free turns to those who are next."""
        while self._free and self._line:
            waiter = self._next()
            self._remove(waiter)
            self._reached = max(self._reached, waiter.tag)
            self._free -= 1
            waiter.called = True
            waiter.woken.set()

    def _next(self) -> Waiter:
        first = min(self._line, key=lambda one: (one.background, one.order))
        if not first.background:
            now = time.monotonic()
            oldest = min((one for one in self._line if one.background), key=lambda one: one.since, default=None)
            if oldest is not None and now - max(oldest.since, self._spared) > self._patience:
                self._spared, oldest.spared = now, True
                return oldest
        return first


class Turn:
    """One request's turns. One thread at a time uses it, and closes every block that it opens.

    Args:
        caller: who waits for the request.
        clock: of the request; waiting for a turn counts as "queue".
        client: whose line it is on.
    """

    def __init__(self, turns: Turns, caller: Caller, clock: Clock, *, purpose: Purpose, client: str) -> None:
        self._turns = turns
        self._caller = caller
        self._clock = clock
        self._background = purpose is Purpose.PUT
        self._client = client
        self._place: Waiter | None = None  # in the line, while it waits for a turn or has one
        self._held = self._over = False
        self._began = self._used = 0.0

    @contextmanager
    def taken(self) -> Generator[None, None, None]:
        """The block has a turn, which may be broken by aside() and pause(), and ended by end().

        Raises:
            MatchcutError: nobody waits for the request any longer.
        """
        self._over, self._used = False, 0.0
        self._wait(self._turns.take(self._client, background=self._background))
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def aside(self) -> Generator[None, None, None]:
        """The block waits for something else; the turn is others' meanwhile.

        Raises:
            MatchcutError: as taken(), after the block.
        """
        if not self._held:
            yield
            return
        self._used += time.monotonic() - self._began
        self._give()
        yield
        if not self._over and self._place is not None:
            self._turns.back(self._place)  # it has come before those who have come meanwhile
            self._wait(self._place)

    def pause(self) -> None:
        """To be called again and again while there is work: where it is others' turn, waits until theirs is over.

        Raises:
            MatchcutError: as taken().
        """
        if self._place is None or not self._held or not self._turns.waiting:
            return
        lasted = self._used + time.monotonic() - self._began
        if lasted >= self._turns.seconds:
            self._used, self._background = 0.0, True
            self._wait(self._turns.again(self._client))
        elif self._background and self._turns.pressed():
            if self._place.spared and time.monotonic() - self._began < MERCY:
                return
            self._used = lasted
            self._turns.back(self._place, gives=True)
            self._wait(self._place)

    def end(self) -> None:
        """What is left to do is no work for a core, such as writing to the disk: the turn is over before the block."""
        self._over = True
        if self._held:
            self._give()

    def _give(self) -> None:
        self._held = False
        self._turns.give()

    def _wait(self, place: Waiter) -> None:
        """Until the turn has come."""
        self._held, self._place = False, place
        if not place.called:
            with self._clock("queue"):
                self._await(place)
        self._held, self._began = True, time.monotonic()

    def _await(self, place: Waiter) -> None:
        self._caller.on_leave(place.woken.set)
        try:
            while not place.called:
                deadline = self._caller.deadline
                left = threading.TIMEOUT_MAX if deadline is None else deadline - time.monotonic() + GRACE
                place.woken.wait(min(max(left, 0.0), threading.TIMEOUT_MAX))
                fault = self._caller.fault()
                if fault is not None:
                    raise fault
        except BaseException:
            self._turns.withdraw(place)
            raise
        finally:
            self._caller.forget(place.woken.set)
