"""Which pictures are due: the wanted times of a sampling, and the pictures that serve them."""

from __future__ import annotations

import math
from bisect import bisect_right

from matchcut.server.errors import InvalidInput

__all__ = ["Instants"]

FASTEST_FPS = 1000.0
SLOWEST_FPS = 1e-9  # one in 30 years
NEVER_US = 1 << 63


class Instants:
    """The wanted times 0, p, 2p, ... with p = 1 / rate, and some more, served in order.

    A wanted time is served by the first picture at or after it, and a picture is due once whatever it serves: a rate
    above the media's own makes every picture due, and a hole in the media makes one picture due, not thousands.

    Args:
        rate_fps: wanted times per second; above 1000 counts as 1000, below 1e-9 as 1e-9.
        slack_us: resolution of the media's clock. A picture that is early by less than that is in time: a container
            that counts milliseconds stores the second frame of 30 a second at 33 ms, which is not before 33.3 ms.
        also_us: more wanted times, ascending. For these no picture is in time that is early.

    Raises:
        InvalidInput: the rate is not a positive number.
    """

    def __init__(self, rate_fps: float, slack_us: int = 1, also_us: tuple[int, ...] = ()) -> None:
        if not (rate_fps > 0 and math.isfinite(rate_fps)):
            raise InvalidInput(f"frames per second must be above 0, not {rate_fps}", field="sampling.frames_per_second")
        self._per_us = min(max(rate_fps, SLOWEST_FPS), FASTEST_FPS) / 1e6
        self._slack_us = min(slack_us, int(0.25 / self._per_us))
        self._index = 0
        self._also_us = also_us
        self._also_index = 0

    @property
    def wanted_us(self) -> int:
        """The next wanted time, rounded up."""
        return min(self._regular_us, self._next_also_us)

    @property
    def earliest_us(self) -> int:
        """From when on a picture serves the next wanted time."""
        return min(self._regular_us - self._slack_us, self._next_also_us)

    @property
    def strict(self) -> bool:
        """Whether the next wanted time is one of the others, for which an earlier picture does not do."""
        return self._next_also_us <= self._regular_us

    def take(self, time_us: int) -> bool:
        """Whether the picture at this time serves a wanted time; if so, all wanted times up to it are done with."""
        if time_us < self.earliest_us:
            return False
        self._also_index = bisect_right(self._also_us, time_us, self._also_index)
        if self._regular_us - self._slack_us <= time_us:
            self._index = max(self._index, math.floor((time_us + self._slack_us) * self._per_us)) + 1
            if self._regular_us - self._slack_us <= time_us:  # the line above rounds: the picture could be due again
                self._index += 1
        return True

    def skip(self) -> None:
        """The next wanted time is served by a picture chosen otherwise."""
        if self.strict:
            self._also_index += 1
        else:
            self._index += 1

    @property
    def _regular_us(self) -> int:
        return math.ceil(self._index / self._per_us)

    @property
    def _next_also_us(self) -> int:
        return self._also_us[self._also_index] if self._also_index < len(self._also_us) else NEVER_US
