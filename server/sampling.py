"""Which pictures are due: the wanted times of a sampling, and the pictures that serve them."""

from __future__ import annotations

import math

from matchcut.server.errors import InvalidInput

__all__ = ["Instants"]

FASTEST_FPS = 1000.0


class Instants:
    """The wanted times 0, p, 2p, ... with p = 1 / rate, served in order.

    A wanted time is served by the first picture at or after it, and a picture serves at most one: a rate above the
    media's own makes every picture due, and a hole in the media makes one picture due, not thousands.

    Args:
        rate_fps: wanted times per second; above 1000 counts as 1000.
        slack_us: resolution of the media's clock. A picture that is early by less than that is in time: a container
            that counts milliseconds stores the second frame of 30 a second at 33 ms, which is not before 33.3 ms.

    Raises:
        InvalidInput: the rate is not a positive number.
    """

    def __init__(self, rate_fps: float, slack_us: int = 1) -> None:
        if not (rate_fps > 0 and math.isfinite(rate_fps)):
            raise InvalidInput(f"frames per second must be above 0, not {rate_fps}", field="sampling.frames_per_second")
        self._per_us = min(rate_fps, FASTEST_FPS) / 1e6
        self._slack_us = min(slack_us, int(0.25 / self._per_us))
        self._index = 0

    @property
    def wanted_us(self) -> int:
        """The next wanted time, rounded up."""
        return math.ceil(self._index / self._per_us)

    @property
    def earliest_us(self) -> int:
        """From when on a picture serves the next wanted time: that time less the slack."""
        return self.wanted_us - self._slack_us

    def take(self, time_us: int) -> bool:
        """Whether the picture at this time serves a wanted time; if so, all wanted times up to it are done with."""
        if time_us < self.earliest_us:
            return False
        self._index = max(self._index, math.floor((time_us + self._slack_us) * self._per_us)) + 1
        if self.earliest_us <= time_us:  # a rounding of the line above would let one picture serve twice
            self._index += 1
        return True

    def skip(self) -> None:
        """The next wanted time is served by a picture chosen otherwise."""
        self._index += 1
