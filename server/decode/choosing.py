"""Which pictures serve the wanted times, chosen in the order of presentation before anything is decoded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import av

from matchcut.server.records import MediaReport
from matchcut.server.sampling import Instants

__all__ = ["Chooser", "Coded", "Exact", "Tolerant", "chooser"]

LONGEST_TOLERANCE_US = 10_000_000  # packets wait undecoded for as long as this


@dataclass(slots=True, eq=False)
class Coded:
    """A picture that is still coded.

    order: its place in the order of decoding.
    time_us: -1 until it is settled, that is, until no picture that is shown before it can follow.
    key: decoding can start afresh here.
    """

    packet: av.Packet[av.VideoStream]
    order: int
    stamp: int
    key: bool
    time_us: int = -1
    due: bool = False


class Chooser(Protocol):
    """Is offered the pictures in the order of presentation; marks those that are due, perhaps some time later."""

    def offer(self, picture: Coded) -> list[Coded]:
        """Takes the next picture; returns those now found due."""
        ...

    def finish(self) -> list[Coded]:
        """No more pictures come, or none that may be waited for; returns the last due ones."""
        ...

    def undecided(self) -> list[Coded]:
        """Pictures that may yet be found due."""
        ...


class Exact:
    """Each wanted time is served by the first picture at or after it."""

    def __init__(self, instants: Instants) -> None:
        self._instants = instants

    def offer(self, picture: Coded) -> list[Coded]:
        picture.due = self._instants.take(picture.time_us)
        return [picture] if picture.due else []

    def finish(self) -> list[Coded]:
        return []

    def undecided(self) -> list[Coded]:
        return []


class Tolerant:
    """Each wanted time is served by the nearest keyframe within the tolerance, else by the first picture after it.

    A keyframe may serve several wanted times; it is due once all the same. Wanted times that are strict know no
    tolerance.
    """

    def __init__(self, instants: Instants, tolerance_us: int, report: MediaReport) -> None:
        self._instants = instants
        self._tolerance_us = min(tolerance_us, LONGEST_TOLERANCE_US)
        self._report = report
        self._before: Coded | None = None  # the last keyframe before the wanted time
        self._waiting: deque[Coded] = deque()  # what was offered at or after it

    def offer(self, picture: Coded) -> list[Coded]:
        self._waiting.append(picture)
        return self._decide(picture.time_us)

    def finish(self) -> list[Coded]:
        return self._decide(None)

    def undecided(self) -> list[Coded]:
        return list(self._waiting)

    def _decide(self, seen_us: int | None) -> list[Coded]:
        """Serves every wanted time of which nothing better than what is known can come; None: nothing can come."""
        found: list[Coded] = []
        while True:
            self._pass_by()
            wanted_us = self._instants.wanted_us
            tolerance_us = 0 if self._instants.strict else self._tolerance_us
            after = next((picture for picture in self._waiting if picture.key), None)
            if after is None and seen_us is not None and seen_us < wanted_us + tolerance_us:
                return found
            if not self._waiting:
                return found
            near = [
                (abs(key.time_us - wanted_us), key)
                for key in (self._before, after)
                if key is not None and abs(key.time_us - wanted_us) <= tolerance_us
            ]
            if near:
                error_us, chosen = min(near, key=lambda entry: entry[0])
                self._instants.skip()
                if chosen is not self._waiting[0]:
                    self._report.max_time_error_us = max(self._report.max_time_error_us, error_us)
            else:
                chosen = self._waiting[0]
                self._instants.take(chosen.time_us)
            if not chosen.due:
                chosen.due = True
                found.append(chosen)

    def _pass_by(self) -> None:
        """Lets go of the pictures before the wanted time, but for the last keyframe."""
        while self._waiting and self._waiting[0].time_us < self._instants.earliest_us:
            passed = self._waiting.popleft()
            if passed.key:
                self._before = passed


def chooser(instants: Instants, tolerance_us: int, report: MediaReport) -> Chooser:
    """The chooser for a tolerance; 0 is exact."""
    return Tolerant(instants, tolerance_us, report) if tolerance_us > 0 else Exact(instants)
