"""A served model: what is asked is checked, batched, counted and labelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    InvalidInput,
    MatchcutError,
    Overloaded,
    Unavailable,
)
from matchcut.server.feed import Caller
from matchcut.server.serving import Model
from matchcut.server.serving.served import Limits, Served
from matchcut.server.tensors import DTYPES, Tensor, Tensors, TensorSpec
from support import onnx_models
from support.onnx_models import identity, model, running_sum, scale
from support.serving import STATES, Gate, Waiting, join_all

Serve = Callable[..., Served]


def rows(count: int, value: float = 1.0) -> dict[str, Tensor]:
    return {"x": np.full((count, 3), value, np.float32)}


def ask(served: Served, inputs: Tensors, **more: Any) -> dict[str, Any]:
    """The outputs as lists."""
    answer = served.infer(inputs, caller=more.pop("caller", None) or Caller(), **more)
    return {name: value.tolist() for name, value in answer.outputs.items()}


def two_outputs(classes: int = 2) -> Any:
    """(n, 2) to itself and to its double."""
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Add", ["x", "x"], ["double"])]
    kind: Any = ("FP32", ("n", classes))
    return model(nodes, {"x": kind}, {"same": kind, "double": kind})


def test_it_says_what_it_is(serve: Serve) -> None:
    served = serve(scale())
    as_model: Model = served
    assert (as_model.name, as_model.version, as_model.max_batch, as_model.stateful) == ("m", "1", 8, False)
    assert as_model.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert as_model.outputs == (TensorSpec("y", "FP32", (-1, 3)),)
    assert (as_model.platform, as_model.variant, as_model.labels) == ("onnxruntime_onnx", "onnxruntime-fp32", {})


def test_an_answer(serve: Serve) -> None:
    answer = serve(scale()).infer(rows(2, 1.5), caller=Caller())
    assert answer.outputs["y"].tolist() == [[3, 3, 3], [3, 3, 3]]
    assert answer.batch == 2
    assert min(answer.queue_ns, answer.input_ns, answer.output_ns) >= 0
    assert answer.infer_ns > 0


@pytest.mark.parametrize(
    ("shape", "toml", "most"),
    [
        (("n", 3), "", 8),
        (("n", 3), "max_batch = 3", 3),
        (("n", 3), "max_batch = 0", 0),
        ((1, 3), "", 0),
        ((), "", 0),
        (("n",), "", 8),
    ],
)
def test_how_many_rows_one_run_takes(serve: Serve, shape: Any, toml: str, most: int) -> None:
    assert serve(scale(shape=shape), toml).max_batch == most


@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_in_batches_and_without(serve: Serve, kind: str) -> None:
    value = np.array([[b"a", b"b"]], object) if kind == "BYTES" else np.ones((1, 2), DTYPES[kind])
    for toml in ("", "max_batch = 0"):
        found = serve(identity(kind, ("n", 2)), toml).infer({"x": value}, caller=Caller()).outputs["y"]
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_a_model_that_does_not_batch_takes_any_first_size(serve: Serve) -> None:
    kind: Any = ("FP32", ("a", "b"))
    node = helper.make_node("MatMul", ["p", "q"], ["y"])
    served = serve(model([node], {"p": kind, "q": kind}, {"y": kind}), "max_batch = 0")
    answer = served.infer({"p": np.ones((2, 3), np.float32), "q": np.ones((3, 4), np.float32)}, caller=Caller())
    assert answer.outputs["y"].tolist() == [[3.0] * 4] * 2
    assert answer.batch == 1
    assert serve(scale(shape=()), "").infer({"x": np.array(4, np.float32)}, caller=Caller()).outputs["y"] == 8
    assert ask(serve(scale(shape=("n",)), "max_batch = 0"), {"x": np.zeros(0, np.float32)}) == {"y": []}


def test_wanted_outputs_only(serve: Serve) -> None:
    served = serve(two_outputs())
    x = {"x": np.array([[1, 2]], np.float32)}
    assert ask(served, x) == {"same": [[1, 2]], "double": [[2, 4]]}
    assert ask(served, x, wanted=["double"]) == {"double": [[2, 4]]}
    assert list(ask(served, x, wanted=("double", "same"))) == ["same", "double"]
    with pytest.raises(InvalidInput, match="unexpected inference output 'z' for model 'm'; it gives 'same', 'double'"):
        ask(served, x, wanted=["z"])


@pytest.mark.parametrize(
    ("inputs", "message", "field"),
    [
        ({}, "expected 1 inputs but got 0 inputs for model 'm'; missing are 'x'", "x"),
        ({**rows(1), "z": np.zeros(1)}, "unexpected inference input 'z' for model 'm'; it takes 'x'", "z"),
        ({"x": np.zeros((1, 3))}, "input 'x' data-type is 'FP64', but model 'm' expects 'FP32'", "x"),
        ({"x": np.zeros((1, 3), ">f4")}, "input 'x' data-type is '>f4', but model 'm' expects", "x"),
        ({"x": np.zeros((1, 3), object)}, "data-type is 'BYTES'", "x"),
        (
            {"x": np.zeros((1, 4), np.float32)},
            r"unexpected shape for input 'x' for model 'm'. Expected \[-1,3\], got",
            "x",
        ),
        ({"x": np.zeros(3, np.float32)}, r"Expected \[-1,3\], got \[3\]", "x"),
        ({"x": np.zeros((1, 3, 1), np.float32)}, r"got \[1,3,1\]", "x"),
        ({"x": np.zeros((), np.float32)}, r"got \[\]", "x"),
        ({"x": np.zeros((0, 3), np.float32)}, "batch-size must be <= 8 for 'm', and at least 1; it is 0", "x"),
        ({"x": np.zeros((9, 3), np.float32)}, "batch-size must be <= 8 for 'm', and at least 1; it is 9", "x"),
    ],
)
def test_a_wrong_request(serve: Serve, inputs: Any, message: str, field: str) -> None:
    served = serve(scale())
    with pytest.raises(InvalidInput, match=message) as caught:
        served.infer(inputs, caller=Caller())
    assert caught.value.field == field
    counted = served.statistics()
    assert (counted.failure.count, counted.success.count, counted.executions) == (1, 0, 0)


def test_inputs_with_different_numbers_of_rows(serve: Serve) -> None:
    kind: Any = ("FP32", ("n", 1))
    served = serve(model([helper.make_node("Add", ["a", "b"], ["y"])], {"a": kind, "b": kind}, {"y": kind}))
    with pytest.raises(InvalidInput, match="input 'b' batch size does not match other inputs for 'm': 2 rows, not 3"):
        served.infer({"a": np.zeros((3, 1), np.float32), "b": np.zeros((2, 1), np.float32)}, caller=Caller())


def test_who_does_not_wait_is_not_served(serve: Serve) -> None:
    served = serve(scale())
    gone = Caller()
    gone.leave()
    with pytest.raises(Cancelled):
        served.infer(rows(1), caller=gone)
    with pytest.raises(DeadlineExceeded):
        served.infer(rows(1), caller=Caller(deadline=0.0))
    assert served.statistics().executions == 0


def test_statistics_have_equal_counts(serve: Serve) -> None:
    served = serve(scale())
    assert served.statistics().executions == 0  # the first runs, with zeros, are not counted
    for count in (1, 3, 3):
        served.infer(rows(count), caller=Caller())
    with pytest.raises(InvalidInput):
        served.infer(rows(9), caller=Caller())
    counted = served.statistics()
    assert counted.inferences == 7
    assert counted.executions == 3
    assert {size: each.count for size, each in counted.batches.items()} == {1: 1, 3: 2}
    parts = (counted.success, counted.queue, counted.input, counted.infer, counted.output)
    assert [each.count for each in parts] == [3] * 5
    assert counted.failure.count == 1
    assert counted.success.total_ns >= counted.infer.total_ns > 0
    assert sum(each.total_ns for each in counted.batches.values()) > 0
    assert counted.last_inference_ms > 1_600_000_000_000
    served.infer(rows(1), caller=Caller())
    assert (counted.executions, counted.batches[1].count) == (3, 1), "a copy does not change"


def test_callers_share_a_run_and_too_many_are_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    join_all(monkeypatch)
    waiting = Waiting(3)
    served = serve(scale(), "max_batch = 3", limits=Limits(threads=1, queue=3, watcher=waiting))
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(served.infer, rows(1, 10), caller=Caller())
        assert gate.held.wait(60)
        others = [pool.submit(served.infer, rows(1, value), caller=Caller()) for value in (1, 2, 3)]
        assert waiting.reached.wait(60)
        with pytest.raises(Overloaded, match="3 rows wait for m/1 already"):
            served.infer(rows(1), caller=Caller())
        gate.opened.set()
        assert first.result().outputs["y"][0, 0] == 20
        assert [each.result().outputs["y"][0, 0] for each in others] == [2, 4, 6]
        assert {each.result().batch for each in others} == {3}
    assert gate.sizes == [1, 3]
    assert {size: each.count for size, each in served.statistics().batches.items()} == {1: 1, 3: 1}


def test_a_failed_run_is_told_and_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(scale())
    gate = Gate(monkeypatch)
    gate.opened.set()
    gate.fail = True
    with pytest.raises(EngineFailed, match="the engine is broken"):
        served.infer(rows(1), caller=Caller())
    counted = served.statistics()
    assert (counted.failure.count, counted.success.count, counted.executions) == (1, 0, 0)


def test_instances_run_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(scale(), "instances = 2\nmax_batch = 1")
    together = threading.Barrier(2, timeout=60)
    honest = GraphEngine.run

    def run(engine: GraphEngine, inputs: Tensors) -> dict[str, Tensor]:
        together.wait()
        return honest(engine, inputs)

    monkeypatch.setattr(GraphEngine, "run", run)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda value: served.infer(rows(1, value), caller=Caller()), (1.0, 2.0)))
    assert [answer.outputs["y"][0, 0] for answer in answers] == [2, 4]


def test_a_closed_model(serve: Serve) -> None:
    served = serve(scale())
    served.runner.close()
    served.runner.close()
    with pytest.raises(Unavailable):
        served.infer(rows(1), caller=Caller())


def test_labels(serve: Serve, root: Path) -> None:
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "names").write_text("cat\ndog\n")
    assert serve(two_outputs(), '[labels]\ndouble = "names"').labels == {"double": ("cat", "dog")}
    with pytest.raises(EngineFailed, match="labels are given for 'none', but the outputs are same, double"):
        serve(two_outputs(), '[labels]\nnone = "names"')
    with pytest.raises(EngineFailed, match="there are 2 labels for 'same', which has 3 classes"):
        serve(two_outputs(3), '[labels]\nsame = "names"')


@pytest.mark.parametrize(
    ("proto", "toml", "message"),
    [
        (scale(shape=(1, 3)), "max_batch = 2", "max_batch is 2, but the first size of 'x' is not open; set it to 0"),
        (running_sum(), STATES.replace("total_in", "z"), "names an input 'z', but the graph's are x, total_in"),
        (running_sum(), STATES.replace("total_out", "z"), "names an output 'z', but the graph's are y, total_out"),
        (running_sum(), '[sequence]\nstates = { x = "y", total_in = "y" }', "feeds several inputs from one output"),
        (running_sum(), '[sequence]\nstates = { x = "y", total_in = "total_out" }', "no inputs besides its states"),
        (running_sum("n"), f"max_batch = 0\n{STATES}", r"the state 'total_in' has open sizes, \(-1, 2\)"),
        (
            model(
                [helper.make_node("Concat", ["x", "h"], ["g"], axis=1), helper.make_node("Identity", ["x"], ["y"])],
                {"x": ("FP32", ("n", 2)), "h": ("FP32", ("n", 2))},
                {"g": ("FP32", ("n", 4)), "y": ("FP32", ("n", 2))},
            ),
            '[sequence]\nstates = { h = "g" }',
            r"the state 'h' has shape \(-1, 2\), but 'g' has \(-1, 4\)",
        ),
        (
            model(
                [helper.make_node("Cast", ["h"], ["g"], to=6), helper.make_node("Identity", ["x"], ["y"])],
                {"x": ("FP32", ("n",)), "h": ("FP32", ("n",))},
                {"g": ("INT32", ("n",)), "y": ("FP32", ("n",))},
            ),
            '[sequence]\nstates = { h = "g" }',
            r"the state 'h' is FP32 \(-1,\), but 'g' is INT32 \(-1,\)",
        ),
        (
            model([helper.make_node("Constant", [], ["y"], value_float=1.0)], {}, {"y": ("FP32", ())}),
            "",
            "has no inputs",
        ),
        (
            model(
                [helper.make_node("Reshape", ["x", "to"], ["y"])],
                {"x": ("FP32", ("n", 3))},
                {"y": ("FP32", ("n", 5))},
                {"to": np.array([-1, 5])},
            ),
            "",
            "a first run with zeros failed: model.onnx failed",
        ),
        (
            model(
                [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
                {"x": ("FP32", ("n", 1))},
                {"y": ("FP32", ("m", 1))},
            ),
            "",
            r"output 'y' of model 'm/1' has shape \[4,1\] where \[2,1\] was expected: .* set max_batch = 0",
        ),
    ],
)
def test_what_does_not_fit_is_not_served(serve: Serve, proto: Any, toml: str, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        serve(proto, toml)


def test_a_graph_that_refuses_guessed_sizes_is_served_all_the_same(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[4])
    served = serve(model([node], {"x": ("FP32", ("n", 1, "t"))}, {"y": ("FP32", ("n", 1, "u"))}))
    assert "starts cold" in caplog.text
    assert ask(served, {"x": np.ones((1, 1, 4), np.float32)}) == {"y": [[[1.0]]]}
    with pytest.raises(EngineFailed):
        ask(served, {"x": np.ones((1, 1, 2), np.float32)})


def test_labels_of_an_encoder_are_of_its_second_output(serve: Serve, root: Path) -> None:
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "names.txt").write_text("a\nb\nc\n")
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node("Identity", ["embedding"], ["classes"]),
    ]
    kind: Any = ("FP32", ("n", 3))
    proto = model(nodes, {"image": ("FP32", ("n", 3, 2, 2))}, {"embedding": kind, "classes": kind})
    toml = 'name = "own"\nversion = "1"\ndimensions = 3\nlabels = "names.txt"\n[input]\nwidth = 2\nheight = 2\n'
    toml += 'layout = "NCHW"\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    assert serve(proto, toml).labels == {"classes": ("a", "b", "c")}


def test_an_encoder_is_served_as_it_is(serve: Serve, small_encoder: Path) -> None:
    served = serve(onnx_models.load(small_encoder), small_encoder.with_suffix(".toml").read_text())
    assert served.inputs == (TensorSpec("pixels", "FP32", (-1, 3, 32, 32)),)
    found = served.infer({"pixels": np.ones((2, 3, 32, 32), np.float32)}, caller=Caller()).outputs["embedding"]
    np.testing.assert_allclose(found, np.full((2, 48), 1.05, np.float32), rtol=1e-6)


def test_errors_are_ours(serve: Serve) -> None:
    served = serve(identity("BYTES"))
    with pytest.raises(MatchcutError, match="not UTF-8"):
        ask(served, {"x": np.array([[b"\xff", b"", b""]], object)})
