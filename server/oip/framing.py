"""Requests for inference from their bytes, without a copy of the tensors in them.

protobuf copies what it parses, and copies it again when it is asked for: 0.2 ms for a frame of 600 KB, some of it on
the event loop. So packed tensors are cut out first and looked at where they arrived; protobuf gets the rest. The wire
format is that of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from dataclasses import dataclass

from matchcut.inference import grpc_service_pb2 as pb

__all__ = ["Received", "received"]

MOST = 64  # fields that are looked at one by one; a message of more is left to protobuf, which is faster then
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | LENGTH


@dataclass(frozen=True, slots=True)
class Received:
    """A request. `message` is without its raw_input_contents; those are `raws`."""

    message: pb.ModelInferRequest
    raws: tuple[memoryview | bytes, ...]


def received(data: bytes) -> Received:
    """The request that these bytes are.

    Raises:
        google.protobuf.message.DecodeError: they are none.
    """
    parts = _cut(data)
    if parts is not None:
        rest, raws = parts
        message = pb.ModelInferRequest.FromString(b"".join(rest))
        if not message.raw_input_contents:
            return Received(message, tuple(raws))
    message = pb.ModelInferRequest.FromString(data)
    found = tuple(message.raw_input_contents)
    del message.raw_input_contents[:]
    return Received(message, found)


def _cut(data: bytes) -> tuple[list[memoryview], list[memoryview]] | None:
    """What is no packed tensor, and the packed tensors; None where protobuf had better look at the whole."""
    view = memoryview(data)
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    at = kept = 0
    for _ in range(MOST):
        if at == len(data):
            rest.append(view[kept:])
            return rest, raws
        begin = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == LENGTH:
            length, at = _varint(data, at)
            end = at + length
        elif kind == VARINT:
            end = _varint(data, at)[1]
        elif kind in (FIXED32, FIXED64):
            end = at + (4 if kind == FIXED32 else 8)
        else:
            return None
        if end > len(data):
            return None
        if data[begin] == RAW:
            rest.append(view[kept:begin])
            raws.append(view[at:end])
            kept = end
        at = end
    return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that stands there, and where it ends: behind the data where it is cut off or too long."""
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    return 0, len(data) + 1
