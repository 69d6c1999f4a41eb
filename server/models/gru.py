"""The step of a GRU as an ONNX graph of plain products, sigmoids and a tanh; the state is the caller's.

The equations are those of torch.nn.GRU (PyTorch's documentation, which follows Cho et al., arXiv:1406.1078, with the
reset gate behind the product, as cuDNN has it):

    r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    h' = (1 - z) * n + z * h

so z is the share of the old state that stays. ONNX has an operator GRU, which engines run as a loop over time; one step
of a live stream needs no loop, and as plain products it is computed in whatever precision the engine has.

Until there is a trained one, `decaying_mean` sets the weights by formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput

__all__ = ["INPUT", "NEXT", "SCALE", "STATE", "Weights", "decaying_mean", "write"]

INPUT, STATE, NEXT = "x", "h", "h_next"

# As in efficientnet_lite.py: every engine since 2022 reads it.
OPSET = 17
IR_VERSION = 8

# What decaying_mean multiplies x by before the tanh, a power of two and so without a rounding error of its own.
SCALE = 1 / 16

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a GRU of one layer, laid out as torch.nn.GRU has them: the gates r, z, n one below the other.

    w_ih: (3 * hidden, inputs). w_hh: (3 * hidden, hidden). b_ih, b_hh: (3 * hidden,). All float32.
    """

    w_ih: Matrix
    w_hh: Matrix
    b_ih: Matrix
    b_hh: Matrix

    @property
    def inputs(self) -> int:
        """The length of x."""
        return int(self.w_ih.shape[1])

    @property
    def hidden(self) -> int:
        """The length of h."""
        return int(self.w_hh.shape[1])

    def check(self) -> None:
        """Raises InvalidInput where the shapes do not belong together, or a number is not finite."""
        rows = 3 * self.hidden
        shapes = (self.w_ih.shape, self.w_hh.shape, self.b_ih.shape, self.b_hh.shape)
        if shapes != ((rows, self.inputs), (rows, self.hidden), (rows,), (rows,)) or not rows * self.inputs:
            raise InvalidInput(
                f"the weights of a GRU do not have these shapes: {shapes}; give them as torch.nn.GRU has"
            )
        if not all(np.isfinite(each).all() for each in (self.w_ih, self.w_hh, self.b_ih, self.b_hh)):
            raise InvalidInput("a weight of the GRU is not finite; train it anew")


def decaying_mean(dimensions: int, half_life: float) -> Weights:
    """Weights with which the state is an exponentially decaying mean of what came in.

    The update gate has no weights but a bias, log(z / (1 - z)), and so is z = 2 ** (-1 / half_life) whatever comes in:
    after `half_life` steps half of the state is of before. W_in is SCALE times the identity, all else is zero:

        h' = (1 - z) * tanh(SCALE * x) + z * h

    tanh(u) is off from u by at most u ** 3 / 3. So the state is SCALE times the decaying mean of x and an error, which
    in each component is at most SCALE ** 2 / 3 of the decaying mean of |x| ** 3 there. For vectors of unit length that
    error is no longer than 0.00131, if all of the length is in one component, and about 4e-6 where it is spread over
    1280 of them; divided by the length of the mean it is how far the direction may turn. The scale, and that the state
    is shorter by 1 - z ** steps at the start, do not matter to a ranking, which compares directions.

    Args:
        dimensions: of x and of h, at least 1.
        half_life: in steps, above 0.

    Raises:
        InvalidInput: one of them is out of range.
    """
    if dimensions < 1:
        raise InvalidInput(f"a GRU has at least 1 dimension, not {dimensions}", field="dimensions")
    if not (math.isfinite(half_life) and half_life > 0):
        raise InvalidInput(f"the half-life must be above 0 steps, not {half_life}", field="half_life")
    # log(z / (1 - z)) without the cancellation that 1 - z suffers from near 1.
    kept = -math.log(2) / half_life
    bias = np.zeros(3 * dimensions, np.float32)
    bias[dimensions : 2 * dimensions] = kept - math.log(-math.expm1(kept))
    w_ih = np.zeros((3 * dimensions, dimensions), np.float32)
    w_ih[2 * dimensions :] = SCALE * np.eye(dimensions, dtype=np.float32)
    none = np.zeros((3 * dimensions, dimensions), np.float32)
    return Weights(w_ih, none, bias, np.zeros(3 * dimensions, np.float32))


def write(weights: Weights) -> bytes:
    """The ONNX model of one step, the same bytes for the same weights.

    Inputs x (n, inputs) and h (n, hidden), output h_next (n, hidden), all float32; n, the number of streams that step
    together, is open. Products with a matrix of zeros are left out, as they add nothing: of a decaying mean one of six
    stays.

    Raises:
        InvalidInput: the weights do not belong together.
        ImportError: onnx is not installed.
    """
    from onnx import TensorProto, checker, helper

    weights.check()
    graph = Step(weights)
    z = graph.node("Sigmoid", [graph.summed("z", 1)], "z")
    n = graph.node("Tanh", [graph.candidate()], "n")
    # h' as n + z * (h - n), which is the same with one product less.
    moved = graph.node("Mul", [z, graph.node("Sub", [STATE, n], "difference")], "kept")
    graph.node("Add", [n, moved], NEXT)

    def tensor(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])

    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "gru-step",
            [tensor(INPUT, weights.inputs), tensor(STATE, weights.hidden)],
            [tensor(NEXT, weights.hidden)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="matchcut",
    )
    checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


@dataclass(slots=True)
class Step:
    """The graph under construction."""

    weights: Weights
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Matrix) -> str:
        """Adds a weight."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def rows(self, matrix: Matrix, gate: int) -> Matrix:
        """The part of a weight that belongs to a gate, by its number."""
        return matrix[gate * self.weights.hidden : (gate + 1) * self.weights.hidden]

    def product(self, name: str, source: str, matrix: Matrix, bias: Matrix) -> str:
        """source times matrix, transposed, plus bias; where the matrix is zero the bias alone."""
        if not matrix.any():
            return self.constant(f"b_{name}", bias)
        inputs = [source, self.constant(f"W_{name}", matrix)]
        inputs += [self.constant(f"b_{name}", bias)] if bias.any() else []
        return self.node("Gemm", inputs, f"product_{name}", transB=1)

    def summed(self, gate: str, number: int) -> str:
        """What goes into a gate's sigmoid."""
        w = self.weights
        both = self.rows(w.b_ih, number) + self.rows(w.b_hh, number)
        into, back = self.rows(w.w_ih, number), self.rows(w.w_hh, number)
        if not back.any():
            return self.product(f"i{gate}", INPUT, into, both)
        if not into.any():
            return self.product(f"h{gate}", STATE, back, both)
        parts = [
            self.product(f"i{gate}", INPUT, into, both),
            self.product(f"h{gate}", STATE, back, np.zeros_like(both)),
        ]
        return self.node("Add", parts, f"sum_{gate}")

    def candidate(self) -> str:
        """What goes into the tanh."""
        w = self.weights
        fresh = self.product("in", INPUT, self.rows(w.w_ih, 2), self.rows(w.b_ih, 2))
        back, bias = self.rows(w.w_hh, 2), self.rows(w.b_hh, 2)
        if not back.any() and not bias.any():
            return fresh
        r = self.node("Sigmoid", [self.summed("r", 0)], "r")
        gated = self.node("Mul", [r, self.product("hn", STATE, back, bias)], "gated")
        return self.node("Add", [fresh, gated], "sum_n")
