"""Any ONNX graph with tensors of any type runs; what cannot be passed is refused when it is loaded."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from matchcut.server.engines import graphs
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import graph
from matchcut.server.tensors import DTYPES, TensorSpec
from support import onnx_models
from support.onnx_models import KINDS, identity, model, scale


def load(folder: Path, proto: Any) -> GraphEngine:
    return GraphEngine(graph.read(onnx_models.write(folder, proto)), threads=1)


def values(kind: str) -> Any:
    if kind == "BYTES":
        return np.array([[b"", "é".encode(), b"a\0b"], [b"x" * 300, b"1", b" "]], object)
    if kind == "BF16":
        return np.array([[0x3F80, 0xC000, 0x0000], [0x7F80, 0x0001, 0xFFFF]], np.uint16)
    return np.array([[0, 1, 2], [3, 100, 127]]).astype(DTYPES[kind])


def test_every_type_has_an_example() -> None:
    assert set(KINDS) == set(DTYPES) == set(graphs.TYPES.values())


@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_goes_through(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, identity(kind))
    assert engine.inputs == (TensorSpec("x", kind, (-1, 3)),)
    assert engine.outputs == (TensorSpec("y", kind, (-1, 3)),)
    given_, kept = values(kind), values(kind)
    found = engine.run({"x": given_})["y"]
    assert found.dtype == DTYPES[kind]
    np.testing.assert_array_equal(found, given_)
    np.testing.assert_array_equal(given_, kept)
    found[0, 0] = found[0, 1]  # the answer is the caller's own
    assert engine.run({"x": given_})["y"].tolist() == kept.tolist()


@pytest.mark.parametrize("kind", DTYPES)
def test_no_rows_views_and_scalars(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, identity(kind, ("n", "m")))
    assert engine.run({"x": values(kind)[:0]})["y"].shape == (0, 3)
    np.testing.assert_array_equal(engine.run({"x": values(kind)[:, ::-2]})["y"], values(kind)[:, ::-2])
    np.testing.assert_array_equal(engine.run({"x": values(kind).T})["y"], values(kind).T)
    scalar = load(tmp_path, identity(kind, ()))
    assert scalar.inputs[0].shape == ()
    found = scalar.run({"x": values(kind)[1, 1:2].reshape(())})["y"]
    assert (found.shape, found.item()) == ((), values(kind)[1, 1])


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["a", "b"], ["difference"]), helper.make_node("Add", ["a", "b"], ["sum"])]
    kind: Any = ("FP32", ("n",))
    engine = load(tmp_path, model(nodes, {"a": kind, "b": kind}, {"sum": kind, "difference": kind}))
    found = engine.run({"b": np.array([1, 2], np.float32), "a": np.array([5, 5], np.float32)})
    assert {name: value.tolist() for name, value in found.items()} == {"sum": [6, 7], "difference": [4, 3]}
    assert list(found) == ["sum", "difference"]


def test_bfloat16_beside_other_types(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["half"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["whole", "more"], ["total"]),
        helper.make_node("Cast", ["total"], ["back"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["total"], ["text"], to=TensorProto.STRING),
    ]
    inputs: Any = {"half": ("BF16", ("n",)), "more": ("FP32", ("n",))}
    outputs: Any = {"total": ("FP32", ("n",)), "back": ("BF16", ("n",)), "text": ("BYTES", ("n",))}
    found = load(tmp_path, model(nodes, inputs, outputs)).run(
        {"half": np.array([0x3F80, 0x4000], np.uint16), "more": np.array([1, 2], np.float32)}
    )
    assert found["total"].tolist() == [2, 4]
    assert found["back"].tolist() == [0x4000, 0x4080]
    assert found["text"].tolist() == [b"2", b"4"]


def test_bfloat16_that_cannot_be_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["t"])]
    both = model(
        nodes, {"x": ("BF16", ("n",)), "s": ("BYTES", ("n",))}, {"y": ("BF16", ("n",)), "t": ("BYTES", ("n",))}
    )
    with pytest.raises(EngineFailed, match="BYTES inputs beside BF16") as caught:
        load(tmp_path, both)
    assert caught.value.reason == "MODEL_UNSUPPORTED"
    monkeypatch.delattr(onnxruntime.OrtValue, "ortvalue_from_numpy_with_onnx_type")
    with pytest.raises(EngineFailed, match="pip install --upgrade onnxruntime"):
        load(tmp_path, identity("BF16"))
    load(tmp_path, identity("FP16"))


def test_text_may_be_given_as_text_but_must_be_utf8(tmp_path: Path) -> None:
    engine = load(tmp_path, identity("BYTES", ("n",)))
    assert engine.run({"x": np.array(["é", b"b"], object)})["y"].tolist() == ["é".encode(), b"b"]
    for wrong in (b"\xff\xfe", 5, None):
        with pytest.raises(InvalidInput, match="'x' holds bytes that are not UTF-8") as caught:
            engine.run({"x": np.array([wrong], object)})
        assert caught.value.field == "x"


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (identity(shape=None), "input 'x' gives no shape"),
        (
            model(
                [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("SequenceLength", ["s"], ["y"])],
                {"x": ("FP32", (1,))},
                {"y": ("FP32", (1,))},
            ),
            "ONNX Runtime cannot load",
        ),
        (
            model([helper.make_node("NoSuchThing", ["x"], ["y"])], {"x": ("FP32", (1,))}, {"y": ("FP32", (1,))}),
            "cannot load",
        ),
    ],
)
def test_graphs_that_cannot_be_served(tmp_path: Path, proto: Any, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        load(tmp_path, proto)


def test_an_output_that_is_no_tensor(tmp_path: Path) -> None:
    proto = identity()
    proto.graph.output.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [1]))
    proto.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["list"]))
    with pytest.raises(EngineFailed, match=r"output 'list' is a seq\(tensor\(float\)\)") as caught:
        load(tmp_path, proto)
    assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_an_inferred_shape_of_an_output_is_enough(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    engine = load(tmp_path, model([node], {"x": ("FP32", ("n", 3))}, {"y": ("FP32", None)}))
    assert engine.outputs == (TensorSpec("y", "FP32", (-1, 6)),)


def test_a_failing_run_and_a_closed_engine(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    kind: Any = ("FP32", ("n", "m"))
    engine = load(tmp_path, model([node], {"a": kind, "b": kind}, {"y": kind}))
    with pytest.raises(EngineFailed, match=r"model\.onnx failed"):
        engine.run({"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 3), np.float32)})
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed") as caught:
        engine.run({"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)})
    assert caught.value.reason == "ENGINE_CLOSED"


@pytest.mark.parametrize("kind", ["FP32", "BF16"])
def test_threads_do_not_disturb_each_other(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, identity(kind, ("n",)))
    together = threading.Barrier(4)

    def run(number: int) -> bool:
        together.wait()
        given_ = np.full(1000, number, DTYPES[kind])
        return all((engine.run({"x": given_})["y"] == given_).all() for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.array([1], np.float32).tobytes())
    proto = onnx.load_model_from_string(scale().SerializeToString())
    external_data_helper.set_external_data(proto.graph.initializer[0], "../secret", 0, 4)
    with pytest.raises(EngineFailed, match="weights in another file: save the model as one file") as caught:
        load(tmp_path / "m", proto)
    assert caught.value.reason == "MODEL_INVALID"


def outside(name: str) -> Any:
    tensor = numpy_helper.from_array(np.array([1], np.float32), name)
    external_data_helper.set_external_data(tensor, "weights", 0, 4)
    return tensor


def test_weights_hidden_in_a_node_a_branch_or_a_function_are_found(tmp_path: Path) -> None:
    hidden = helper.make_node("Constant", [], ["c"], value=outside("value"))
    branch = helper.make_graph([hidden], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    weight = helper.make_graph([], "branch", [], [], [outside("w")])
    in_branch = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    by_weight = helper.make_node("If", ["x"], ["y"], then_branch=weight, else_branch=weight)
    by_list = helper.make_node("Many", ["x"], ["y"], graphs=[weight])
    kind: Any = ("BOOL", (1,))
    plain = model([helper.make_node("Identity", ["x"], ["y"])], {"x": kind}, {"y": kind})
    assert graph.read(onnx_models.write(tmp_path, plain)).content == plain.SerializeToString()
    for node in (hidden, in_branch, by_weight, by_list):
        with pytest.raises(EngineFailed, match="in another file"):
            graph.read(onnx_models.write(tmp_path, model([node], {"x": kind}, {"y": kind})))
    function = helper.make_function("own", "F", ["x"], ["y"], [hidden], [helper.make_opsetid("", 17)])
    plain.functions.append(function)
    with pytest.raises(EngineFailed, match="in another file"):
        graph.read(onnx_models.write(tmp_path, plain))


def test_graphs_nested_without_end(tmp_path: Path) -> None:
    kind: Any = ("BOOL", (1,))
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(graph.DEEPEST + 1):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "inner", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    with pytest.raises(EngineFailed, match="nested more than 16 deep"):
        graph.read(onnx_models.write(tmp_path, model([node], {"x": kind}, {"y": kind})))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(EngineFailed, match=r"m\.onnx cannot be read: No such file"):
        graph.read(path)
    for content in (b"", b"hello, this is not ONNX", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(EngineFailed, match="cannot be read as ONNX"):
            graph.read(path)
    path.write_bytes(model([], {"x": ("FP32", (1,))}, {}).SerializeToString())
    with pytest.raises(EngineFailed, match="no outputs"):
        graph.read(path)
    path.unlink()
    os.mkdir(path)
    with pytest.raises(EngineFailed, match="Is a directory"):
        graph.read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_crash(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(onnx_models.running_sum().SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message = ""
    try:
        assert graph.read(path).content == path.read_bytes()
    except EngineFailed as error:
        message = error.message
    assert message == "" or message.startswith("damaged.onnx ")
