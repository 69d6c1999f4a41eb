"""A GRU's step: the equations of torch.nn.GRU, and weights that make it an exponentially decaying mean."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from matchcut.server.errors import InvalidInput
from matchcut.server.models import gru
from matchcut.server.models.gru import Weights
from matchcut.server.records import Floats

Wide = NDArray[np.float64]


def random(inputs: int, hidden: int, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Floats:
        return (rng.standard_normal(shape) * 0.4).astype(np.float32)

    return Weights(some(3 * hidden, inputs), some(3 * hidden, hidden), some(3 * hidden), some(3 * hidden))


def reference(weights: Weights, x: Wide, h: Wide) -> Wide:
    """The equations of torch.nn.GRU's documentation, in float64."""

    def sigmoid(value: Wide) -> Wide:
        return 1 / (1 + np.exp(-value))

    size = weights.hidden
    gates: list[Wide] = []
    for source, matrix, bias in ((x, weights.w_ih, weights.b_ih), (h, weights.w_hh, weights.b_hh)):
        gates += np.split(source @ matrix.astype(np.float64).T + bias, [size, 2 * size], axis=1)
    ir, iz, fresh, hr, hz, back = gates
    r, z = sigmoid(ir + hr), sigmoid(iz + hz)
    n = np.tanh(fresh + r * back)
    return (1 - z) * n + z * h


def session(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def step(run: Any, x: Floats, h: Floats) -> Floats:
    found: Floats = run.run([gru.NEXT], {gru.INPUT: x, gru.STATE: h})[0]
    return found


def operator(weights: Weights, sequence: Floats, h: Floats) -> Floats:
    """ONNX's own GRU over a sequence (time, n, inputs), run by ONNX Runtime; its gates are in the order z, r, n."""

    def ordered(rows: Floats) -> Floats:
        r, z, n = np.split(rows, 3)
        return np.concatenate([z, r, n])

    constants = {
        "W": ordered(weights.w_ih)[None],
        "R": ordered(weights.w_hh)[None],
        "B": np.concatenate([ordered(weights.b_ih), ordered(weights.b_hh)])[None],
    }
    node = helper.make_node(
        "GRU", ["x", "W", "R", "B", "", "h"], ["", "last"], hidden_size=weights.hidden, linear_before_reset=1
    )
    graph = helper.make_graph(
        [node],
        "operator",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None]) for name in ("x", "h")],
        [helper.make_tensor_value_info("last", TensorProto.FLOAT, [None, None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: Floats = session(made.SerializeToString()).run(None, {"x": sequence, "h": h[None]})[0][0]
    return found


@pytest.mark.parametrize(("inputs", "hidden", "n"), [(1, 1, 1), (5, 3, 2), (64, 64, 7), (128, 32, 1)])
def test_a_step_is_that_of_the_equations(inputs: int, hidden: int, n: int) -> None:
    weights = random(inputs, hidden)
    rng = np.random.default_rng(1)
    x, h = rng.standard_normal((n, inputs)).astype("f"), rng.standard_normal((n, hidden)).astype("f")
    found = step(session(gru.write(weights)), x, h)
    assert found.shape == (n, hidden)
    np.testing.assert_allclose(found, reference(weights, x.astype(float), h.astype(float)), atol=2e-6)


def test_many_steps_are_the_operator_of_onnx() -> None:
    weights, rng = random(24, 16), np.random.default_rng(2)
    sequence = rng.standard_normal((50, 3, 24)).astype(np.float32)
    h = rng.standard_normal((3, 16)).astype(np.float32)
    run, state = session(gru.write(weights)), h
    for x in sequence:
        state = step(run, x, state)
    np.testing.assert_allclose(state, operator(weights, sequence, h), atol=5e-6)


@pytest.mark.parametrize("zeros", list(itertools.product([False, True], repeat=4)))
def test_products_that_add_nothing_are_left_out(zeros: Sequence[bool]) -> None:
    weights, size = random(6, 4), 4
    for zero, matrix, gate in zip(zeros, ("w_ih", "w_hh", "w_hh", "w_ih"), (1, 1, 2, 0), strict=True):
        if zero:
            getattr(weights, matrix)[gate * size : (gate + 1) * size] = 0
    model = gru.write(weights)
    kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert kinds.count("Gemm") == 6 - sum(zeros)
    rng = np.random.default_rng(3)
    x, h = rng.standard_normal((2, 6)).astype("f"), rng.standard_normal((2, 4)).astype("f")
    np.testing.assert_allclose(
        step(session(model), x, h), reference(weights, x.astype(float), h.astype(float)), atol=2e-6
    )


def test_the_file_is_small_plain_and_the_same_each_time() -> None:
    model = gru.write(gru.decaying_mean(64, 5))
    assert model == gru.write(gru.decaying_mean(64, 5))
    graph = onnx.load_from_string(model).graph
    assert [node.op_type for node in graph.node] == ["Sigmoid", "Gemm", "Tanh", "Sub", "Mul", "Add"]
    assert len(model) < 4 * 64 * 64 + 2000
    assert [tensor.name for tensor in graph.input] == [gru.INPUT, gru.STATE]
    assert [tensor.name for tensor in graph.output] == [gru.NEXT]
    for tensor in (*graph.input, *graph.output):
        first, second = tensor.type.tensor_type.shape.dim
        assert (first.dim_param, second.dim_value) == ("n", 64)
        assert tensor.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("half_life", [0.5, 1.0, 8.0, 1000.0])
def test_the_state_is_a_decaying_mean(half_life: float) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((200, 2, 48)).astype(np.float32)
    vectors[0, 0] = np.eye(48)[3]  # one component has it all: the tanh bends that the most
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    run = session(gru.write(gru.decaying_mean(48, half_life)))
    state, mean, cubes = np.zeros((2, 48), np.float32), np.zeros((2, 48)), np.zeros((2, 48))
    kept = 2 ** (-1 / half_life)
    rounding = 2e-6 + 1e-7 / (1 - kept)  # float32 knows z near 1, and so 1 - z, to 6e-8
    for x in vectors.astype(float):
        state = step(run, x.astype(np.float32), state)
        mean = kept * mean + (1 - kept) * x
        cubes = kept * cubes + (1 - kept) * np.abs(x) ** 3
        bound = gru.SCALE**2 / 3 * cubes
        assert (np.abs(state / gru.SCALE - mean) <= bound + rounding * np.linalg.norm(mean)).all()
        lengths = np.linalg.norm(state.astype(float), axis=1) * np.linalg.norm(mean, axis=1)
        turned = 1 - (state * mean).sum(1) / lengths
        assert (turned <= (np.linalg.norm(bound, axis=1) / np.linalg.norm(mean, axis=1)) ** 2 + 1e-9).all()


def test_the_error_is_as_small_as_is_said() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((50, 1280))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    errors = np.linalg.norm(np.tanh(gru.SCALE * vectors) / gru.SCALE - vectors, axis=1)
    assert errors.max() < 5e-6
    assert np.tanh(gru.SCALE) / gru.SCALE == pytest.approx(1, abs=0.00131)


def test_half_of_the_state_is_left_after_the_half_life() -> None:
    run = session(gru.write(gru.decaying_mean(4, 10)))
    start = state = np.array([[0.5, -1, 2, 0]], np.float32)
    for _ in range(10):
        state = step(run, np.zeros((1, 4), np.float32), state)
    np.testing.assert_allclose(state, start / 2, rtol=1e-5)


def test_the_streams_of_a_batch_do_not_meet() -> None:
    run = session(gru.write(gru.decaying_mean(8, 3)))
    rng = np.random.default_rng(5)
    x, h = rng.standard_normal((2, 8)).astype("f"), rng.standard_normal((2, 8)).astype("f")
    both = step(run, x, h)
    poisoned = step(run, x, np.stack([h[0], np.full(8, np.nan, np.float32)]))
    np.testing.assert_array_equal(both[0], poisoned[0])
    assert np.isnan(poisoned[1]).all()


@pytest.mark.parametrize("half_life", [0, -1, float("nan"), float("inf")])
def test_a_half_life_that_is_none(half_life: float) -> None:
    with pytest.raises(InvalidInput, match="half-life must be above 0"):
        gru.decaying_mean(4, half_life)
    with pytest.raises(InvalidInput, match="at least 1 dimension"):
        gru.decaying_mean(0, 1)


def test_weights_that_do_not_belong_together() -> None:
    good = random(4, 3)
    for odd in (
        Weights(good.w_ih[:-1], good.w_hh, good.b_ih, good.b_hh),
        Weights(good.w_ih, good.w_hh, good.b_ih[:-1], good.b_hh),
        Weights(good.w_ih, good.w_hh[:, :-1], good.b_ih, good.b_hh),
        Weights(good.w_ih[:, :0], good.w_hh, good.b_ih, good.b_hh),
    ):
        with pytest.raises(InvalidInput, match="do not have these shapes"):
            gru.write(odd)
    good.w_hh[2, 1] = np.inf
    with pytest.raises(InvalidInput, match="not finite"):
        gru.write(good)
