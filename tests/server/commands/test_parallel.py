"""Work in several threads: all of it is told, and Ctrl-C ends it wherever it comes."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing

import pytest

from matchcut.server.commands.parallel import interrupts, parallel


def nothing() -> None:
    """There is nothing to stop."""


def press() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def test_each_item_comes_with_what_came_of_it() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number * number

    found = dict(parallel(work, range(20), threads=4, stop=nothing))
    assert sorted(found) == list(range(20))
    assert isinstance(found.pop(3).exception(), ValueError)
    assert all(future.result() == number**2 for number, future in found.items())
    assert list(parallel(work, [], threads=1, stop=nothing)) == []


def test_ctrl_c_stops_what_is_under_way_and_begins_no_more() -> None:
    stopped, begun, under_way = threading.Event(), list[int](), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number:
            under_way.set()
            assert stopped.wait(30)

    before = signal.getsignal(signal.SIGINT)
    with closing(parallel(work, range(5), threads=1, stop=stopped.set)) as finished:
        assert next(finished)[0] == 0
        assert under_way.wait(30)
        press()  # it raises nothing here, in the midst of anything
        with pytest.raises(KeyboardInterrupt):
            next(finished)
    assert begun == [0, 1]
    assert signal.getsignal(signal.SIGINT) is before


def test_whoever_leaves_early_stops_it() -> None:
    stopped = threading.Event()

    def work(number: int) -> None:
        assert number == 0 or stopped.wait(30)

    with closing(parallel(work, range(3), threads=2, stop=stopped.set)) as finished:
        next(finished)
    assert stopped.is_set()


def test_the_second_ctrl_c_is_as_ever() -> None:
    told: list[None] = []
    with interrupts(lambda: told.append(None)):
        press()
        assert told == [None]
        with pytest.raises(KeyboardInterrupt):
            press()
    assert told == [None]


def test_where_it_is_ignored_it_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts(lambda: pytest.fail("it is ignored")):
            press()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_ctrl_c_of_its_own() -> None:
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.extend(number for number, _ in parallel(abs, range(3), threads=1, stop=nothing))
    )
    thread.start()
    thread.join(30)
    assert sorted(found) == [0, 1, 2]
