"""Who waits for a run, and in which order they get their turns.

Turns are fair by rows: each client's rows follow each other on a time line of its own, which counts rows, and the
request that ends first on these lines is next. A client that asks for much is far ahead on its line and waits there;
one that comes after a pause begins where the last turn ended. This is Self-Clocked Fair Queueing (Golestani, INFOCOM
1994) with equal weights.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from matchcut.server.errors import DeadlineExceeded, MatchcutError, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.tensors import Tensor

__all__ = ["Joint", "Line", "Place", "Request", "overloaded"]

RETRY_US = 10_000, 10_000_000  # least and most that a caller is asked to wait

Key = tuple[tuple[str, str, tuple[int, ...]], ...]


class Place(Enum):
    """How far a request is."""

    WAITING = auto()  # in the line
    LEADING = auto()  # its own thread is to make the next run
    RUNNING = auto()  # in a run
    DONE = auto()  # the run has ended well
    REFUSED = auto()  # taken out of the line; `error` says why


@dataclass(slots=True)
class Joint:
    """A run that has ended: its outputs, how many rows they have, and what it took, in nanoseconds."""

    outputs: dict[str, Tensor]
    rows: int
    input_ns: int
    infer_ns: int


@dataclass(slots=True, eq=False)
class Request:
    """One caller's rows on their way through a batcher.

    key: name, type and row shape of each input; only equal ones run together. tag: where on its client's time line it
    ends, in rows. number: counts requests. alone: it was in a joint run that failed. trial: it runs although the
    estimate is against it. offset: its first row in `joint`. times in nanoseconds, as time.perf_counter_ns().
    """

    inputs: dict[str, Tensor]
    rows: int
    key: Key
    caller: Caller
    client: Hashable
    arrived_ns: int
    number: int = 0
    tag: int = 0
    place: Place = Place.WAITING
    alone: bool = False
    trial: bool = False
    began_ns: int = 0
    offset: int = 0
    joint: Joint | None = None
    error: MatchcutError | None = None
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def order(self) -> tuple[int, int]:
        """What the line is sorted by."""
        return self.tag, self.number

    @property
    def deadline(self) -> float:
        """time.monotonic() until which an answer is of use; infinite where there is no bound."""
        return float("inf") if self.caller.deadline is None else self.caller.deadline

    def fault(self, ends: float) -> MatchcutError | None:
        """Why it is not worth running; None where it is.

        Args:
            ends: time.monotonic() at which its run is expected to end.
        """
        gone = self.caller.fault()
        if gone is None and ends > self.deadline and not self.trial:
            return DeadlineExceeded(
                "the deadline of the request would pass before its answer is there; allow more time or retry later",
                reason="DEADLINE_TOO_SHORT",
            )
        return gone

    def wake(self, place: Place, error: MatchcutError | None = None) -> None:
        """Moves it on and wakes its thread."""
        self.place, self.error = place, error
        self.woken.set()


class Line:
    """Requests in the order of their turns. Not locked: its owner does that.

    rows: how many wait, together.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._requests: list[Request] = []
        self._reached = 0
        self._ends: dict[Hashable, int] = {}  # of the clients that wait
        self._count = 0

    def __iter__(self) -> Iterator[Request]:
        return iter(tuple(self._requests))

    def stamp(self, request: Request) -> None:
        """Gives a request that arrives its place on its client's time line."""
        self._count += 1
        request.number = self._count
        request.tag = max(self._reached, self._ends.get(request.client, 0)) + request.rows

    def add(self, request: Request) -> None:
        """The request waits; what its client asks for later comes behind it."""
        insort(self._requests, request, key=lambda one: one.order)
        self.rows += request.rows
        self._ends[request.client] = max(self._ends.get(request.client, 0), request.tag)

    def remove(self, request: Request) -> None:
        """The request waits no longer; one that gets no turn leaves its client where it would be without it."""
        self._requests.remove(request)
        self.rows -= request.rows
        tags = [one.tag for one in self._requests if one.client == request.client]
        if tags:
            self._ends[request.client] = max(tags)
        else:
            del self._ends[request.client]

    def reach(self, request: Request) -> None:
        """The request's turn has come: whoever comes new begins no earlier than here."""
        self._reached = max(self._reached, request.tag)

    def joining(
        self, leader: Request, size: int, seconds: Callable[[int], float]
    ) -> tuple[list[Request], list[tuple[Request, MatchcutError]]]:
        """Who runs with the leader, it included, and who waits in vain, and why.

        They join in the order of the line, as long as there is room and nobody's answer comes too late.

        Args:
            size: rows of the run at most.
            seconds: that a run of so many rows takes.
        """
        now, rows, until = time.monotonic(), leader.rows, leader.deadline
        members, late = [leader], list[tuple[Request, MatchcutError]]()
        for other in self._requests if not leader.alone else ():
            together = rows + other.rows
            if other.place is not Place.WAITING or other.alone or other.key != leader.key or together > size:
                continue
            fault = other.fault(now + seconds(other.rows))
            if fault is not None:
                late.append((other, fault))
            elif now + seconds(together) <= min(until, other.deadline):
                members.append(other)
                rows, until = together, min(until, other.deadline)
        return members, late

    def ahead(self, request: Request) -> Counter[Key]:
        """The rows that come before it, by what can run together."""
        rows: Counter[Key] = Counter()
        for one in self._requests:
            if one.order < request.order:
                rows[one.key] += one.rows
        return rows

    def to_evict(self, newcomer: Request, excess: int) -> list[Request] | None:
        """Who has to go for so many rows of room: always the last request of whoever has most waiting.

        None: the newcomer's client has as many as those who would have to give way, or would then.
        """
        held: Counter[Hashable] = Counter()
        waiting: dict[Hashable, list[Request]] = {}
        for one in self._requests:
            held[one.client] += one.rows
            if one.place is Place.WAITING:
                waiting.setdefault(one.client, []).append(one)
        evicted: list[Request] = []
        while excess > 0:
            most = max((client for client in waiting if waiting[client]), key=held.__getitem__, default=None)
            if most is None:
                return None
            last = waiting[most].pop()
            held[most] -= last.rows
            if held[most] < held[newcomer.client] + newcomer.rows:
                return None
            evicted.append(last)
            excess -= last.rows
        return evicted


def overloaded(name: str, rows: int, seconds: float) -> Overloaded:
    """What one is told who finds so many rows before him, which take so long."""
    least, most = RETRY_US
    return Overloaded(
        f"{rows} rows wait for {name} already; retry later, or raise --max-queue on the server",
        retry_after_us=min(max(round(seconds * 1e6), least), most),
    )
