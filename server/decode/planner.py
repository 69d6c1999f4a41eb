"""Sends to the decoder only the packets that the due pictures need.

Packets wait here, in the order of decoding, until one of them turns out to be due; then everything that waits up to
it goes to the decoder, the others with leave to be skipped if nothing refers to them. Where decoding can start afresh
what waited before that point is dropped. So a group of pictures is decoded up to its last due picture and no further.

A picture is "settled" once the decoding time stamps have reached its presentation time stamp: every later packet is
shown later, so it is known whether this is the first picture at or after a wanted time. That takes a look ahead of a
few packets, as many as the stream reorders, and not of a whole group.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import av

from matchcut.server.decode.choosing import Chooser, Coded
from matchcut.server.decode.codecs import Traits
from matchcut.server.decode.timeline import Timeline

__all__ = ["DRAIN", "Planner", "Step"]

MOST_WAITING = 4096
MOST_BYTES = 64 << 20
DEEPEST_REORDERING = 17  # pictures, H.264 and HEVC

Packet: TypeAlias = "av.Packet[av.VideoStream]"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the decoder; without a packet it gives out what it holds and starts afresh."""

    packet: Packet | None
    skip: Literal["DEFAULT", "NONREF"] = "DEFAULT"


DRAIN = Step(None)


class Planner:
    """Turns packets into steps; gives up, and passes everything on, where the stream is not as it should be.

    Args:
        traits: what may be left out for the codec.
        timeline: of the stream.
        chooser: says which pictures are due.
    """

    def __init__(self, traits: Traits, timeline: Timeline, chooser: Chooser) -> None:
        self.planning = True
        self.eager = True  # until the first due picture is out: nothing waits that is settled, so it comes soon
        self.due: set[int] = set()  # time stamps of the due pictures that are not out yet
        self.settled_us = -1  # up to where the choice is made
        self.end_us = 0  # end of the last picture that is settled
        self._traits, self._timeline, self._chooser = traits, timeline, chooser
        self._waiting: deque[Coded] = deque()
        self._bytes = 0
        self._unsettled: list[tuple[int, int, Coded]] = []
        self._decoded_to: int | None = None
        self._count = self._first = 0
        self._fresh: Coded | None = None  # the last settled picture from which decoding can start afresh
        self._holding = False  # the decoder has been given something since it last started afresh

    def feed(self, packet: Packet) -> list[Step]:
        """Takes the next packet; returns the steps to make now."""
        if not self.planning:
            return [Step(packet)]
        stamp, decoded = packet.pts, packet.dts
        if stamp is None or not self._sane(packet, stamp, decoded):
            return [*self.give_up(), Step(packet)]
        self._decoded_to = decoded
        if self._count == 0:
            self._first = stamp
        key = packet.is_keyframe and self._traits.afresh(bytes(packet))
        coded = Coded(packet, self._count, stamp, key)
        self._count += 1
        self._waiting.append(coded)
        self._bytes += packet.size
        heapq.heappush(self._unsettled, (stamp, coded.order, coded))
        steps: list[Step] = []
        while decoded is not None and self._unsettled and self._unsettled[0][0] <= decoded:
            steps += self._settle(heapq.heappop(self._unsettled)[2])
        if self.eager:
            steps += self._send_settled()
        if len(self._waiting) > MOST_WAITING or self._bytes > MOST_BYTES:
            steps += self.give_up()
        return steps

    def end(self) -> list[Step]:
        """No more packets come; returns the last steps."""
        steps: list[Step] = []
        while self._unsettled:
            steps += self._settle(heapq.heappop(self._unsettled)[2])
        return steps + self._send(self._chooser.finish())

    def give_up(self) -> list[Step]:
        """From here on everything is decoded; returns the steps for what waits."""
        if not self.planning:
            return []
        self.planning = False
        steps = self._send(self._chooser.finish())
        steps += [Step(coded.packet) for coded in self._waiting]
        self._waiting.clear()
        self._unsettled.clear()
        return steps

    def _sane(self, packet: Packet, stamp: int, decoded: int | None) -> bool:
        """Whether the stream keeps the rules that planning rests on: it starts cleanly and its stamps are in order."""
        if packet.is_corrupt or (self._count == 0 and not packet.is_keyframe):
            return False
        if decoded is None:  # Matroska stores no decoding time; libav knows it once it has seen the reordering
            return self._decoded_to is None and self._count < DEEPEST_REORDERING
        return decoded <= stamp and (self._decoded_to is None or self._decoded_to < decoded)

    def _settle(self, coded: Coded) -> list[Step]:
        """Decides on the next picture in the order of presentation."""
        if coded.packet.is_discard:  # an edit list hides it; others may refer to it
            coded.time_us = max(self.settled_us, 0)
            return []
        if coded.stamp < self._first:
            return self.give_up()  # shown before the first keyframe: full decoding knows whether it comes out
        coded.time_us = self._timeline.at(coded.stamp)
        if coded.time_us <= self.settled_us:
            return self.give_up()
        self.settled_us = coded.time_us
        if coded.key:
            self._fresh = coded
        self.end_us = max(self.end_us, coded.time_us + self._timeline.length(coded.packet.duration))
        return self._send(self._chooser.offer(coded))

    def _send(self, found: list[Coded]) -> list[Step]:
        """Steps up to the last of the pictures found due, less what can be dropped between them."""
        self.due.update(coded.stamp for coded in found)
        left = deque(sorted(found, key=lambda coded: coded.order))
        steps = self._drop(left)
        while left:
            last = left.popleft().order
            while self._waiting and self._waiting[0].order <= last:
                steps.append(self._take())
            steps += self._drop(left)
        return steps

    def _send_settled(self) -> list[Step]:
        """Steps for what needs not wait for a choice."""
        open_orders = {coded.order for coded in self._chooser.undecided()}
        steps: list[Step] = []
        while self._waiting and self._waiting[0].time_us >= 0 and self._waiting[0].order not in open_orders:
            steps.append(self._take())
        return steps

    def _take(self) -> Step:
        coded = self._waiting.popleft()
        self._bytes -= coded.packet.size
        self._holding = True
        needed = coded.due or not self._traits.skips or coded.key
        return Step(coded.packet, "DEFAULT" if needed else "NONREF")

    def _drop(self, due: Iterable[Coded]) -> list[Step]:
        """Drops what waits before the last settled point where decoding can start afresh, if none of it may be due."""
        fresh = self._fresh
        if fresh is None:
            return []
        wanted = (*due, *self._chooser.undecided())
        if any(coded.order < fresh.order or coded.stamp < fresh.stamp for coded in wanted):
            return []
        self._fresh = None
        if not self._waiting or self._waiting[0].order >= fresh.order:
            return []
        while self._waiting[0] is not fresh:
            self._bytes -= self._waiting.popleft().packet.size
        if self._traits.drops_leading:
            kept = [coded for coded in self._waiting if coded.stamp >= fresh.stamp]
            self._waiting = deque(kept)
            self._bytes = sum(coded.packet.size for coded in kept)
        # What the decoder still holds comes out now rather than with the next group.
        steps = [DRAIN] if self._holding else []
        self._holding = False
        return steps
