"""No run for an answer that would come too late, and no refusal for one that would not. Time is a number here."""

from __future__ import annotations

import time

import pytest

from matchcut.server.batcher import Batcher
from matchcut.server.batcher.timing import FRESH, Timing
from matchcut.server.errors import DeadlineExceeded
from matchcut.server.feed import Caller
from support.batching import Asking, Gated, Record, queue_up, rows


class Time:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def within(self, seconds: float) -> Caller:
        """A caller with so much time."""
        return Caller(self.now + seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


class Slow(Gated):
    """A gated model whose runs take so many seconds a row."""

    def __init__(self, clock: Time, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(open=True, during=lambda: self._take(clock))

    def _take(self, clock: Time) -> None:
        clock.now += self.seconds * len(self.runs[-1])

    def shut(self) -> Slow:
        """What ran so far is forgotten, and further runs wait."""
        self._open = False
        self.runs.clear()
        while self._begun.acquire(blocking=False):
            pass
        return self


def tuned(clock: Time, seconds: float, *, most: int = 1, workers: int = 1) -> tuple[Batcher, Slow, Record]:
    """A batcher that has measured its model, whose runs wait from now on."""
    run, record = Slow(clock, seconds), Record()
    batcher = Batcher(run, name="slow", most=most, queue=64, workers=workers, watcher=record)
    batcher.tune(rows(1))
    return batcher, run.shut(), record


def test_sixteen_calls_that_cannot_all_be_served_waste_no_run(clock: Time) -> None:
    batcher, run, record = tuned(clock, 0.2)
    first = Asking(batcher, rows(0), caller=clock.within(0.5))
    run.begun()
    second = Asking(batcher, rows(1), caller=clock.within(0.5))
    record.waiting(1)
    for at in range(2, 16):
        with pytest.raises(DeadlineExceeded) as caught:
            batcher.submit(rows(at), caller=clock.within(0.5))
        assert caught.value.reason == "DEADLINE_TOO_SHORT"
    run.open()
    assert [first.values(), second.values()] == [[0], [2]]
    assert run.runs == [[0], [1]]
    assert record.wasted == 0
    assert record.dropped_by == {"DEADLINE_TOO_SHORT": 14}


def test_what_was_never_measured_is_let_in_and_still_no_run_is_wasted(clock: Time) -> None:
    run, record = Slow(clock, 0.2).shut(), Record()
    batcher = Batcher(run, name="slow", most=1, queue=64, watcher=record)
    first = Asking(batcher, rows(0), caller=clock.within(0.5))
    run.begun()
    others = []
    for at in range(1, 16):
        others.append(Asking(batcher, rows(at), caller=clock.within(0.5)))
        record.waiting(at)
    run.open()
    assert first.values() == [0]
    assert others[0].values() == [2]
    reasons = [getattr(one.failure(), "reason", "") for one in others[1:]]
    assert reasons == ["DEADLINE_TOO_SHORT"] * 14
    assert run.runs == [[0], [1]]
    assert record.wasted == 0


def test_a_deadline_that_has_passed_is_refused_before_anything_runs(clock: Time) -> None:
    batcher, run, record = tuned(clock, 0.2)
    with pytest.raises(DeadlineExceeded) as caught:
        batcher.submit(rows(1), caller=clock.within(-0.001))
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert run.runs == []
    assert record.dropped_by == {"DEADLINE_EXCEEDED": 1}


def test_one_that_expires_while_it_waits_is_dropped_before_it_runs(clock: Time) -> None:
    batcher, run, record = tuned(clock, 0.1)
    first = Asking(batcher, rows(1))
    run.begun()
    late = Asking(batcher, rows(2), caller=clock.within(0.25))
    record.waiting(1)
    (other,) = queue_up(batcher, record, [rows(3)], waiting=1)
    clock.now += 5  # the run under way takes longer than any before it
    run.open()
    assert isinstance(late.failure(), DeadlineExceeded)
    assert [first.values(), other.values()] == [[2], [6]]
    assert run.runs == [[1], [3]]
    assert record.wasted == 0


def test_nobody_joins_where_that_would_make_another_late(clock: Time) -> None:
    batcher, run, record = joining(clock)
    first = Asking(batcher, rows(1))
    run.begun()
    hasty = Asking(batcher, rows(2), caller=clock.within(0.26))
    record.waiting(1)
    (patient,) = queue_up(batcher, record, [rows(3)], waiting=1)
    run.open()
    assert [one.values() for one in (first, hasty, patient)] == [[2], [4], [6]]
    assert run.runs == [[1], [2], [3]]
    assert record.wasted == 0


def joining(clock: Time) -> tuple[Batcher, Slow, Record]:
    """A batcher that has not been tuned, so that it joins, but knows that a row takes 0.1 s and two take 0.2 s."""
    run, record = Slow(clock, 0.1), Record()
    batcher = Batcher(run, name="slow", most=8, queue=64, watcher=record)
    for _ in range(3):
        batcher.submit(rows(0), caller=Caller())
        batcher.submit(rows(0, 0), caller=Caller())
    return batcher, run.shut(), record


def test_all_join_where_there_is_time(clock: Time) -> None:
    batcher, run, record = joining(clock)
    first = Asking(batcher, rows(1))
    run.begun()
    hasty = Asking(batcher, rows(2), caller=clock.within(0.31))
    record.waiting(1)
    (patient,) = queue_up(batcher, record, [rows(3)], waiting=1)
    run.open()
    assert [one.values() for one in (first, hasty, patient)] == [[2], [4], [6]]
    assert run.runs == [[1], [2, 3]]


def test_two_workers_halve_the_wait(clock: Time) -> None:
    batcher, run, record = tuned(clock, 0.2, workers=2)
    first, second = Asking(batcher, rows(0)), Asking(batcher, rows(1))
    run.begun()
    run.begun()
    third = Asking(batcher, rows(2), caller=clock.within(0.5))
    record.waiting(1)
    fourth = Asking(batcher, rows(3), caller=clock.within(0.5))
    record.waiting(2)
    with pytest.raises(DeadlineExceeded):
        batcher.submit(rows(4), caller=clock.within(0.39))
    for one in (third, fourth):
        one.caller.leave()
        one.failure()
    run.open()
    assert [first.values(), second.values()] == [[0], [2]]


def test_a_slow_time_long_ago_locks_nobody_out(clock: Time) -> None:
    batcher, run, record = tuned(clock, 0.2)
    run.open()
    run.seconds = 0.05
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            batcher.submit(rows(1), caller=clock.within(0.1))
    clock.now += FRESH
    assert run.runs == []
    for value in (1, 2, 3):
        assert batcher.submit(rows(value), caller=clock.within(0.1)).outputs["y"].tolist() == [[2 * value]]
    assert record.wasted == 0


def test_an_estimate_lies_between_what_was_measured(clock: Time) -> None:
    timing = Timing()
    assert timing.seconds(3) == timing.work(30, 4) == 0
    timing.learn(4, 9.0)
    assert timing.seconds(4) == 0, "the first run may have had to set up much"
    for count, seconds in ((2, 0.2), (6, 0.4)):
        timing.learn(count, seconds)
    assert [timing.seconds(count) for count in (1, 2, 4, 6, 12)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.8])
    assert timing.work(14, 6) == pytest.approx(2 * 0.4 + 0.2)


def test_neither_a_hiccup_nor_a_lucky_run_changes_the_estimate(clock: Time) -> None:
    timing = Timing()
    for seconds in (0, 0.2, 0.2, 0.2, 9.0, 0.001, 0.2):
        timing.learn(1, seconds)
    assert timing.seconds(1) == 0.2
    for _ in range(8):
        timing.learn(1, 0.5)
    assert timing.seconds(1) == 0.5


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}, 1),  # nothing gained
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0, 20: 1.0}, 20),  # a run costs the same whatever its size
        ({1: 1.0, 2: 1.2, 4: 1.6, 8: 3.1, 16: 6.2}, 4),  # the last doublings gain less than 5 %
        ({1: 1.0, 2: 2.0, 4: 1.1, 8: 2.2, 16: 4.4}, 4),  # one bad size on the way
    ],
)
def test_the_size_is_the_least_after_which_hardly_more_is_gained(
    clock: Time, seconds: dict[int, float], size: int
) -> None:
    run, record = Gated(open=True), Record()

    def take() -> None:
        clock.now += seconds[len(run.runs[-1])] / 1000

    run.during = take
    batcher = Batcher(run, name="sized", most=20, queue=64, watcher=record)
    assert batcher.size == batcher.most == 20
    assert batcher.tune(rows(1, 2, 3)).size == batcher.size == size
    assert run.runs[-1][:3] == [1, 2, 3][: len(run.runs[-1])]
    assert record.batches == []


def test_measuring_ends_in_time(clock: Time) -> None:
    run = Slow(clock, 2.0)
    batcher = Batcher(run, name="slow", most=64, queue=64)
    assert batcher.tune(rows(1)).size == 1
    assert max(map(len, run.runs)) == 1


def test_a_model_that_fails_to_run_is_told_when_it_is_measured(clock: Time) -> None:
    batcher = Batcher(Gated(open=True), name="broken", most=4, queue=4)
    with pytest.raises(ValueError, match="not finite"):
        batcher.tune(rows(float("nan")))
