"""Reads the inputs and outputs of an ONNX file from its bytes: no ONNX library, no engine, no copy of the weights.

The wire format is that of Protocol Buffers (protobuf.dev/programming-guides/encoding); field numbers are onnx.proto's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FLOAT", "Signature", "Tensor", "read"]

FLOAT = 1  # TensorProto.DataType

# Field numbers, by message.
MODEL_GRAPH = 7
GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, TENSOR_LOCATION = 8, 14
EXTERNAL = 1
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_ELEMENT, TENSOR_SHAPE = 1, 2
SHAPE_DIMENSION = 1
DIMENSION_VALUE = 1

Value = int | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named input or output; a size that the graph leaves open is None, a shape not given at all is ()."""

    name: str
    element: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What goes in (weights left out) and what comes out; `external` where weights lie in other files."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    external: bool = False


def read(model: bytes) -> Signature:
    """Inputs and outputs of a serialised ModelProto.

    Raises:
        ValueError: these bytes are no ONNX model, or are cut off.
    """
    graph = last(memoryview(model), MODEL_GRAPH)
    if not isinstance(graph, memoryview):
        raise ValueError("not an ONNX model")
    inputs, outputs, weights, external = [], [], set(), False
    for number, value in fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == GRAPH_INITIALIZER:
            weights.add(text(last(value, TENSOR_NAME)))
            external |= last(value, TENSOR_LOCATION) == EXTERNAL
        elif number == GRAPH_INPUT:
            inputs.append(tensor(value))
        elif number == GRAPH_OUTPUT:
            outputs.append(tensor(value))
    # Before IR version 4 weights were listed among the inputs too.
    return Signature(tuple(each for each in inputs if each.name not in weights), tuple(outputs), external)


def tensor(info: memoryview) -> Tensor:
    """A ValueInfoProto."""
    kind = message(last(message(last(info, VALUE_TYPE)), TYPE_TENSOR))
    element = last(kind, TENSOR_ELEMENT)
    shape = message(last(kind, TENSOR_SHAPE))
    sizes = (last(message(each), DIMENSION_VALUE) for number, each in fields(shape) if number == SHAPE_DIMENSION)
    return Tensor(
        text(last(info, VALUE_NAME)),
        element if isinstance(element, int) else 0,
        tuple(size if isinstance(size, int) else None for size in sizes),
    )


def last(data: memoryview, wanted: int) -> Value | None:
    """The value of a field; the last one where it is repeated; None where it is not there."""
    found = None
    for number, value in fields(data):
        if number == wanted:
            found = value
    return found


def message(value: Value | None) -> memoryview:
    """A field that is a message; an empty one where it is not there."""
    return value if isinstance(value, memoryview) else memoryview(b"")


def text(value: Value | None) -> str:
    """A field that is a string."""
    return str(message(value), "utf-8")


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of each field: an int where it is a varint, else its bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            number, at = varint(data, at)
            yield key >> 3, number
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("not an ONNX model")
        if size > len(data) - at:
            raise ValueError("the file is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the file is cut off")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise ValueError("not an ONNX model")
