"""States belong to one sequence each, whose steps take turns; they end when they should and never later."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import Cancelled, DeadlineExceeded, InvalidInput, MatchcutError, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.sequences import Retired, Sequences
from matchcut.server.tensors import TensorSpec

SPECS = {"h": TensorSpec("h", "FP32", (-1, 2))}


class Time:
    """A clock that stands still until it is told otherwise."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(most: int = 10, idle: float = 60.0, now: Any = None, specs: Any = None, rows: bool = True) -> Sequences:
    return Sequences(specs or SPECS, model="m", most=most, idle=idle, rows=rows, now=now or Time())


def step(number: int | str = 1, owner: object = "a", *, start: bool = False, end: bool = False) -> SequenceStep:
    return SequenceStep(number, owner, start, end)


def add(sequences: Sequences, one: SequenceStep, value: float = 1.0, caller: Caller | None = None) -> list[float]:
    """A step of a model that adds to its state; gives the state after it."""
    with sequences.turn(one, caller or Caller()) as turn:
        turn.after = {"h": turn.state["h"] + np.float32(value)}
        return [float(each) for each in turn.after["h"].ravel()]


def test_a_state_starts_with_zeros_goes_on_and_ends() -> None:
    sequences = make()
    assert add(sequences, step(start=True)) == [1, 1]
    assert add(sequences, step()) == [2, 2]
    assert len(sequences) == 1
    assert sequences.knows(step())
    assert add(sequences, step(end=True)) == [3, 3]
    assert len(sequences) == 0
    assert not sequences.knows(step())
    with pytest.raises(
        InvalidInput, match=r"sequence 1 of model 'm' has not begun or has ended: .* START flag"
    ) as caught:
        add(sequences, step())
    assert (caught.value.reason, caught.value.field) == ("SEQUENCE_UNKNOWN", "sequence_id")
    assert add(sequences, step(start=True, end=True)) == [1, 1]
    assert len(sequences) == 0


def test_a_second_start_begins_anew() -> None:
    sequences = make()
    add(sequences, step(start=True), 5)
    assert add(sequences, step(start=True)) == [1, 1]
    assert len(sequences) == 1


def test_sequences_and_owners_do_not_meet() -> None:
    sequences = make(most=20)
    every = [step(number, owner) for number in (1, 2, "1", "x") for owner in ("a", "b", 1)]
    for at, one in enumerate(every):
        add(sequences, SequenceStep(one.sequence_id, one.owner, start=True), at)
    assert [add(sequences, one, 0)[0] for one in every] == list(range(len(every)))


def test_a_failed_step_changes_nothing() -> None:
    sequences = make()

    def fail(one: SequenceStep) -> None:
        with sequences.turn(one, Caller()) as turn:
            turn.state["h"] = turn.state["h"] + 100
            raise ValueError("no")

    add(sequences, step(start=True))
    for one in (step(), step(start=True), step(end=True)):
        with pytest.raises(ValueError, match="no"):
            fail(one)
        assert add(sequences, step(), 0) == [1, 1]
    with pytest.raises(ValueError, match="no"):
        fail(step(2, start=True))
    assert not sequences.knows(step(2))
    assert len(sequences) == 1


def test_nobody_can_write_into_a_state() -> None:
    sequences = make()
    kept = np.ones((1, 2), np.float32)
    with sequences.turn(step(start=True), Caller()) as turn:
        with pytest.raises(ValueError, match="read-only"):
            turn.state["h"][:] = 7
        turn.after = {"h": kept}
    kept[:] = 9
    assert add(sequences, step(), 0) == [1, 1]
    assert add(sequences, step(2, start=True), 0) == [0, 0]


def test_states_of_other_types_and_of_models_that_do_not_batch() -> None:
    specs = {
        "t": TensorSpec("t", "BYTES", (2,)),
        "n": TensorSpec("n", "INT64", (3, 1)),
        "s": TensorSpec("s", "BOOL", ()),
    }
    with make(specs=specs, rows=False).turn(step(start=True), Caller()) as turn:
        found = {name: (value.dtype, value.shape, value.tolist()) for name, value in turn.state.items()}
    assert found == {
        "t": (np.dtype(object), (2,), [b"", b""]),
        "n": (np.dtype(np.int64), (3, 1), [[0], [0], [0]]),
        "s": (np.dtype(bool), (), False),
    }


def test_as_many_as_may_be() -> None:
    now = Time()
    sequences = make(most=2, idle=10, now=now)
    add(sequences, step(1, start=True))
    now.now = 5
    add(sequences, step(2, start=True))
    with pytest.raises(Overloaded, match="model 'm' has 2 sequences, as many as it may have") as caught:
        add(sequences, step(3, start=True))
    assert caught.value.reason == "SEQUENCES_FULL"
    add(sequences, step(2, start=True))
    now.now = 10.5
    add(sequences, step(3, start=True))  # the first was idle for too long by now
    assert [sequences.knows(step(number)) for number in (1, 2, 3)] == [False, True, True]
    add(sequences, step(3, end=True))
    add(sequences, step(4, start=True))


def test_an_idle_sequence_is_forgotten() -> None:
    now = Time()
    sequences = make(idle=10, now=now)
    add(sequences, step(1, start=True))
    add(sequences, step(2, start=True))
    now.now = 10.0
    add(sequences, step(2))
    assert sequences.sweep() == 0
    now.now = 10.1
    assert sequences.sweep() == 1
    assert len(sequences) == 1
    now.now = 30.0
    with pytest.raises(InvalidInput, match="has ended"):  # also before it was swept
        add(sequences, step(2))
    assert len(sequences) == sequences.sweep() == 0


def test_a_sequence_with_a_step_under_way_is_not_idle() -> None:
    now = Time()
    sequences = make(idle=10, now=now)
    with sequences.turn(step(start=True), Caller()) as turn:
        now.now = 100.0
        assert sequences.sweep() == 0
        turn.after = turn.state
    assert add(sequences, step()) == [1, 1]


def test_an_owner_who_leaves_takes_all_states_along() -> None:
    sequences = make()
    for owner in ("a", "b"):
        for number in (1, 2):
            add(sequences, step(number, owner, start=True))
    sequences.leave("a")
    sequences.leave("nobody")
    assert len(sequences) == 2
    with pytest.raises(InvalidInput):
        add(sequences, step(1, "a"))
    assert add(sequences, step(1, "b")) == [2, 2]


def test_a_step_that_outlives_its_owner_leaves_nothing_behind() -> None:
    sequences = make()
    with sequences.turn(step(start=True), Caller()) as turn:
        sequences.leave("a")
        assert len(sequences) == 0
        assert add(sequences, step(start=True), 5) == [5, 5]  # a new life under the same number
        turn.after = {"h": np.full((1, 2), 99, np.float32)}
    assert add(sequences, step(), 0) == [5, 5]
    assert len(sequences) == 1


def waiting(sequences: Sequences, one: SequenceStep, count: int) -> None:
    """Until so many steps of a sequence are in line."""
    while len(sequences._owners[one.owner][one.sequence_id].line) < count:
        time.sleep(0.001)


def test_steps_take_turns_in_the_order_in_which_they_came() -> None:
    sequences = make()
    done: list[int] = []

    def run(number: int) -> None:
        with sequences.turn(step(), Caller()) as turn:
            done.append(number)
            turn.after = {"h": turn.state["h"] * 2 + number}

    with ThreadPoolExecutor(8) as pool:
        with sequences.turn(step(start=True), Caller()) as turn:
            futures = []
            for number in range(1, 8):
                futures.append(pool.submit(run, number))
                waiting(sequences, step(), number + 1)
            assert done == []
            turn.after = turn.state
        for future in futures:
            future.result()
    assert done == list(range(1, 8))
    assert add(sequences, step(), 0)[0] == 247  # ((((((1*2+2)*2+3)*2+4)*2+5)*2+6)*2+7


def test_what_waits_behind_an_end_is_refused_unless_it_starts() -> None:
    sequences = make()
    add(sequences, step(start=True))
    with ThreadPoolExecutor(2) as pool:
        with sequences.turn(step(end=True), Caller()) as turn:
            late = pool.submit(add, sequences, step())
            waiting(sequences, step(), 2)
            fresh = pool.submit(add, sequences, step(start=True), 4)
            waiting(sequences, step(), 3)
            turn.after = turn.state
        with pytest.raises(InvalidInput, match="has ended"):
            late.result()
        assert fresh.result() == [4, 4]
    assert add(sequences, step()) == [5, 5]


def test_what_waits_behind_a_start_that_fails_is_refused() -> None:
    sequences = make()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="no"), sequences.turn(step(start=True), Caller()):  # noqa: PT012
            late = pool.submit(add, sequences, step())
            waiting(sequences, step(), 2)
            raise ValueError("no")
        with pytest.raises(InvalidInput, match="has not begun"):
            late.result()
    assert len(sequences) == 0


@pytest.mark.parametrize("how", ["caller", "deadline", "owner"])
def test_a_step_that_waits_can_be_cancelled(how: str) -> None:
    sequences = make()
    caller = Caller(time.monotonic() + 0.05 if how == "deadline" else None)
    with ThreadPoolExecutor(1) as pool, sequences.turn(step(start=True), Caller()) as turn:
        late = pool.submit(add, sequences, step(), 1.0, caller)
        if how != "deadline":
            waiting(sequences, step(), 2)
        if how == "caller":
            caller.leave()
        if how == "owner":
            sequences.leave("a")
        with pytest.raises(DeadlineExceeded if how == "deadline" else Cancelled):
            late.result()
        turn.after = {"h": turn.state["h"] + 3}
    if how != "owner":
        assert add(sequences, step(), 0) == [3, 3]
    assert sequences.knows(step()) == (how != "owner")


def test_one_who_gave_up_does_not_hold_up_those_behind() -> None:
    sequences = make()
    gone = Caller()
    with ThreadPoolExecutor(2) as pool:
        with sequences.turn(step(start=True), Caller()) as turn:
            first = pool.submit(add, sequences, step(), 10, gone)
            waiting(sequences, step(), 2)
            second = pool.submit(add, sequences, step())
            waiting(sequences, step(), 3)
            gone.leave()
            with pytest.raises(Cancelled):
                first.result()
            assert not second.done()
            turn.after = turn.state
        assert second.result() == [1, 1]


def test_nothing_begins_after_it_was_retired() -> None:
    sequences = make()
    add(sequences, step(start=True))
    assert not sequences.over
    sequences.retire()
    with pytest.raises(Retired, match="being replaced or unloaded") as caught:
        add(sequences, step(2, start=True))
    assert caught.value.code == "UNAVAILABLE"
    assert add(sequences, step()) == [2, 2]
    assert not sequences.over
    sequences.forget(step(7))
    sequences.forget(step())
    assert sequences.over


def test_at_the_end_steps_under_way_still_finish() -> None:
    sequences = make()
    add(sequences, step(1, start=True))
    with ThreadPoolExecutor(1) as pool:
        with sequences.turn(step(2, start=True), Caller()) as turn:
            late = pool.submit(add, sequences, step(2))
            waiting(sequences, step(2), 2)
            sequences.end()
            assert len(sequences) == 1
            turn.after = turn.state
        assert late.result() == [1, 1]
    assert sequences.over


# What a client may do: its number, what it sets, and whether the run fails.
ACTIONS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["go", "start", "end", "both", "fail", "leave"])), max_size=60
)


@given(ACTIONS)
def test_any_order_of_steps_is_what_a_dictionary_would_do(actions: list[tuple[int, str]]) -> None:
    sequences = make(most=2)
    model: dict[int, float] = {}
    for at, (number, action) in enumerate(actions, start=1):
        start, end = action in ("start", "both"), action in ("end", "both")
        if action == "leave":
            sequences.leave(number)
            model.pop(number, None)
            continue
        one = step(number, owner=number, start=start, end=end)
        try:
            if action == "fail":
                with sequences.turn(one, Caller()):
                    pass
            else:
                found: float | str = add(sequences, one, at)[0]
        except MatchcutError as error:
            found = error.reason
        if not start and number not in model:
            wanted: float | str = "SEQUENCE_UNKNOWN"
        elif start and number not in model and len(model) == 2:
            wanted = "SEQUENCES_FULL"
        elif action == "fail":
            continue
        else:
            wanted = (0 if start else model[number]) + at
            model[number] = float(wanted)
            if end:
                del model[number]
        assert found == wanted
        assert len(sequences) == len(model)


def test_many_threads_on_few_sequences_lose_no_step() -> None:
    sequences = make()
    for number in range(3):
        add(sequences, step(number + 1, start=True), 0)
    begin = threading.Barrier(6)

    def run(at: int) -> None:
        begin.wait()
        for turn in range(60):
            add(sequences, step((at + turn) % 3 + 1))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
    assert [add(sequences, step(number + 1), 0)[0] for number in range(3)] == [120, 120, 120]
