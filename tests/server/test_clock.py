"""Stage times are self times: nested stages and generators count each moment once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from matchcut.server.clock import Clock


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that stands still; append nanoseconds to let time pass."""
    passed = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: sum(passed))
    monkeypatch.setattr(time, "thread_time_ns", lambda: sum(passed) // 2)
    return passed


def test_an_inner_stage_stops_the_outer_one(ticks: list[int]) -> None:
    clock = Clock()
    with clock("decode"):
        ticks.append(5_000_000)
        with clock("receive"):
            ticks.append(70_000_000)
        ticks.append(1_000_000)
    ticks.append(900_000)
    times = clock.times()
    assert [(s.name, s.wall_us, s.cpu_us) for s in times.stages] == [
        ("receive", 70_000, 35_000),
        ("decode", 6_000, 3_000),
    ]
    assert times.total_us == 76_900


def test_generators_that_pull_from_each_other(ticks: list[int]) -> None:
    clock = Clock()

    def inner() -> Iterator[int]:
        for number in range(3):
            ticks.append(1_000)
            yield number

    def outer(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            ticks.append(10_000)
            yield number

    numbers = clock.over("segment", outer(clock.over("decode", inner())))
    while next(numbers, None) is not None:
        ticks.append(1_000_000)
    assert {s.name: s.wall_us for s in clock.times().stages} == {"decode": 3, "segment": 30}


def test_closing_closes_what_is_timed() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    timed = Clock().over("decode", items())
    assert next(timed) == 1
    timed.close()
    assert closed == [True]


def test_an_error_passes_through_and_is_counted(ticks: list[int]) -> None:
    clock = Clock()

    def items() -> Iterator[int]:
        yield 1
        ticks.append(4_000)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(clock.over("decode", items()))
    assert clock.times().stages[0].wall_us == 4


def test_notes_add_up_and_an_absent_stage_is_absent() -> None:
    clock = Clock()
    clock.note("encode", variant="x", frames=3)
    clock.note("encode", frames=4, runs=1)
    (stage,) = clock.times().stages
    assert (stage.name, stage.variant, stage.counts) == ("encode", "x", {"frames": 7, "runs": 1})


def test_what_a_block_spent_otherwise_is_moved(ticks: list[int]) -> None:
    clock = Clock()
    with clock("encode"):
        ticks.append(9_000_000)
    clock.move(4_000_000, "encode", "queue")
    clock.move(1_000_000, "encode", "queue")
    times = clock.times()
    assert [(s.name, s.wall_us) for s in times.stages] == [("queue", 5_000), ("encode", 4_000)]
    assert times.total_us == 9_000
