"""A clock that is not believed at once when it leaps ahead, since what is deleted as too old does not come back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["Plausible"]

LEAP_US = 3600 * 1_000_000  # more than this at once is no correction of a clock that drifts
GRACE_US = 24 * 3600 * 1_000_000  # within which a clock that was set wrong may be set right

_log = logging.getLogger("matchcut.events")


def awake_or_not_us() -> int:
    """Microseconds that only count on: where the system tells, those in which it slept as well."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux, whose monotonic clock stands still in a suspended machine
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return time.monotonic_ns() // 1000


class Plausible:
    """The time of a wall clock; for a day after it has leapt ahead, the time that it would be without the leap.

    A board without a battery wakes up in the past and is set right by the network; that is a leap like one to a wrong
    year, and nobody can tell which clock was right. Whoever deletes by this clock deletes a day late, at worst. A clock
    that is set back is believed: what is not yet old stays.

    Args:
        clock_us: the wall clock, in microseconds since 1970.
        steady_us: one that only counts on, while the machine sleeps too: or waking up would be a leap.
    """

    def __init__(self, clock_us: Callable[[], int], steady_us: Callable[[], int] = awake_or_not_us) -> None:
        self._clock_us, self._steady_us = clock_us, steady_us
        self._ahead_us = clock_us() - steady_us()  # of the steady clock, as believed
        self._leap_us = 0
        self._until_us: int | None = None  # on the steady clock: when a leap is believed; None: there was none

    def __call__(self) -> int:
        """Microseconds since 1970."""
        wall, steady = self._clock_us(), self._steady_us()
        leap = wall - steady - self._ahead_us
        if leap <= LEAP_US:
            self._until_us = None
        elif self._until_us is None or abs(leap - self._leap_us) > LEAP_US:  # a further leap has stood for no day yet
            self._leap_us, self._until_us = leap, steady + GRACE_US
            _log.warning(
                "the clock has leapt ahead by %.1f hours; until it has stayed there for a day, nothing is deleted that "
                "is too old only since",
                leap / 3.6e9,
            )
        if self._until_us is not None and steady < self._until_us:
            return steady + self._ahead_us
        self._until_us = None
        self._ahead_us = wall - steady
        return wall
