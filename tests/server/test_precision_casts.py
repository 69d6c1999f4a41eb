"""Half precision in a graph: what is computed in it, where float32 begins and ends, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from matchcut.kernels.preprocess import bfloat16_bits
from matchcut.server.errors import EngineFailed
from matchcut.server.precision import casts, network
from matchcut.server.precision.casts import Half
from matchcut.server.records import Floats

HALVES = pytest.mark.parametrize("half", ["fp16", "bf16"])
KINDS: dict[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
RNG = np.random.default_rng(0)


def weights(*shape: int, scale: float = 0.3) -> Floats:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def model(nodes: list[Any], constants: dict[str, Any], outputs: dict[str, list[Any]], opset: int = 17) -> Any:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


@pytest.fixture
def net(tmp_path: Path) -> Any:
    """Two convolutions with a residual, a pool, a vector, and a classifier after it."""
    return saved(
        tmp_path,
        model(
            [
                helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
                helper.make_node("Clip", ["c1", "zero", "six"], ["a1"], name="clip"),
                helper.make_node("Conv", ["a1", "w2"], ["c2"], name="second", pads=[1, 1, 1, 1]),
                helper.make_node("Add", ["a1", "c2"], ["sum"], name="residual"),
                helper.make_node("GlobalAveragePool", ["sum"], ["pool"], name="pool"),
                helper.make_node("Flatten", ["pool"], ["embedding"], name="flat"),
                helper.make_node("Gemm", ["embedding", "w3"], ["logits"], name="classes"),
            ],
            {
                "w1": weights(4, 3, 3, 3),
                "b1": weights(4),
                "w2": weights(4, 4, 3, 3),
                "w3": weights(4, 5),
                "zero": np.float32(0),
                "six": np.float32(6),
            },
            {"embedding": ["n", 4], "logits": ["n", 5]},
        ),
    )


def saved(folder: Path, made: Any) -> Any:
    """As the tool reads it."""
    onnx.save(made, folder / "net.onnx")
    return network.read(folder / "net.onnx")


@pytest.fixture
def batch() -> Floats:
    return np.random.default_rng(1).standard_normal((5, 3, 8, 8)).astype(np.float32)


def cosine(a: Floats, b: Floats) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def inputs_of(made: Any, name: str) -> list[int]:
    """The types that a node takes in."""
    kinds = network.elements(made)
    return [kinds[each] for node in made.graph.node if node.name == name for each in node.input]


def test_products_are_those_on_the_way_to_the_vector(net: Any) -> None:
    assert network.products(net) == ["first", "second"]


@HALVES
def test_everything_is_lowered_but_inputs_and_outputs(net: Any, batch: Floats, half: Half) -> None:
    before = net.SerializeToString()
    made = casts.lowered(net, half)
    network.serialised(made)
    kind = KINDS[half]
    for name in ("first", "clip", "second", "residual", "pool", "flat", "classes"):
        assert set(inputs_of(made, name)) == {kind}
    assert {output.type.tensor_type.elem_type for output in (*made.graph.input, *made.graph.output)} == {
        TensorProto.FLOAT
    }
    assert {weight.data_type for weight in made.graph.initializer} == {kind}, "no weight is there twice"
    assert [node.op_type for node in made.graph.node].count("Cast") == 3, "one at the start, one for each output"
    exact, found = network.run(net, batch), network.run(casts.emulated(made), batch)
    assert not np.array_equal(exact, found)
    assert cosine(exact, found) > (0.99999 if half == "fp16" else 0.999)
    assert net.SerializeToString() == before, "the model that was given has changed"
    assert casts.lowered(net, half).SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)


def test_the_operators_are_raised_only_where_they_have_to_be(net: Any) -> None:
    assert network.opset(casts.lowered(net, "fp16")) == 17
    assert network.opset(casts.lowered(net, "bf16")) == casts.BFLOAT16_OPSET == 22


def test_onnx_runtime_runs_float16_as_emulated(net: Any, batch: Floats) -> None:
    made = casts.lowered(net, "fp16")
    np.testing.assert_allclose(network.run(made, batch), network.run(casts.emulated(made), batch), rtol=2e-3, atol=1e-3)


@HALVES
def test_the_first_layers_may_stay(net: Any, batch: Floats, half: Half) -> None:
    made = casts.lowered(net, half, keep=["first"])
    network.serialised(made)
    assert set(inputs_of(made, "first")) == set(inputs_of(made, "clip")) == {TensorProto.FLOAT}
    assert set(inputs_of(made, "second")) == set(inputs_of(made, "residual")) == {KINDS[half]}
    assert [node.op_type for node in made.graph.node].count("Cast") == 3, "both readers of a tensor share its cast"
    exact = network.run(net, batch)
    partly, fully = (network.run(casts.emulated(each), batch) for each in (made, casts.lowered(net, half)))
    assert not np.array_equal(partly, exact)
    assert not np.array_equal(partly, fully)
    everything = casts.lowered(net, half, keep=["first", "second"])
    assert set(inputs_of(everything, "second")) == {TensorProto.FLOAT}
    np.testing.assert_array_equal(network.run(casts.emulated(everything), batch), exact)


def test_emulation_rounds_as_bfloat16_does(tmp_path: Path, batch: Floats) -> None:
    def rounded(values: Floats) -> Floats:
        return (bfloat16_bits(values.astype(np.float32)).astype(np.uint32) << 16).view(np.float32)

    gain = weights(4, 3, 1, 1)
    net = saved(
        tmp_path,
        model(
            [
                helper.make_node("Conv", ["image", "w"], ["c"], name="only"),
                helper.make_node("Relu", ["c"], ["embedding"], name="relu"),
            ],
            {"w": gain},
            {"embedding": ["n", 4, 8, 8]},
        ),
    )
    found = network.run(casts.emulated(casts.lowered(net, "bf16")), batch)
    product = np.einsum("oc,nchw->nohw", rounded(gain[:, :, 0, 0]), rounded(batch), dtype=np.float32)
    # Sums in another order may round to the neighbour.
    np.testing.assert_allclose(found, np.maximum(rounded(product), 0), rtol=2**-7)
    assert np.mean(found == np.maximum(rounded(product), 0)) > 0.99
    np.testing.assert_array_equal(found, rounded(found))


@HALVES
def test_what_onnx_wants_in_float32_stays_so(tmp_path: Path, batch: Floats, half: Half) -> None:
    net = saved(
        tmp_path,
        model(
            [
                helper.make_node("Conv", ["image", "w"], ["c"], name="only"),
                helper.make_node("Resize", ["c", "", "scales"], ["large"], name="resize", mode="nearest"),
                helper.make_node("Shape", ["large"], ["size"], name="size"),
                helper.make_node("Constant", [], ["one"], name="one", value_float=1.0),
                helper.make_node("Add", ["large", "one"], ["more"], name="add"),
                helper.make_node("Reshape", ["more", "size"], ["same"], name="same"),
                helper.make_node("ReduceMean", ["same"], ["embedding"], name="mean", axes=[2, 3], keepdims=0),
            ],
            {"w": weights(4, 3, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)},
            {"embedding": ["n", 4]},
        ),
    )
    made = casts.lowered(net, half)
    network.serialised(made)
    kinds = network.elements(made)
    resize = next(node for node in made.graph.node if node.name == "resize")
    assert [kinds.get(name) for name in resize.input] == [KINDS[half], None, TensorProto.FLOAT]
    assert inputs_of(made, "same") == [KINDS[half], TensorProto.INT64]
    assert set(inputs_of(made, "add")) == {KINDS[half]}
    assert cosine(network.run(net, batch), network.run(casts.emulated(made), batch)) > 0.999


def test_weights_too_large_for_float16(tmp_path: Path, batch: Floats) -> None:
    large = weights(4, 3, 1, 1)
    large[0, 0] = 1e5
    net = saved(
        tmp_path,
        model(
            [
                helper.make_node("Conv", ["image", "huge"], ["c"], name="only"),
                helper.make_node("ReduceMean", ["c"], ["embedding"], axes=[2, 3], keepdims=0),
            ],
            {"huge": large},
            {"embedding": ["n", 4]},
        ),
    )
    with pytest.raises(EngineFailed, match=r"the weight 'huge' holds numbers beyond 65504, .*; take bf16"):
        casts.lowered(net, "fp16")
    made = casts.lowered(net, "bf16")
    assert cosine(network.run(net, batch), network.run(casts.emulated(made), batch)) > 0.999


def test_nodes_get_names_of_their_own(tmp_path: Path) -> None:
    chain = [helper.make_node("Relu", [f"t{at}" if at else "image"], [f"t{at + 1}"]) for at in range(3)]
    chain[1].name = chain[2].name = "Relu_0"
    net = saved(tmp_path, model(chain, {}, {"t3": ["n", 3, 8, 8]}))
    assert len({node.name for node in net.graph.node} - {""}) == 3


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_types_are_refused(tmp_path: Path, kind: int) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["odd"], to=kind),
        helper.make_node("Cast", ["odd"], ["embedding"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(EngineFailed, match="'odd' is not float32") as caught:
        saved(tmp_path, model(nodes, {}, {"embedding": ["n", 3, 8, 8]}))
    assert caught.value.reason == "ENCODER_INVALID"


def test_control_flow_is_refused(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3, 8, 8])],
    )
    node = helper.make_node("If", ["yes"], ["embedding"], then_branch=branch, else_branch=branch)
    with pytest.raises(EngineFailed, match="control flow"):
        saved(tmp_path, model([node], {"yes": np.array(True)}, {"embedding": ["n", 3, 8, 8]}))


@pytest.mark.parametrize("data", [b"", b"not ONNX at all", b"\x08\x08" * 50])
def test_damaged_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineFailed, match=r"net\.onnx: it is not valid ONNX"):
        network.read(path)
    with pytest.raises(EngineFailed, match="not valid ONNX"):
        network.read(tmp_path / "none.onnx")


def test_what_cannot_be_run_is_an_error(net: Any, batch: Floats) -> None:
    with pytest.raises(EngineFailed, match="ONNX Runtime cannot run the graph"):
        network.run(net, batch[:, :2])
