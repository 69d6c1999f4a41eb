"""A tensor's elements, as they travel and as NumPy has them.

Raw elements are packed row by row, little-endian; those of BYTES are four bytes of length and then so many each. What
arrives is looked at in place: the arrays are views, which cannot be written to.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import numpy as np

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput
from matchcut.server.tensors import DTYPES, Tensor

__all__ = ["from_contents", "from_raw", "to_raw"]

Raw = bytes | bytearray | memoryview
LENGTH = struct.Struct("<I")

# In which field of InferTensorContents the elements of each type come.
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
ALL = tuple(dict.fromkeys(FIELDS.values()))


def from_raw(raw: Raw, dtype: str, shape: tuple[int, ...], what: str) -> Tensor:
    """The tensor of that type and shape whose raw elements these are.

    Args:
        raw: kept alive by the array, which is a view of it unless the type is BOOL or BYTES, or it begins at an address
            from which numbers of the type cannot be read at once.
        shape: no size is negative.
        what: "input 'x' for model 'm'", for the message.

    Raises:
        InvalidInput: there are more or fewer bytes than type and shape say, or a shape without elements is too large.
    """
    count = math.prod(shape)  # Python's, which does not overflow
    if dtype == "BYTES":
        return _array(_split(raw, count, what), shape, what)
    size = DTYPES[dtype].itemsize
    if len(raw) != count * size:
        raise InvalidInput(f"input byte size mismatch for {what}. Expected {count * size}, got {len(raw)}")
    if dtype == "BOOL":  # a byte that is neither 0 nor 1 must not become a bool as it is
        return _shaped(np.not_equal(np.frombuffer(raw, np.uint8), 0), shape, what)
    return _shaped(np.require(np.frombuffer(raw, DTYPES[dtype]), requirements="A"), shape, what)


def from_contents(contents: pb.InferTensorContents, dtype: str, shape: tuple[int, ...], what: str) -> Tensor:
    """The tensor of that type and shape whose elements came one by one.

    Raises:
        InvalidInput: they came in the field of another type, or there are more or fewer than the shape says, or one
            is out of the type's range, or a shape without elements is too large.
    """
    field = FIELDS.get(dtype)
    for other in ALL:
        if other != field and len(getattr(contents, other)):
            expected = f"expected {field}" if field else "which can only come in raw_input_contents"
            raise InvalidInput(f"unexpected explicit tensor data in {other} for {what} of type '{dtype}', {expected}")
    values = getattr(contents, field) if field else ()
    count = math.prod(shape)
    if len(values) != count:
        raise InvalidInput(f"unexpected number of elements {len(values)} for {what}, expecting {count}")
    if dtype == "BYTES":
        return _array(list(values), shape, what)
    try:
        return _shaped(np.fromiter(values, DTYPES[dtype], count), shape, what)
    except OverflowError as error:
        raise InvalidInput(f"an element of {what} is out of the range of {dtype}") from error


def to_raw(tensor: Tensor, dtype: str) -> bytes:
    """A tensor's raw elements."""
    if dtype != "BYTES":
        return np.ascontiguousarray(tensor, DTYPES[dtype]).tobytes()
    return b"".join(_prefixed(tensor.reshape(-1)))


def _prefixed(elements: Iterable[bytes]) -> Iterable[bytes]:
    for element in elements:
        yield LENGTH.pack(len(element))
        yield element


def _split(raw: Raw, count: int, what: str) -> list[bytes]:
    """Exactly `count` elements of BYTES."""
    if count * LENGTH.size > len(raw):  # before anything is made of a claim that cannot be true
        raise InvalidInput(
            f"expected {count} string elements for {what}, got {len(raw)} bytes, in which there is no room for so many"
        )
    view, elements, at = memoryview(raw), list[bytes](), 0
    while at < len(raw):
        if len(elements) == count:
            raise InvalidInput(f"unexpected number of string elements {count + 1} for {what}, expecting {count}")
        if at + LENGTH.size > len(raw):
            raise InvalidInput(
                f"incomplete string length indicator for {what}, expecting {LENGTH.size} bytes but only "
                f"{len(raw) - at} bytes available"
            )
        (length,) = LENGTH.unpack_from(raw, at)
        at += LENGTH.size
        if length > len(raw) - at:
            raise InvalidInput(
                f"incomplete string data for {what}, expecting string of length {length} but only {len(raw) - at} "
                "bytes available"
            )
        elements.append(bytes(view[at : at + length]))
        at += length
    if len(elements) != count:
        raise InvalidInput(f"expected {count} string elements for {what}, got {len(elements)}")
    return elements


def _shaped(elements: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """The elements in that shape; NumPy has none of more than 2**63 bytes, also where a size of 0 leaves nothing."""
    try:
        return elements.reshape(shape)
    except ValueError as error:
        sizes = ",".join(map(str, shape))
        raise InvalidInput(f"the shape [{sizes}] of {what} is too large, though a size of it is 0") from error


def _array(elements: list[bytes], shape: tuple[int, ...], what: str) -> Tensor:
    made = np.empty(len(elements), np.object_)
    made[:] = elements  # given to np.array they would become one of fixed width, which loses zeros at the end
    return _shaped(made, shape, what)
