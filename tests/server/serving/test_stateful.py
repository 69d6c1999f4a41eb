"""A model with a state: each sequence has its own, also where many run together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.server.errors import Cancelled, EngineFailed, InvalidInput, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.served import Limits, Served
from support.onnx_models import running_sum, scale
from support.serving import STATES, Gate, Waiting, add, join_all

Serve = Callable[..., Served]


def sequence(number: int | str, owner: object = "a", *, start: bool = False, end: bool = False) -> SequenceStep:
    return SequenceStep(number, owner, start, end)


@pytest.mark.parametrize("first", ["n", 1])
def test_a_model_with_a_state(serve: Serve, first: int | str) -> None:
    served = serve(running_sum(first), STATES)
    assert served.stateful
    assert served.max_batch == (8 if first == "n" else 0)
    assert [spec.name for spec in served.inputs] == ["x"]
    assert [spec.name for spec in served.outputs] == ["y"]
    assert add(served, sequence(1, start=True)) == 1
    assert add(served, sequence(1), 2.5) == 3.5
    assert add(served, sequence("other", start=True), 7) == 7
    assert add(served, sequence(1, end=True)) == 4.5
    with pytest.raises(InvalidInput, match="must specify the START flag"):
        add(served, sequence(1))
    served.leave("a")
    with pytest.raises(InvalidInput, match="START"):
        add(served, sequence("other"))
    assert len(served.sequences) == 0


def test_wrong_steps(serve: Serve) -> None:
    served = serve(running_sum(), STATES)
    for step in (None, sequence(0, start=True), sequence("", start=True)):
        with pytest.raises(InvalidInput, match="must specify a non-zero or non-empty correlation ID"):
            add(served, step)
    with pytest.raises(InvalidInput, match="has 2 rows; a step of a sequence has one"):
        served.infer({"x": np.zeros((2, 2), np.float32)}, caller=Caller(), step=sequence(1, start=True))
    with pytest.raises(InvalidInput, match="unexpected inference input 'total_in'"):
        served.infer(
            {name: np.zeros((1, 2), np.float32) for name in ("x", "total_in")},
            caller=Caller(),
            step=sequence(1, start=True),
        )
    with pytest.raises(InvalidInput, match="unexpected inference output 'total_out'"):
        served.infer(
            {"x": np.zeros((1, 2), np.float32)}, caller=Caller(), wanted=["total_out"], step=sequence(1, start=True)
        )
    assert len(served.sequences) == 0
    with pytest.raises(InvalidInput, match="model 'm' keeps no state"):
        serve(scale(shape=("n", 2))).infer({"x": np.zeros((1, 2), np.float32)}, caller=Caller(), step=sequence(1))


def test_as_many_sequences_as_the_server_allows(serve: Serve) -> None:
    served = serve(running_sum(), STATES, limits=Limits(threads=1, sequences=1))
    add(served, sequence(1, start=True))
    with pytest.raises(Overloaded, match="has 1 sequences, as many as it may have"):
        add(served, sequence(2, start=True))


def test_states_of_several_sequences_run_together_and_poison_stays_where_it_is(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    join_all(monkeypatch)
    waiting = Waiting(4)
    served = serve(running_sum(), STATES, limits=Limits(threads=1, watcher=waiting))
    for number in range(1, 5):
        add(served, sequence(number, number, start=True), float("nan") if number == 2 else number)
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(add, served, sequence(9, 9, start=True))
        assert gate.held.wait(60)
        others = [pool.submit(add, served, sequence(number, number), 10) for number in range(1, 5)]
        assert waiting.reached.wait(60)
        gate.opened.set()
        found = [each.result() for each in others]
        first.result()
    assert gate.sizes == [1, 4], "the states were gathered into one run"
    assert found[0] == 11
    assert np.isnan(found[1])
    assert found[2:] == [13, 14]
    assert [add(served, sequence(number, number), 0) for number in (1, 3, 4)] == [11, 13, 14]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    first=st.sampled_from(["n", 1]),
    values=st.integers(1, 9).flatmap(
        lambda count: st.lists(
            st.lists(st.floats(-1e6, 1e6, width=32), min_size=count, max_size=count), min_size=1, max_size=6
        )
    ),
)
def test_gathering_and_scattering_gives_each_sequence_its_own_state(
    serve: Serve, first: int | str, values: list[list[float]]
) -> None:
    served = serve(running_sum(first), STATES)
    count = len(values[0])
    with ThreadPoolExecutor(count) as pool:
        for at, row in enumerate(values):
            steps = [sequence(number + 1, start=not at) for number in range(count)]
            found = list(pool.map(lambda step, value: add(served, step, value), steps, row))
            alone = np.zeros(count, np.float32)
            for earlier in values[: at + 1]:
                alone += np.array(earlier, np.float32)
            assert found == alone.tolist()
    counted = served.statistics()
    assert counted.inferences == counted.success.count == len(values) * count
    assert sum(size * each.count for size, each in counted.batches.items()) == len(values) * count
    served.leave("a")
    assert len(served.sequences) == 0
    served.runner.close()


def test_a_step_that_was_cancelled_in_the_line_leaves_the_state_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(1)
    served = serve(running_sum(), STATES, limits=Limits(threads=1, watcher=waiting))
    add(served, sequence(1, start=True))
    add(served, sequence(2, start=True))
    gate, gone = Gate(monkeypatch), Caller()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(add, served, sequence(1), 2)
        assert gate.held.wait(60)
        waiting.reached.clear()
        x = {"x": np.full((1, 2), 50, np.float32)}
        late = pool.submit(served.infer, x, caller=gone, step=sequence(2))
        assert waiting.reached.wait(60)
        gone.leave()
        with pytest.raises(Cancelled):
            late.result()
        gate.opened.set()
        assert first.result() == 3
    assert gate.sizes == [1], "nothing was computed for who had left"
    assert add(served, sequence(2), 0) == 1


def test_a_failed_step_may_be_sent_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(running_sum(), STATES)
    add(served, sequence(1, start=True))
    gate = Gate(monkeypatch)
    gate.opened.set()
    gate.fail = True
    with pytest.raises(EngineFailed):
        add(served, sequence(1, end=True), 5)
    gate.fail = False
    assert add(served, sequence(1, end=True), 5) == 6
