"""A clock that jumps deletes nothing that a right clock would have kept, and holds up nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.events import open_log
from matchcut.server.events.plausible import GRACE_US, LEAP_US, Plausible
from matchcut.server.events.retention import DAY_US
from matchcut.server.records import Event, EventKind

NOW_US = 1_750_000_000_000_000
YEAR_US = 365 * DAY_US


class Clocks:
    """A wall clock that can be set, and a steady one that only goes on."""

    def __init__(self) -> None:
        self.wall, self.steady = NOW_US, 5

    def pass_by(self, us: int) -> None:
        self.wall += us
        self.steady += us

    def plausible(self) -> Plausible:
        return Plausible(lambda: self.wall, lambda: self.steady)


@given(st.lists(st.tuples(st.integers(0, GRACE_US // 4), st.integers(-YEAR_US, YEAR_US)), max_size=40))
def test_it_is_never_ahead_of_the_clock_nor_of_what_a_day_makes_sure(steps: list[tuple[int, int]]) -> None:
    clocks = Clocks()
    plausible = clocks.plausible()
    stood = 0  # for how long the clock has not been set
    for passed, jump in steps:
        clocks.pass_by(passed)
        clocks.wall += jump
        stood = passed + stood if jump == 0 else 0
        told = plausible()
        assert told <= max(clocks.wall, NOW_US + clocks.steady)
        if jump <= 0 and told > clocks.wall:
            pytest.fail("a clock that was set back has to be believed")
    clocks.pass_by(1)
    plausible()
    clocks.pass_by(GRACE_US)
    assert plausible() == clocks.wall, "after a day without another leap it is right again"


def test_a_leap_is_believed_after_a_day(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    plausible = clocks.plausible()
    clocks.wall += LEAP_US
    assert plausible() == clocks.wall, "a small correction is none"
    clocks.wall += 10 * YEAR_US
    with caplog.at_level(logging.WARNING):
        assert plausible() == clocks.wall - 10 * YEAR_US
        clocks.pass_by(GRACE_US - 1)
        assert plausible() == clocks.wall - 10 * YEAR_US
    assert caplog.text.count("leapt ahead by 87600.0 hours") == 1
    clocks.pass_by(1)
    assert plausible() == clocks.wall


def test_a_leap_that_is_taken_back_is_forgotten() -> None:
    clocks = Clocks()
    plausible = clocks.plausible()
    clocks.wall += YEAR_US
    assert plausible() == clocks.wall - YEAR_US
    clocks.pass_by(GRACE_US // 2)
    clocks.wall -= YEAR_US
    assert plausible() == clocks.wall
    clocks.wall += YEAR_US  # the day begins anew
    plausible()
    clocks.pass_by(GRACE_US - 1)
    assert plausible() == clocks.wall - YEAR_US


def test_a_further_leap_has_a_day_of_its_own() -> None:
    clocks = Clocks()
    plausible = clocks.plausible()
    start = NOW_US - clocks.steady
    clocks.wall += YEAR_US
    plausible()
    clocks.pass_by(GRACE_US - LEAP_US)
    clocks.wall += 10 * YEAR_US
    plausible()
    clocks.pass_by(GRACE_US - 1)
    assert plausible() == start + clocks.steady, "of the wall clock's time, nothing has stood for a day"
    clocks.pass_by(1)
    assert plausible() == clocks.wall


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux counts the time in which it slept")
def test_a_machine_that_has_slept_has_not_leapt(monkeypatch: pytest.MonkeyPatch) -> None:
    boot, wall = [5_000_000_000], [NOW_US]
    asked: list[int] = []

    def gettime(clock: int) -> int:
        asked.append(clock)
        return boot[0]

    monkeypatch.setattr(time, "clock_gettime_ns", gettime)
    plausible = Plausible(lambda: wall[0])
    slept_us = 9 * LEAP_US
    boot[0] += slept_us * 1000
    wall[0] += slept_us
    assert plausible() == wall[0]
    assert set(asked) == {time.CLOCK_BOOTTIME}


@pytest.mark.parametrize("back", [True, False])
def test_the_log_keeps_events_through_a_jump(monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    for name in ("_FIRST_S", "_PERIOD_S", "_PACE_S"):
        monkeypatch.setattr(f"matchcut.server.events.retention.{name}", 0.0)
    monkeypatch.setattr("matchcut.server.events.local._REST_S", 0.01)
    wall, looked = [NOW_US], [0]

    def clock() -> int:
        looked[0] += 1
        return wall[0]

    with closing(open_log(None, days=365, clock_us=clock)) as log:
        log.append("", [Event(f"e{at}", "ann", f"i{at}", EventKind.LIKE, NOW_US - at * DAY_US) for at in range(9)])
        wall[0] += -50 * YEAR_US if back else 10 * YEAR_US
        before = looked[0]
        wait_for(lambda: looked[0] > before + 20)  # the upkeep has looked with the other clock, again and again
        assert len(log.events(log.key("", "ann"))) == 9
        wall[0] = NOW_US
        log.append("", [Event("new", "ann", "new", EventKind.LIKE, NOW_US)])
        assert len(log.events(log.key("", "ann"))) == 10


def test_what_is_old_still_goes_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_S", "_PERIOD_S", "_PACE_S"):
        monkeypatch.setattr(f"matchcut.server.events.retention.{name}", 0.0)
    monkeypatch.setattr("matchcut.server.events.local._REST_S", 0.01)
    with closing(open_log(None, days=365, clock_us=lambda: NOW_US)) as log:
        log.append("", [Event("old", "ann", "a", EventKind.LIKE, NOW_US - 366 * DAY_US)])
        log.append("", [Event("new", "ann", "b", EventKind.LIKE, NOW_US)])
        wait_for(lambda: len(log.events(log.key("", "ann"))) == 1)


def wait_for(true: Callable[[], bool]) -> None:
    """Waits for another thread, ten seconds at most."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it does not come true")
