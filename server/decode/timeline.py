"""Time stamps of a container as microseconds from the start of its video."""

from __future__ import annotations

import math
from fractions import Fraction

__all__ = ["Timeline"]

JUMP_US = 1_000_000
ROUNDED_US = 1_000


class Timeline:
    """Turns time stamps into times that always grow.

    Args:
        time_base: seconds per tick of the stream.
        rate: the stream's frame rate as far as known; it spaces frames that carry no time stamp.
    """

    def __init__(self, time_base: Fraction | None, rate: Fraction | None) -> None:
        self._us = (time_base or Fraction(1, 1_000_000)) * 1_000_000
        sane = rate is not None and 1 <= rate <= 1000
        self.frame_us = round(1_000_000 / rate) if sane and rate is not None else 40_000
        self._origin: int | None = None
        self._shift_us = 0
        self.last_us = -1

    @property
    def slack_us(self) -> int:
        """By how much a time may be off because the clock's resolution did not allow better.

        A coarse clock that ticks once a frame is exact; one of milliseconds or finer is rounded to.
        """
        return max(1, math.ceil(self._us)) if self._us <= ROUNDED_US else 1

    def at(self, stamp: int) -> int:
        """The time of a stamp; the first one asked for becomes time 0."""
        if self._origin is None:
            self._origin = stamp
        return round((stamp - self._origin) * self._us) + self._shift_us

    def length(self, ticks: int | None) -> int:
        """Ticks as microseconds; where there are none, the frame rate's."""
        return round(ticks * self._us) if ticks else self.frame_us

    def place(self, stamp: int | None) -> int:
        """The time of the next frame in the order of presentation, always after the one before.

        A frame without a stamp follows the last one by the frame rate. Where stamps jump back by a second or more
        (the start of another recording in a transport stream) time goes on; smaller steps back are put just after.
        """
        time_us = self.last_us + self.frame_us if self.last_us >= 0 else 0
        if stamp is not None:
            stamped = self.at(stamp)
            if stamped <= self.last_us - JUMP_US:
                self._shift_us += time_us - stamped
            else:
                time_us = max(stamped, self.last_us + 1)
        self.last_us = time_us
        return time_us
