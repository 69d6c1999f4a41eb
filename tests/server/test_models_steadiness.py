"""Of which graphs it is known that numbers cannot make a run longer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from matchcut.server.models import gru
from matchcut.server.models.steadiness import is_steady
from support.onnx_models import Spec, model, node, running_sum, scale

ROW: Spec = ("FP32", ("n", 4))
ONE: Spec = ("INT64", (1,))


def steady(nodes: list[Any], weights: dict[str, Any] | None = None, **inputs: Spec) -> bool:
    return is_steady(model(nodes, {"x": ROW, **inputs}, {"y": ROW}, weights).SerializeToString())


def loop() -> Any:
    """y is x, added to itself as often as a number says that the caller sends."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "x"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    return node("Loop", ["times", "", "x"], ["y"], body=body)


def test_products_and_the_like_are() -> None:
    assert is_steady(scale().SerializeToString())
    assert is_steady(running_sum().SerializeToString())
    assert is_steady(gru.write(gru.decaying_mean(8, 2.0)))
    two = [
        node("Relu", ["x"], ["r"]),
        node("Split", ["r"], ["a", "b"], axis=1),
        node("Concat", ["b", "a"], ["y"], axis=1),
    ]
    assert steady(two)


def test_what_runs_as_often_as_a_number_says_is_not() -> None:
    assert not steady([loop()], times=ONE)
    branch = helper.make_graph([node("Neg", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)])
    kind: Spec = ("BOOL", (1,))
    assert not steady([node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)], which=kind)


@pytest.mark.parametrize("operator", ["NonZero", "Unique", "Compress", "TopK", "Resize", "Unheard"])
def test_what_makes_sizes_of_numbers_or_is_not_known_is_not(operator: str) -> None:
    assert not steady([node(operator, ["x"], ["y"])])


@pytest.mark.parametrize("operator", ["Tile", "Expand", "Range", "ConstantOfShape", "OneHot", "Pad", "CumSum"])
def test_nor_is_it_where_its_sizes_are_constants(operator: str) -> None:
    """They are not on the list, which is short on purpose."""
    assert not steady([node(operator, ["x", "s"], ["y"])], {"s": np.ones(2, np.int64)})


@pytest.mark.parametrize("operator", ["Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "ReduceSum", "Gather"])
def test_sizes_must_be_constants(operator: str) -> None:
    made = [node(operator, ["x", "s"], ["y"])]
    assert steady(made, {"s": np.array([1])})
    assert not steady(made, s=ONE)
    constant = helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [1], [1]))
    assert steady([constant, *made])
    computed = [node("Mul", ["t", "t"], ["s"]), *made]
    assert not steady(computed, {"t": np.array([1])}), "what is computed might be computed of anything"
    assert not steady([node(operator, ["x", "s", "u"], ["y"])], {"s": np.array([1])}, u=ONE)


def test_operators_of_others_and_functions_are_not() -> None:
    assert not steady([node("Add", ["x", "x"], ["y"], domain="com.microsoft")])
    assert steady([node("Add", ["x", "x"], ["y"], domain="ai.onnx")])
    made = scale()
    made.functions.append(
        helper.make_function("here", "F", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    )
    assert not is_steady(made.SerializeToString())


@given(st.binary(max_size=200))
def test_no_bytes_are_believed(data: bytes) -> None:
    assert not is_steady(data) or b"\x3a" in data, "a graph is field 7"


@given(st.data())
def test_damage_raises_nothing(data: st.DataObject) -> None:
    whole = bytearray(running_sum().SerializeToString())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert is_steady(bytes(whole[: data.draw(st.integers(0, len(whole)))])) in (True, False)
