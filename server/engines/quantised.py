"""Whether an ONNX file has what it multiplies rounded to int8, which no engine is told but by the file."""

from __future__ import annotations

from matchcut.server.models.graph_signature import MODEL_GRAPH, fields, last, message, text

__all__ = ["is_quantised"]

# Field numbers, by message, of onnx.proto.
GRAPH_NODE = 1
NODE_OPERATOR = 4

# Each rounds activations, or multiplies what was rounded. DequantizeLinear alone is not among them: where only weights
# are kept in int8, the products are of float32.
ROUNDS = frozenset(
    ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
)


def is_quantised(model: bytes) -> bool:
    """Whether it is so of a serialised ModelProto; False also where that cannot be read."""
    try:
        graph = message(last(memoryview(model), MODEL_GRAPH))
        nodes = (message(value) for number, value in fields(graph) if number == GRAPH_NODE)
        return any(text(last(node, NODE_OPERATOR)) in ROUNDS for node in nodes)
    except ValueError:
        return False
