"""What may be run on an event loop: it gives the same answers, never waits, and never begins what could take long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import Cancelled, DeadlineExceeded, EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.serving import runner
from matchcut.server.serving.contract import Answer, SequenceStep
from matchcut.server.serving.served import Served
from support.onnx_models import identity, model, node, running_sum, scale
from support.serving import STATES, Gate

Serve = Callable[..., Served]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine does beside, a run of these models is brief and none is long."""
    monkeypatch.setattr(runner, "BRIEF", 60.0)
    monkeypatch.setattr(runner, "LONG", 60.0)
    monkeypatch.setattr(runner, "STALLED", 60.0)


def row(value: float, width: int = 2) -> dict[str, Any]:
    return {"x": np.full((1, width), value, np.float32)}


def at_once(served: Served, inputs: Any, **more: Any) -> Answer | None:
    return served.at_once(inputs, caller=more.pop("caller", Caller()), **more)


def step(*, start: bool = False, end: bool = False, number: int = 1) -> SequenceStep:
    return SequenceStep(number, "a", start, end)


@pytest.mark.parametrize("shape", [("n", 3), (1, 3), (3,)])
def test_a_plain_model(serve: Serve, shape: tuple[Any, ...]) -> None:
    served = serve(scale(shape=shape))
    assert served.brief
    x = np.arange(3, dtype=np.float32).reshape([1 if size == "n" else size for size in shape])
    found, expected = at_once(served, {"x": x}), served.infer({"x": x}, caller=Caller())
    assert found is not None
    assert found.outputs["y"].tolist() == expected.outputs["y"].tolist() == (x * 2).tolist()
    counted = served.statistics()
    assert counted.inferences == counted.executions == counted.success.count == counted.infer.count == 2


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.sampled_from(["n", 1]), steps=st.lists(st.tuples(st.booleans(), st.floats(width=32)), max_size=20))
def test_sequences_are_the_same_whichever_way_each_step_goes(
    serve: Serve, first: int | str, steps: list[tuple[bool, float]]
) -> None:
    served = serve(running_sum(first), STATES)
    assert at_once(served, row(1), step=step(start=True)) is None, "to begin one may take a while where there are many"
    served.infer(row(0), caller=Caller(), step=step(start=True))
    served.infer(row(0), caller=Caller(), step=step(start=True, number=2))
    for now, value in steps:
        expected = served.infer(row(value), caller=Caller(), step=step(number=2))
        found: Any = (
            at_once(served, row(value), step=step()) if now else served.infer(row(value), caller=Caller(), step=step())
        )
        assert found.outputs["y"].tobytes() == expected.outputs["y"].tobytes()
    assert at_once(served, row(0), step=step(end=True)) is not None
    with pytest.raises(InvalidInput, match="START flag"):
        at_once(served, row(0), step=step())
    served.leave("a")
    assert len(served.sequences) == 0
    served.runner.close()


def heavy(width: int) -> Any:
    return scale(shape=("n", width))


@pytest.mark.parametrize(
    ("proto", "toml"),
    [
        (scale(shape=("n", "m")), ""),
        (scale(shape=("n", 3, "m")), "max_batch = 4"),
        (scale(shape=("n", 3)), "max_batch = 0"),
        (identity("BYTES"), ""),
        (identity("BYTES", (2,)), ""),
        (heavy(8193), ""),
        (model([node("Unique", ["x"], ["y"])], {"x": ("FP32", (4,))}, {"y": ("FP32", ("m",))}), ""),
        (
            model(
                [node("CumSum", ["x", "axis"], ["y"])],
                {"x": ("FP32", ("n", 4))},
                {"y": ("FP32", ("n", 4))},
                {"axis": 1},
            ),
            "",
        ),
    ],
)
def test_open_sizes_texts_large_rows_and_unknown_operators_are_never_brief(serve: Serve, proto: Any, toml: str) -> None:
    served = serve(proto, toml)
    assert not served.brief
    assert at_once(served, row(1)) is None


def test_64_kib_of_inputs_outputs_and_states_are_the_most(serve: Serve) -> None:
    assert serve(heavy(8192)).brief


def test_what_was_measured_to_take_long_is_not_brief(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(scale())
    monkeypatch.setattr(runner, "BRIEF", 1e-9)
    assert not served.brief
    assert at_once(served, row(1, 3)) is None


def test_what_was_never_measured_is_not_brief(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = GraphEngine.run

    def cold(*_: Any) -> Any:
        raise EngineFailed("on purpose")

    monkeypatch.setattr(GraphEngine, "run", cold)
    monkeypatch.setattr(runner, "guessed", lambda *_: True)
    served = serve(scale())
    monkeypatch.setattr(GraphEngine, "run", honest)
    assert not served.brief
    for _ in range(2):  # the first run of all is not learnt
        served.infer(row(1, 3), caller=Caller())
    assert served.brief


@pytest.mark.parametrize(("clock", "limit", "taken"), [("thread_time", "LONG", 0.02), ("monotonic", "STALLED", 0.06)])
def test_after_one_that_took_long_there_is_none_for_a_while(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, clock: str, limit: str, taken: float
) -> None:
    """So an event loop is held up for one such run in each second at most, whatever makes them long."""
    served, now = serve(scale()), {"monotonic": 100.0, "thread_time": 5.0}
    monkeypatch.setattr(runner, limit, {"LONG": 0.005, "STALLED": 0.05}[limit])
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])
    honest = GraphEngine.run

    def slow(engine: GraphEngine, inputs: Any) -> Any:
        now["monotonic"] += 1e-5
        now[clock] += taken
        return honest(engine, inputs)

    monkeypatch.setattr(GraphEngine, "run", slow)
    answered = 0
    for _ in range(1000):
        answered += at_once(served, row(1, 3)) is not None
        now["monotonic"] += 0.01
    assert 9 <= answered <= 11, "ten seconds went by"
    monkeypatch.setattr(runner, limit, 60.0)
    now["monotonic"] += 1.0
    assert all(at_once(served, row(1, 3)) is not None for _ in range(100)), "what is not long goes on"


def test_more_rows_than_one_are_left_to_threads(serve: Serve) -> None:
    served = serve(scale())
    assert at_once(served, {"x": np.ones((2, 3), np.float32)}) is None


@contextmanager
def elsewhere(work: Callable[[], Any]) -> Iterator[None]:
    """Work that goes on in another thread."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_while_its_engine_is_busy_nobody_waits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(scale())
    gate = Gate(monkeypatch)
    with elsewhere(lambda: served.infer(row(1, 3), caller=Caller())):
        assert gate.held.wait(30)
        assert at_once(served, row(1, 3)) is None
        gate.opened.set()
    assert at_once(served, row(1, 3)) is not None
    assert gate.sizes == [1, 1]


def test_while_its_sequence_is_busy_nobody_waits_and_the_order_stays(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(running_sum(), STATES + "\n", limits=None)
    for number in (1, 2):
        served.infer(row(1), caller=Caller(), step=step(start=True, number=number))
    with served.sequences.turn(step(), Caller()) as turn:
        assert at_once(served, row(5), step=step()) is None
        assert at_once(served, row(5), step=step(number=2)) is not None, "another sequence is not held up"
        turn.after = turn.state
    found = at_once(served, row(5), step=step())
    assert found is not None
    assert found.outputs["y"].tolist() == [[6, 6]]
    gate = Gate(monkeypatch)
    with elsewhere(lambda: served.infer(row(0), caller=Caller(), step=step())):
        assert gate.held.wait(30)
        for number in (1, 2):
            assert at_once(served, row(5), step=step(number=number)) is None
        gate.opened.set()
    assert [float(served.infer(row(0), caller=Caller(), step=step(number=n)).outputs["y"][0, 0]) for n in (1, 2)] == [
        6,
        6,
    ]


@pytest.mark.parametrize("which", ["sequences", "batcher"])
def test_nobody_waits_for_a_lock(serve: Serve, which: str) -> None:
    served = serve(running_sum(), STATES)
    served.infer(row(1), caller=Caller(), step=step(start=True))
    lock = served.sequences._lock if which == "sequences" else served.runner._batcher._lock
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert done.wait(30)

    with elsewhere(hold):
        assert held.wait(30)
        assert at_once(served, row(1), step=step()) is None
        done.set()
    found = at_once(served, row(1), step=step())
    assert found is not None
    assert found.outputs["y"].tolist() == [[2, 2]]


def test_nothing_is_done_for_one_who_has_left(serve: Serve) -> None:
    served, gone = serve(scale()), Caller()
    gone.leave()
    with pytest.raises(Cancelled):
        at_once(served, row(1, 3), caller=gone)
    with pytest.raises(DeadlineExceeded):
        at_once(served, row(1, 3), caller=Caller(time.monotonic() - 1))
    counted = served.statistics()
    assert (counted.executions, counted.failure.count) == (0, 2)


def test_what_fails_leaves_the_state_as_it_was(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(running_sum(), STATES)
    served.infer(row(3), caller=Caller(), step=step(start=True))
    gate = Gate(monkeypatch)
    gate.opened.set()
    gate.fail = True
    with pytest.raises(EngineFailed, match="broken"):
        at_once(served, row(1), step=step())
    gate.fail = False
    with pytest.raises(EngineFailed):  # not checked here, as whoever asks has done it; the engine finds it
        at_once(served, {"x": np.ones((1, 2), np.float64)}, step=step())
    found = at_once(served, row(1), step=step())
    assert found is not None
    assert found.outputs["y"].tolist() == [[4, 4]]


def test_where_a_sequence_may_be_on_another_version_it_is_looked_for_in_threads(serve: Serve) -> None:
    old, new = serve(running_sum(), STATES), serve(running_sum(), STATES, version="2")
    old.infer(row(1), caller=Caller(), step=step(start=True))
    new.follow([old])
    old.retire(new)
    for served in (old, new):
        assert at_once(served, row(1), step=step()) is None
        assert served.infer(row(1), caller=Caller(), step=step()).outputs["y"][0, 0] > 1
    new.infer(row(1), caller=Caller(), step=step(end=True))
    new.sweep()
    new.infer(row(1), caller=Caller(), step=step(start=True))
    assert at_once(new, row(1), step=step()) is not None, "the old version has no sequences any more"
