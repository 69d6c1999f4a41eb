"""Any ONNX file that is to be served: its bytes, and what is refused before an engine sees them.

Field numbers are onnx.proto's (github.com/onnx/onnx).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph_signature
from matchcut.server.models.graph_signature import fields, last, message, text

__all__ = ["Graph", "read"]

DEEPEST = 16  # graphs inside of graphs; people write three at most

# Field numbers, by message.
MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
FUNCTION_NODE = 7
NODE_ATTRIBUTE = 5
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX file as it was when it was read; nothing is loaded yet.

    shapeless: inputs and outputs of which the file does not say how many sizes they have.
    """

    path: Path
    content: bytes
    shapeless: frozenset[str] = frozenset()


def read(path: Path) -> Graph:
    """Reads an ONNX file.

    Raises:
        EngineFailed: it cannot be read, is no ONNX, or keeps weights in other files. Those are not followed: where
            they lie is the file's word alone, and they could be replaced while the model is served.
    """

    def wrong(what: str) -> NoReturn:
        raise EngineFailed(f"{path.name} {what}", reason="MODEL_INVALID")

    try:
        content = path.read_bytes()
    except OSError as error:
        wrong(f"cannot be read: {error.strerror}")
    try:
        signature = graph_signature.read(content)
        model = memoryview(content)
        graph = message(last(model, MODEL_GRAPH))
        functions = (message(value) for number, value in fields(model) if number == MODEL_FUNCTIONS)
        elsewhere = signature.external or in_graph(graph) or any(in_nodes(each, FUNCTION_NODE, 0) for each in functions)
        shapeless = frozenset(without_shape(graph))
    except ValueError as error:
        wrong(f"cannot be read as ONNX: {error}")
    if elsewhere:
        wrong("keeps weights in another file: save the model as one file")
    if not signature.outputs:
        wrong("has no outputs: it is no model that can be served")
    return Graph(path, content, shapeless)


def without_shape(graph: memoryview) -> list[str]:
    """The names of inputs and outputs that give no shape; a scalar gives one, without sizes."""
    found = []
    for number, value in fields(graph):
        if number in (GRAPH_INPUT, GRAPH_OUTPUT):
            info = message(value)
            kind = message(last(message(last(info, graph_signature.VALUE_TYPE)), graph_signature.TYPE_TENSOR))
            if last(kind, graph_signature.TENSOR_SHAPE) is None:
                found.append(text(last(info, graph_signature.VALUE_NAME)))
    return found


def in_graph(graph: memoryview, depth: int = 0) -> bool:
    """Whether a graph, or one inside of it, has a tensor whose values lie in another file."""
    if depth > DEEPEST:
        raise ValueError(f"its graphs are nested more than {DEEPEST} deep")
    return any(external(value) for number, value in fields(graph) if number == GRAPH_INITIALIZER) or in_nodes(
        graph, GRAPH_NODE, depth
    )


def in_nodes(parent: memoryview, node: int, depth: int) -> bool:
    """The same of the nodes of a graph or function, which are its field `node`."""
    for number, value in fields(parent):
        if number != node:
            continue
        for kind, attribute in fields(message(value)):
            if kind == NODE_ATTRIBUTE and in_attribute(message(attribute), depth):
                return True
    return False


def in_attribute(attribute: memoryview, depth: int) -> bool:
    """The same of a node's attribute, which may be a tensor, a graph, or several of them."""
    for number, value in fields(attribute):
        if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS) and external(value):
            return True
        if number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS) and in_graph(message(value), depth + 1):
            return True
    return False


def external(tensor: graph_signature.Value) -> bool:
    """Whether a TensorProto's values lie in another file."""
    return last(message(tensor), graph_signature.TENSOR_LOCATION) == graph_signature.EXTERNAL
