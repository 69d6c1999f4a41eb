"""Whether what a run of a graph does depends on the sizes of its inputs alone, whatever numbers are in them.

Then a run with other numbers takes as long as one that was measured, and nobody can send numbers that take longer. It
is said only of graphs in which every operator is known to be so: loops, branches and what makes a size out of a number
are not, and neither are operators of other domains, nor functions. Field numbers are onnx.proto's.
"""

from __future__ import annotations

from matchcut.server.models.graph_signature import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_NAME,
    fields,
    last,
    message,
    text,
)

__all__ = ["is_steady"]

# Field numbers, by message.
MODEL_FUNCTIONS = 25
GRAPH_NODE = 1
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_DOMAIN = 1, 2, 4, 7
DOMAINS = ("", "ai.onnx")

# Elements, rows and windows of inputs, each as often as the sizes say.
STEADY = frozenset(
    (
        *("Abs", "Add", "And", "AveragePool", "BatchNormalization", "Ceil", "Clip", "Concat", "Conv", "Cos", "Div"),
        *("Elu", "Equal", "Erf", "Exp", "Flatten", "Floor", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool"),
        *("Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu"),
        *("Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Not"),
        *("Or", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus"),
        *("Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Transpose", "Where", "Xor"),
    )
)
# The same where all but the first input are constants, since those say sizes.
STEADY_IF_TOLD = frozenset(
    (
        *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"),
        "Gather",  # as its indices may be out of range
    )
)


def is_steady(model: bytes) -> bool:
    """Whether it is so of a serialised ModelProto; False also where that cannot be read."""
    try:
        data = memoryview(model)
        if last(data, MODEL_FUNCTIONS) is not None:
            return False
        graph = message(last(data, MODEL_GRAPH))
        found = [(number, message(value)) for number, value in fields(graph)]
        told = {text(last(value, TENSOR_NAME)) for number, value in found if number == GRAPH_INITIALIZER}
        nodes = [value for number, value in found if number == GRAPH_NODE]
        return bool(nodes) and all(_is_steady(node, told) for node in nodes)
    except ValueError:
        return False


def _is_steady(node: memoryview, told: set[str]) -> bool:
    """The same of a node; the outputs of one that gives a constant are put into `told`."""
    inputs = [text(value) for number, value in fields(node) if number == NODE_INPUT]
    operator, domain = text(last(node, NODE_OPERATOR)), text(last(node, NODE_DOMAIN))
    if domain not in DOMAINS:
        return False
    if operator == "Constant":
        told.update(text(value) for number, value in fields(node) if number == NODE_OUTPUT)
        return True
    return operator in STEADY or (operator in STEADY_IF_TOLD and all(name in told or not name for name in inputs[1:]))
