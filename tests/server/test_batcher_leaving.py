"""Callers that leave: they are let go at once, and nothing is computed for them that has not begun."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from matchcut.server.errors import Cancelled, MatchcutError
from matchcut.server.feed import Caller
from support.batching import Asking, Gated, Record, doubler, queue_up, rows


def test_a_caller_that_leaves_while_it_waits_is_let_go_at_once_and_never_runs() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    leaving, staying = queue_up(batcher, record, [rows(2), rows(3)])
    leaving.caller.leave()
    assert isinstance(leaving.failure(), Cancelled)  # the first run still stands at its gate
    record.waiting(1)
    run.open()
    assert first.values() == [2]
    assert staying.values() == [6]
    assert run.runs == [[1], [3]]
    assert record.dropped_by == {"CANCELLED": 1}
    assert record.wasted == 0


def test_a_caller_that_leaves_during_a_run_of_another_is_let_go_at_once() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    leading, joining = queue_up(batcher, record, [rows(2), rows(3)])
    run.let()
    run.begun()
    assert run.runs[1] == [2, 3]
    joining.caller.leave()
    assert isinstance(joining.failure(), Cancelled)  # its run still stands at the gate
    run.open()
    assert [first.values(), leading.values()] == [[2], [4]]
    assert record.wasted == 0


def test_a_run_that_nobody_waits_for_any_more_counts_as_wasted() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    asking = Asking(batcher, rows(1))
    run.begun()
    asking.caller.leave()
    run.open()
    asking.over()
    assert record.wasted == 1


class Unheard(Caller):
    """A caller of whose leaving nobody is told in time."""

    def on_leave(self, tell: Callable[[], None]) -> None:
        pass


def test_nobody_joins_a_run_who_has_gone_even_if_his_thread_does_not_know_yet() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    (leading,) = queue_up(batcher, record, [rows(2)])
    gone = Asking(batcher, rows(3), caller=Unheard())
    record.waiting(2)
    gone.caller.leave()
    run.open()
    assert [first.values(), leading.values()] == [[2], [4]]
    assert isinstance(gone.failure(), Cancelled)
    assert run.runs == [[1], [2]]
    assert record.dropped_by == {"CANCELLED": 1}


class LeavesLate(Caller):
    """A caller that is there when its turn comes and gone a moment later."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._left = asked

    def fault(self) -> MatchcutError | None:
        if threading.current_thread().name == "MainThread":
            return None
        self._left -= 1
        return None if self._left >= 0 else Cancelled("gone")


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_who_leaves_between_its_turn_and_its_run_passes_the_turn_on(asked: int) -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    leaving = Asking(batcher, rows(2), caller=LeavesLate(asked))
    record.waiting(1)
    (staying,) = queue_up(batcher, record, [rows(3)], waiting=1)
    run.open()
    assert first.values() == [2]
    assert isinstance(leaving.failure(), Cancelled)
    assert staying.values() == [6]
    assert [2] not in run.runs
    assert batcher.submit(rows(4), caller=Caller()).outputs["y"].tolist() == [[8]]


def test_who_leaves_during_a_joint_run_that_fails_is_not_run_again() -> None:
    run, record = Gated(), Record()
    batcher = doubler(run, record=record)
    first = Asking(batcher, rows(1))
    run.begun()
    poisonous, leaving = queue_up(batcher, record, [rows(float("nan")), rows(2)])
    run.let()
    run.begun()
    leaving.caller.leave()
    assert isinstance(leaving.failure(), Cancelled)
    run.open()
    assert isinstance(poisonous.failure(), ValueError)
    first.over()
    assert [len(batch) for batch in run.runs] == [1, 2, 1]
    assert not record.dropped_by  # it had begun to be computed
    batcher.close()
