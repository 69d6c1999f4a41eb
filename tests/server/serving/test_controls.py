"""Sequences of models that Triton served: the server keeps their states, and tells the graph where in one it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server import oip
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.serving import Control, Model, SequenceStep, Signal
from matchcut.server.serving.controls import filled
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.runner import Runner
from matchcut.server.serving.served import Limits
from matchcut.server.tensors import TensorSpec
from support import onnx_models
from support.onnx_models import node, running_sum
from support.serving import Gate, Waiting, join_all

Load = Callable[..., Model]

STATE = 'state [ { input_name: "total_in" output_name: "total_out" data_type: TYPE_FP32 dims: [ 2 ] } ]'
CONTROLS = """
control_input [
  { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
  { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] },
  { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ -3, 7 ] } ] },
  { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } ] }
]
"""


def told(first: int | str = "n", *, state: bool = True, id_kind: str = "INT64") -> Any:
    """What a step is told: y = START, READY, END; id = ID; and where there is a state, sum = x and all before it."""
    one = (first, 1)
    nodes = [
        node("Cast", ["READY"], ["ready"], to=1),
        node("Cast", ["END"], ["end"], to=1),
        node("Concat", ["START", "ready", "end"], ["y"], axis=1),
        node("Identity", ["ID"], ["id"]),
    ]
    inputs: dict[str, Any] = {"START": ("FP32", one), "READY": ("BOOL", one), "END": ("INT32", one)}
    inputs |= {"ID": (id_kind, one), "x": ("FP32", (first, 2))}
    outputs: dict[str, Any] = {"y": ("FP32", (first, 3)), "id": (id_kind, one), "sum": ("FP32", (first, 2))}
    if not state:
        return onnx_models.model([*nodes, node("Identity", ["x"], ["sum"])], inputs, outputs)
    nodes += [node("Add", ["x", "total_in"], ["total_out"]), node("Identity", ["total_out"], ["sum"])]
    inputs["total_in"] = outputs["total_out"] = ("FP32", (first, 2))
    return onnx_models.model(nodes, inputs, outputs)


@pytest.fixture
def load(root: Path, open_: Callable[..., FolderRepository]) -> Load:
    """Loads a model with a config.pbtxt."""

    def make(proto: Any, config: str, **options: Any) -> Model:
        onnx_models.write(root / "m" / "1", proto)
        (root / "m" / "config.pbtxt").write_text(config)
        repository = open_(read=oip.read_config, **options)
        repository.load("m")
        return repository.model("m")

    return make


def batching(*parts: str) -> str:
    return f"sequence_batching {{ {' '.join(parts)} }}"


def ask(model: Model, step: SequenceStep, value: float = 1.0) -> tuple[list[float], Any, float]:
    """What one step is told, its id, and the sum."""
    x = np.full((1, 2), value, np.float32)
    found = model.infer({"x": x}, caller=Caller(), step=step).outputs
    return found["y"][0].tolist(), found["id"].tolist()[0][0], float(found["sum"][0, 1])


@pytest.mark.parametrize("first", ["n", 1])
def test_a_sequence_with_controls_and_a_state(load: Load, first: int | str) -> None:
    dims = "2" if first == "n" else "1, 2"
    model = load(told(first), batching(CONTROLS, STATE.replace("[ 2 ]", f"[ {dims} ]"), "direct { }"))
    assert (model.stateful, model.max_batch) == (True, 8 if first == "n" else 0)
    assert [spec.name for spec in model.inputs] == ["x"], "the rest is the server's"
    assert [spec.name for spec in model.outputs] == ["y", "id", "sum"]
    assert ask(model, SequenceStep(5, "a", start=True), 2) == ([1, 1, -3], 5, 2)
    assert ask(model, SequenceStep(5, "a"), 3) == ([0, 1, -3], 5, 5)
    assert ask(model, SequenceStep(9, "a", start=True, end=True), 4) == ([1, 1, 7], 9, 4)
    assert ask(model, SequenceStep(5, "a", end=True), 1) == ([0, 1, 7], 5, 6)
    with pytest.raises(InvalidInput, match="must specify the START flag"):
        ask(model, SequenceStep(5, "a"))


def test_a_sequence_without_a_state(load: Load) -> None:
    """Where the graph only wants to know where it is, requests belong to sequences all the same."""
    model = load(told(state=False), batching(CONTROLS))
    assert model.stateful
    assert ask(model, SequenceStep(1, "a", start=True), 2) == ([1, 1, -3], 1, 2)
    assert ask(model, SequenceStep(1, "a"), 3) == ([0, 1, -3], 1, 3)
    with pytest.raises(InvalidInput, match="must specify a non-zero or non-empty correlation ID"):
        model.infer({"x": np.zeros((1, 2), np.float32)}, caller=Caller())
    with pytest.raises(InvalidInput, match="must specify the START flag"):
        ask(model, SequenceStep(2, "a"))


def test_steps_of_several_sequences_in_one_run_are_told_apart(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    join_all(monkeypatch)
    waiting = Waiting(4)
    model = load(told(), batching(CONTROLS, STATE), limits=Limits(threads=1, watcher=waiting))
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(5) as pool:
        steps = [SequenceStep(number, "a", start=True, end=number % 2 == 0) for number in range(1, 6)]
        asked = [pool.submit(ask, model, step, number) for number, step in enumerate(steps, 1)]
        reached = waiting.reached.wait(60)
        gate.opened.set()
        found = [each.result() for each in asked]
    assert reached
    assert found == [([1, 1, -3 if number % 2 else 7], number, number) for number in range(1, 6)]
    assert max(gate.sizes) == 4, "they ran together"


def test_a_small_model_is_told_the_same_on_the_event_loop(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(told(), batching(CONTROLS, STATE))
    monkeypatch.setattr(Runner, "brief", True)
    ask(model, SequenceStep(4, "a", start=True), 1)
    x = {"x": np.ones((1, 2), np.float32)}
    answer = model.at_once(x, caller=Caller(), step=SequenceStep(4, "a", end=True))
    assert answer is not None
    assert answer.outputs["y"].tolist() == [[0, 1, 7]]
    assert answer.outputs["sum"].tolist() == [[2, 2]]


def test_names_of_sequences(load: Load) -> None:
    text = CONTROLS.replace("TYPE_INT64", "TYPE_STRING")
    model = load(told(id_kind="BYTES"), batching(text, STATE))
    assert ask(model, SequenceStep("clip ä", "a", start=True))[1] == "clip ä".encode()
    assert ask(model, SequenceStep(7, "a", start=True))[1] == b"7"


def test_a_name_where_the_graph_takes_numbers(load: Load) -> None:
    model = load(told(), batching(CONTROLS, STATE))
    with pytest.raises(InvalidInput, match="takes numbers of sequences as INT64; give a number, not 'clip'") as caught:
        ask(model, SequenceStep("clip", "a", start=True))
    assert caught.value.field == "sequence_id"


@given(st.sampled_from(["INT32", "INT64", "UINT32", "UINT64"]), st.integers(-(2**63), 2**64 - 1))
def test_any_number_is_told_by_its_lower_bits(kind: str, number: int) -> None:
    control, spec = Control("ID", Signal.CORRID, kind), TensorSpec("ID", kind, (-1, 1))
    found = filled([(control, spec)], SequenceStep(number, "a"))["ID"]
    assert (found.shape, str(found.dtype)) == ((1, 1), kind.lower())
    assert (int(found[0, 0]) - number) % (1 << (8 * found.dtype.itemsize)) == 0


def test_an_output_that_is_a_state_is_given_where_it_is_declared(load: Load) -> None:
    model = load(running_sum(), 'output { name: "total_out" } ' + batching(STATE))
    assert [spec.name for spec in model.outputs] == ["total_out"]
    x = {"x": np.ones((1, 2), np.float32)}
    for sum_ in (1, 2):
        step = SequenceStep(1, "a", start=sum_ == 1)
        assert model.infer(x, caller=Caller(), step=step).outputs["total_out"].tolist() == [[sum_, sum_]]


def test_the_file_fixes_a_state_s_size(load: Load) -> None:
    kind: Any = ("FP32", ("n", "width"))
    nodes = [node("Add", ["x", "h"], ["h_next"])]
    proto = onnx_models.model(nodes, {"x": kind, "h": kind}, {"h_next": kind})
    state = 'state { input_name: "h" output_name: "h_next" %s }'
    with pytest.raises(EngineFailed, match="the state 'h' has open sizes"):
        load(proto, batching(state % ""))
    model = load(proto, batching(state % "dims: 3"))
    answer = model.infer({"x": np.ones((1, 3), np.float32)}, caller=Caller(), step=SequenceStep(1, "a", start=True))
    assert answer.outputs["h_next"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('state { input_name: "h" output_name: "total_out" }', "it has an input 'h', but the graph's are "),
        ('state { input_name: "total_in" output_name: "h" }', "it has an output 'h', but the graph's are "),
        ('state { input_name: "total_in" output_name: "total_in" }', "it has an output 'total_in', but"),
        (
            'state [ { input_name: "x" output_name: "sum" }, { input_name: "total_in" output_name: "sum" } ]',
            "output 'sum' is there twice: each is for one thing only",
        ),
        (
            'state [ { input_name: "x" output_name: "total_out" }, { input_name: "x" output_name: "sum" } ]',
            "input 'x' is there twice",
        ),
        (STATE.replace("FP32", "INT8"), "input 'total_in' is TYPE_INT8, but TYPE_FP32 in the graph"),
        (STATE.replace("[ 2 ]", "[ 3 ]"), r"input 'total_in' has the dims \[3\], but \[2\] in the graph"),
        (CONTROLS.replace("READY", "x", 1), "control_input 'x' is TYPE_BOOL, but TYPE_FP32 in the graph"),
        (CONTROLS.replace("READY", "START", 1), "input 'START' is there twice"),
        (CONTROLS.replace("START", "x", 1), r"control_input 'x' has \[2\] in the graph: it must be one value a row"),
        (CONTROLS.replace("TYPE_INT64", "TYPE_UINT64"), "control_input 'ID' is TYPE_UINT64, but TYPE_INT64"),
        (STATE + ' } input { name: "total_in" ', "input 'total_in' is there twice"),
        (CONTROLS + ' } input { name: "ID" ', "input 'ID' is there twice"),
    ],
)
def test_what_the_graph_does_not_have_is_refused(load: Load, config: str, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        load(told(), batching(config))
