"""Callers share runs: who runs with whom, what each gets back, and who is let go without having cost anything."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from matchcut.server.batcher import Batcher
from matchcut.server.errors import EngineFailed, InvalidInput, MatchcutError, Overloaded
from matchcut.server.feed import Caller
from support.batching import Arrays, Asking, Gated, Record, doubler, queue_up, rows


def test_a_lone_request_runs_at_once_in_its_own_thread() -> None:
    run, record = Gated(open=True), Record()
    batcher = doubler(run, record=record)
    answer = batcher.submit(rows(1, 2), caller=Caller())
    assert answer.outputs["y"].tolist() == [[2], [4]]
    assert answer.batch == 2
    assert run.threads == [threading.current_thread()]
    assert record.batches == [2]
    assert not record.dropped_by


def test_what_arrives_during_a_run_goes_into_the_next_together() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    others = queue_up(batcher, record, [rows(2), rows(3, 4), rows(5)])
    run.open()
    assert first.values() == [2]
    assert [one.values() for one in others] == [[4], [6, 8], [10]]
    assert [sorted(batch) for batch in run.runs] == [[1], [2, 3, 4, 5]]
    assert first.result().batch == 1
    assert {one.result().batch for one in others} == {4}
    assert record.batches == [1, 4]
    assert len(record.waits) == 4
    assert all(one.result().queue_ns > 0 for one in others)


def test_a_run_takes_no_more_rows_than_it_may_and_fills_the_gap_with_who_fits() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, most=4, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    others = queue_up(batcher, record, [rows(2, 3, 4), rows(5, 6), rows(7)])
    run.open()
    assert [one.values() for one in (first, *others)] == [[2], [4, 6, 8], [10, 12], [14]]
    assert all(len(batch) <= 4 for batch in run.runs)
    assert len(run.runs) == 3


def test_rows_of_other_sizes_or_types_run_apart() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    wide: Arrays = {"x": np.full((1, 2), 3, np.float32)}
    double: Arrays = {"x": np.full((1, 1), 4, np.float64)}
    others = queue_up(batcher, record, [rows(2), wide, double, rows(5)])
    run.open()
    assert [one.values() for one in (first, *others)] == [[2], [4], [6], [8], [10]]
    assert sorted(run.runs) == [[1], [2, 5], [3], [4]]
    assert others[2].result().outputs["y"].dtype == np.float64


def test_several_workers_run_at_the_same_time() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, workers=2, record=record)
    first, second = Asking(batcher, rows(1)), Asking(batcher, rows(2))
    run.begun()
    run.begun()
    others = queue_up(batcher, record, [rows(3), rows(4)])
    run.open()
    assert [one.values() for one in (first, second, *others)] == [[2], [4], [6], [8]]
    assert sorted(run.runs)[:2] == [[1], [2]]


def test_more_rows_than_one_run_takes_come_back_in_order() -> None:
    run = Gated(open=True)
    answer = doubler(run, most=4).submit(rows(*range(10)), caller=Caller())
    assert answer.outputs["y"][:, 0].tolist() == [2 * value for value in range(10)]
    assert [len(batch) for batch in run.runs] == [4, 4, 2]
    assert answer.batch == 4


def test_an_answer_does_not_keep_the_rows_of_others_alive() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    others = queue_up(batcher, record, [rows(2), rows(3)])
    run.open()
    first.over()
    arrays = [one.result().outputs["y"] for one in others]
    assert run.runs[1] == [2, 3]
    assert all(array.base is None and array.shape == (1, 1) for array in arrays)
    arrays[0][:] = 99
    assert arrays[1].tolist() == [[6]]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"x": np.empty((0, 3), np.float32)},
        {"x": np.float32(3)},
        {"x": np.ones((2, 1), np.float32), "z": np.ones((3, 1), np.float32)},
    ],
)
def test_inputs_without_equal_rows_are_refused(inputs: Arrays) -> None:
    run = Gated(open=True)
    batcher = doubler(run)
    with pytest.raises(InvalidInput) as caught:
        batcher.submit({name: np.asarray(array) for name, array in inputs.items()}, caller=Caller())
    assert caught.value.reason == "ROWS_DIFFER"
    assert run.runs == []


def test_beyond_the_bound_it_is_overloaded_with_a_time_to_retry_after() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, most=4, queue=5, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    others = queue_up(batcher, record, [rows(2, 3), rows(4, 5), rows(6)])
    with pytest.raises(Overloaded, match="5 rows wait for doubler already") as caught:
        batcher.submit(rows(7), caller=Caller())
    assert caught.value.retry_after_us == 1_000_000  # nothing was measured yet
    run.open()
    assert [one.values() for one in (first, *others)] == [[2], [4, 6], [8, 10], [12]]
    assert record.dropped_by == {"OVERLOADED": 1}
    assert batcher.submit(rows(8), caller=Caller()).outputs["y"].tolist() == [[16]]


def test_the_time_to_retry_after_follows_what_runs_take() -> None:
    run, record = Gated(open=True, during=lambda: time.sleep(0.02)), Record()
    batcher = doubler(run, most=1, queue=3, record=record)
    batcher.tune(rows(1))
    held = Gated()

    def hold() -> None:
        held(rows(0))

    run.during = hold
    first = Asking(batcher, rows(1))
    held.begun()
    others = queue_up(batcher, record, [rows(2), rows(3), rows(4)])
    with pytest.raises(Overloaded) as caught:
        batcher.submit(rows(5), caller=Caller())
    assert 60_000 <= caught.value.retry_after_us < 1_000_000
    held.open()
    assert [one.values() for one in (first, *others)] == [[2], [4], [6], [8]]


def test_a_poisonous_request_fails_alone() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    healthy, poisonous, other = queue_up(batcher, record, [rows(2), rows(float("nan")), rows(3)])
    run.open()
    assert first.values() == [2]
    assert [healthy.values(), other.values()] == [[4], [6]]
    failure = poisonous.failure()
    assert isinstance(failure, ValueError)
    assert str(failure) == "not finite"
    assert [len(batch) for batch in run.runs] == [1, 3, 1, 1, 1]
    assert healthy.result().batch == 1


def test_a_request_that_fails_alone_is_not_tried_twice_and_the_place_is_free_again() -> None:
    run = Gated(open=True)
    batcher = doubler(run)
    with pytest.raises(ValueError, match="not finite"):
        batcher.submit(rows(float("inf")), caller=Caller())
    assert len(run.runs) == 1
    assert batcher.submit(rows(1), caller=Caller()).outputs["y"].tolist() == [[2]]


def test_a_thread_that_is_ended_in_a_joint_run_takes_nobody_with_it() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    ended, other = queue_up(batcher, record, [rows(2), rows(3)])

    def end() -> None:
        if len(run.runs) == 2:
            raise SystemExit

    run.during = end
    run.open()
    assert first.values() == [2]
    assert isinstance(ended.failure(), SystemExit)
    assert other.values() == [6]
    assert run.runs == [[1], [2, 3], [3]]
    batcher.close()


def test_outputs_with_other_rows_than_the_inputs_are_refused() -> None:
    batcher = Batcher(lambda inputs: {"y": inputs["x"][:1]}, name="shrinker", most=8, queue=8)
    assert batcher.submit(rows(1), caller=Caller()).outputs["y"].tolist() == [[1]]
    with pytest.raises(EngineFailed, match=r"the output 'y' has shape \(1, 1\) for 2 rows of input"):
        batcher.submit(rows(1, 2), caller=Caller())


def refusal(batcher: Batcher) -> str:
    """Why it refuses a request whose deadline has passed."""
    with pytest.raises(MatchcutError) as caught:
        batcher.submit(rows(3), caller=Caller(time.monotonic() - 1))
    return caught.value.reason


def test_closing_lets_nobody_in_and_waits_for_those_who_are() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    (second,) = queue_up(batcher, record, [rows(2)])
    closing = threading.Thread(target=batcher.close, daemon=True)
    closing.start()
    while refusal(batcher) == "DEADLINE_EXCEEDED":  # it is not closed yet
        assert closing.is_alive()
    assert refusal(batcher) == "MODEL_CLOSED"
    assert closing.is_alive()
    run.open()
    assert [first.values(), second.values()] == [[2], [4]]
    closing.join(30)
    assert not closing.is_alive()
    batcher.close()
