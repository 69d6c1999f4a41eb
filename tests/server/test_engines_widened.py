"""Files in bfloat16 run on ONNX Runtime as copies in float32: exact weights, the file's casts, its signature."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from matchcut.server import engines, models
from matchcut.server.engines import registry, widened
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph
from matchcut.server.records import EncoderIdentity, Floats, InputSize
from matchcut.server.tensors import TensorSpec
from support import onnx_models

BF16: Any = ml_dtypes.bfloat16
RNG = np.random.default_rng(0)


def rounded(values: Any) -> Floats:
    """To bfloat16 and back."""
    wide: Floats = np.asarray(values, np.float32).astype(BF16).astype(np.float32)
    return wide


def info(name: str, kind: int, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, values: Any) -> Any:
    """An initializer in bfloat16."""
    return numpy_helper.from_array(np.asarray(values, np.float32).astype(BF16), name)


def model(nodes: Any, inputs: Any, outputs: Any, weights: Any = (), **more: Any) -> Any:
    """A ModelProto of version 22, the first whose operators know bfloat16."""
    opsets = [helper.make_opsetid("", 22), *more.pop("opsets", [])]
    made = helper.make_graph(nodes, "test", inputs, outputs, list(weights))
    return helper.make_model(made, opset_imports=opsets, ir_version=10, **more)


def doubled(kind: int = TensorProto.BFLOAT16) -> Any:
    """y is x + x, for which there is no kernel in bfloat16."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [info("x", kind, ["n", 2])], [info("y", kind, ["n", 2])])


def load(folder: Path, proto: Any) -> GraphEngine:
    return GraphEngine(graph.read(onnx_models.write(folder, proto)), threads=1)


def run(folder: Path, proto: Any, **inputs: Any) -> dict[str, Any]:
    """Tensors of bfloat16 go in and come out as such."""
    onnx.checker.check_model(proto, full_check=True)
    engine = load(folder, proto)
    bits = {name: value.view(np.uint16) if value.dtype == BF16 else value for name, value in inputs.items()}
    kinds = {spec.name: spec.dtype for spec in engine.outputs}
    found = engine.run(bits)
    engine.close()
    return {name: value.view(BF16) if kinds[name] == "BF16" else value for name, value in found.items()}


WEIGHTS = RNG.standard_normal((4, 3, 1, 1)).astype(np.float32)
BIAS = RNG.standard_normal(4).astype(np.float32)


@pytest.fixture
def encoder(tmp_path: Path) -> models.Encoder:
    """(n, 3, 4, 4) to (n, 4), both float32: a convolution in bfloat16 and the mean of its result."""
    proto = model(
        [
            helper.make_node("Cast", ["image"], ["narrow"], to=TensorProto.BFLOAT16),
            helper.make_node("Conv", ["narrow", "w", "b"], ["conv"]),
            helper.make_node("GlobalAveragePool", ["conv"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["embedding"], to=TensorProto.FLOAT),
        ],
        [info("image", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [info("embedding", TensorProto.FLOAT, ["n", 4])],
        [weight("w", WEIGHTS), weight("b", BIAS)],
    )
    path = onnx_models.write(tmp_path, proto)
    return models.Encoder(
        path, EncoderIdentity("small", "1", "0" * 64, 4), InputSize(4, 4), (0, 0, 0), (1, 1, 1), "NCHW"
    )


def test_an_encoder_is_rounded_where_it_says_and_computed_in_float32(
    encoder: models.Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        engine = engines.load(encoder, engine="onnxruntime", threads=1)
    assert engine.variant == "onnxruntime-fp32", "which is what it computes in"
    assert [record.message for record in caplog.records if record.name == widened.__name__] == [
        f"{encoder.path} is in bfloat16, in which ONNX Runtime cannot compute on CPUs: it runs in float32 here"
    ]
    batch = RNG.standard_normal((3, 3, 4, 4)).astype(np.float32)
    means = rounded(batch).astype(np.float64).mean((2, 3))
    wanted = means @ rounded(WEIGHTS)[:, :, 0, 0].T.astype(np.float64) + rounded(BIAS)
    found = engine.run(batch)
    engine.close()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    unrounded = batch.astype(np.float64).mean((2, 3)) @ rounded(WEIGHTS)[:, :, 0, 0].T + rounded(BIAS)
    assert not np.allclose(found, unrounded, rtol=1e-5, atol=1e-6), "the Cast at its start has gone"


def test_auto_measures_it_too(encoder: models.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    only = {name: each for name, each in registry.VARIANTS.items() if each.library == "onnxruntime"}
    monkeypatch.setattr(registry, "VARIANTS", only)
    engine = engines.load(encoder, threads=1)
    assert engine.variant == "onnxruntime-fp32"
    engine.close()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineFailed, match=r"no engine can run .*pip install onnx"):
        engines.load(encoder, threads=1)


def test_a_served_model_keeps_its_types(tmp_path: Path) -> None:
    engine = load(tmp_path, doubled())
    assert engine.inputs == (TensorSpec("x", "BF16", (-1, 2)),)
    assert engine.outputs == (TensorSpec("y", "BF16", (-1, 2)),)
    assert engine.variant == "onnxruntime-fp32"
    x = np.array([[1.5, -2], [0, np.inf]], BF16)
    found = run(tmp_path, doubled(), x=x)["y"]
    assert found.dtype == BF16
    assert found.astype(np.float32).tolist() == [[3, -4], [0, np.inf]]


def test_what_runs_as_it_is_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: bytes) -> bytes:
        raise AssertionError("a copy was made")

    monkeypatch.setattr(widened, "widened", never)
    load(tmp_path, doubled(TensorProto.FLOAT))
    load(tmp_path, onnx_models.identity("BF16"))
    with pytest.raises(EngineFailed, match="a copy was made"):
        load(tmp_path, doubled())


def test_another_missing_kernel_is_told_as_it_is(tmp_path: Path) -> None:
    value = [info("x", TensorProto.DOUBLE, ["n", 1, 2, 2])]
    proto = model([helper.make_node("Conv", ["x", "x"], ["y"])], value, [info("y", TensorProto.DOUBLE, None)])
    assert widened.widened(proto.SerializeToString()) is None
    proto.graph.output[0].type.tensor_type.shape.SetInParent()
    with pytest.raises(EngineFailed, match=r"cannot load model\.onnx: .*NOT_IMPLEMENTED.*Conv"):
        load(tmp_path, proto)


def test_without_onnx_it_says_what_to_install(
    encoder: models.Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineFailed, match=r"NOT_IMPLEMENTED.*bfloat16.*pip install onnx$") as caught:
        registry.make(encoder, "onnxruntime", 1)
    assert caught.value.reason == "ENGINE_NOT_INSTALLED"
    assert "installed are" not in caught.value.message, "the library that is missing is another"
    with pytest.raises(EngineFailed, match=r"pip install onnx$"):
        load(tmp_path, doubled())


def test_a_copy_that_is_refused_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bits are what a copy cannot keep."""
    nodes = [
        helper.make_node("BitCast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Add", ["narrow", "narrow"], ["y"]),
    ]
    proto = model(nodes, [info("x", TensorProto.INT16, ["n"])], [info("y", TensorProto.BFLOAT16, ["n"])])
    proto.opset_import[0].version = 26
    assert widened.widened(proto.SerializeToString())
    with caplog.at_level(logging.INFO), pytest.raises(EngineFailed, match=r"cannot load model\.onnx: .*Add"):
        load(tmp_path, proto)
    assert "runs in float32" not in caplog.text


@given(st.lists(st.integers(0, 0xFFFF), max_size=20), st.booleans())
def test_weights_are_widened_exactly(bits: list[int], raw: bool) -> None:
    values: Any = np.array(bits, np.uint16).tobytes() if raw else np.array(bits, np.uint16).view(BF16)
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [len(bits)], values, raw=raw)
    proto = model([], [], [], [tensor])
    made = widened.widened(proto.SerializeToString())
    assert made is not None
    found = onnx.load_from_string(made).graph.initializer[0]
    assert found.data_type == TensorProto.FLOAT
    assert [int(each) for each in numpy_helper.to_array(found).view(np.uint32)] == [each << 16 for each in bits]


def test_casts_between_operators_round(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "one"], ["sum"]),  # 1 + 2 ** -8, which bfloat16 has no room for
        helper.make_node("Identity", ["sum"], ["plain"]),
        helper.make_node("Cast", ["plain"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["narrow"], ["cast"], to=TensorProto.FLOAT),
    ]
    outputs = [info("wide", TensorProto.FLOAT, [1]), info("cast", TensorProto.FLOAT, [1])]
    proto = model(nodes, [info("x", TensorProto.BFLOAT16, [1])], outputs, [weight("one", [1])])
    found = run(tmp_path, proto, x=np.array([2**-8], BF16))
    assert found["wide"].tolist() == [1 + 2**-8], "the results of operators stay in float32"
    assert found["cast"].tolist() == [1], "what the file casts is rounded"


def test_types_in_attributes(tmp_path: Path) -> None:
    half = helper.make_tensor("value", TensorProto.BFLOAT16, [1], [0.5])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["halves"], value=half),
        helper.make_node("EyeLike", ["x"], ["ones"], dtype=TensorProto.BFLOAT16),
        helper.make_node("Constant", [], ["more"], value=half),
        helper.make_node("Sum", ["x", "halves", "ones", "more"], ["y"]),
    ]
    value = [2, 2]
    proto = model(nodes, [info("x", TensorProto.BFLOAT16, value)], [info("y", TensorProto.BFLOAT16, value)])
    found = run(tmp_path, proto, x=np.array([[1, 2], [3, 4]], BF16))["y"]
    assert found.astype(float).tolist() == [[3, 3], [4, 6]]


def test_branches_see_what_is_outside_of_them(tmp_path: Path) -> None:
    kind = TensorProto.BFLOAT16
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["x", "more"], [f"{name}_sum"])],
            name,
            [],
            [info(f"{name}_sum", kind, ["n"])],
            [weight("more", [1, 2])] if name == "then" else [weight("more", [3, 4])],
        )
        for name, op in (("then", "Add"), ("else", "Mul"))
    }
    for branch in branches.values():  # names are unique over all graphs
        branch.initializer[0].name = branch.node[0].input[1] = f"{branch.name}_more"
    nodes = [helper.make_node("If", ["which"], ["y"], **branches)]
    proto = model(nodes, [info("x", kind, ["n"]), info("which", TensorProto.BOOL, [])], [info("y", kind, ["n"])])
    x = np.array([10, 20], BF16)
    assert run(tmp_path, proto, x=x, which=np.array(True))["y"].astype(float).tolist() == [11, 22]
    assert run(tmp_path, proto, x=x, which=np.array(False))["y"].astype(float).tolist() == [30, 80]


def test_functions_whose_types_are_parameters(tmp_path: Path) -> None:
    narrow = helper.make_node("Cast", ["a"], ["narrow"])
    narrow.attribute.append(onnx.AttributeProto(name="to", ref_attr_name="kind", type=onnx.AttributeProto.INT))
    nodes = [narrow, helper.make_node("Add", ["narrow", "narrow"], ["b"])]
    function = helper.make_function("own", "twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 22)], ["kind"])
    call = helper.make_node("twice", ["x"], ["y"], domain="own", kind=TensorProto.BFLOAT16)
    inputs, outputs = [info("x", TensorProto.FLOAT, [1])], [info("y", TensorProto.BFLOAT16, [1])]
    proto = model([call], inputs, outputs, functions=[function], opsets=[helper.make_opsetid("own", 1)])
    found = run(tmp_path, proto, x=np.array([1 + 2**-8 + 2**-12], np.float32))["y"]
    assert found.astype(float).tolist() == [2 + 2**-6]


def test_odd_places_of_names(tmp_path: Path) -> None:
    """A weight that is an output, one that is listed as an input, an output that is used, names like those made."""
    kind = TensorProto.BFLOAT16
    nodes = [
        helper.make_node("Add", ["x", "listed"], ["wide_x"]),
        helper.make_node("Add", ["wide_x", "given"], ["wide__y"]),
        helper.make_node("Cast", ["wide__y"], ["wide_rounded_z"], to=kind),
        helper.make_node("Add", ["wide_rounded_z", "x"], ["z"]),
    ]
    proto = model(
        nodes,
        [info("x", kind, [1]), info("listed", kind, [1])],
        [info(name, kind, [1]) for name in ("wide_x", "given", "wide__y", "z")],
        [weight("listed", [2]), weight("given", [3])],
    )
    proto.graph.value_info.append(info("wide_x", kind, [1]))
    engine = load(tmp_path, proto)
    assert [spec.name for spec in engine.inputs] == ["x"], "what has a value need not be given"
    assert [spec.name for spec in engine.outputs] == ["wide_x", "given", "wide__y", "z"], "in the file's order"
    found = run(tmp_path, proto, x=np.array([1], BF16))
    assert {name: value.astype(float).tolist() for name, value in found.items()} == {
        "wide_x": [3],
        "given": [3],
        "wide__y": [6],
        "z": [7],
    }


def test_bytes_that_are_no_model() -> None:
    assert widened.widened(b"") is None
    with pytest.raises(Exception, match=r"(?i)pars|decod"):
        widened.widened(b"\xff" * 9)
