"""Requests for inference from their bytes, without a copy of the tensors in them.

protobuf copies what it parses, and copies it again when it is asked for: 0.2 ms for a frame of 600 KB, some of it on
the event loop. So packed tensors are cut out first and looked at where they arrived; protobuf gets the rest, and small
messages as they are, since there the copies cost less. The wire format is that of
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from matchcut.inference import grpc_service_pb2 as pb

__all__ = ["Head", "Received", "received"]

MOST = 64  # fields that are looked at one by one; a message of more is left to protobuf, which is faster then
SMALL = 8 << 10  # bytes of a message that is left to protobuf, too
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_HEADS, LONGEST_HEAD = 8, 1 << 10  # heads that are known of requests of one length, and their bytes
STUBBORN = 16  # requests of one length in a row with heads that are not known, after which another one is learnt
RAW = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | LENGTH


@dataclass(slots=True)
class Head:
    """All of a request but the one tensor that ends it; requests of a sequence often have the same, byte for byte.

    data: the bytes. message: what they say. understood: for who understands requests, to keep what came of it.
    """

    data: bytes
    message: pb.ModelInferRequest
    understood: Any = None


@dataclass(slots=True)
class Heads:
    """Those of requests of one length, the last one that came first; and how many came since that had none of them."""

    known: list[Head] = field(default_factory=list)
    misses: int = 0

    def find(self, data: bytes) -> Head | None:
        """The head of these bytes, if it is known."""
        for at, head in enumerate(self.known):
            if data.startswith(head.data):
                self.misses = 0
                if at:
                    self.known.insert(0, self.known.pop(at))
                return head
        self.misses += 1
        return None

    def add(self, head: Head) -> None:
        """One more, in place of the one that came least recently where there are too many."""
        del self.known[MOST_HEADS - 1 :]
        self.known.insert(0, head)
        self.misses = 0

    @property
    def learns(self) -> bool:
        """Whether another head is worth the effort: where heads never come again, hardly ever."""
        return len(self.known) < MOST_HEADS or self.misses >= STUBBORN


@dataclass(frozen=True, slots=True)
class Received:
    """A request of so many bytes. `message` is without its raw_input_contents; those are `raws`.

    Neither is to be changed. head: where it is of a kind that comes again and again, else None.
    """

    message: pb.ModelInferRequest
    raws: tuple[memoryview | bytes, ...]
    size: int
    head: Head | None = None


HEADS: dict[int, Heads] = {}  # by length of the request, up to MOST lengths; used on the event loop only


def received(data: bytes) -> Received:
    """The request that these bytes are.

    Raises:
        google.protobuf.message.DecodeError: they are none.
    """
    if len(data) <= SMALL:
        return _small(data)
    parts = _cut(data)
    if parts is not None:
        rest, raws = parts
        message = pb.ModelInferRequest.FromString(b"".join(rest))
        if not message.raw_input_contents:
            return Received(message, tuple(raws), len(data))
    return _parsed(data)


def _parsed(data: bytes) -> Received:
    message = pb.ModelInferRequest.FromString(data)
    found = tuple(message.raw_input_contents)
    del message.raw_input_contents[:]
    return Received(message, found, len(data))


def _small(data: bytes) -> Received:
    """A small request, of which the head may be known."""
    heads = HEADS.get(len(data))
    if heads is None:
        if len(HEADS) == MOST:
            HEADS.clear()
        heads = HEADS[len(data)] = Heads()
    head = heads.find(data)
    if head is not None:
        return Received(head.message, (memoryview(data)[len(head.data) :],), len(data), head)
    request = _parsed(data)
    if len(request.raws) != 1 or not heads.learns:
        return request
    parts = _cut(data)
    if parts is None or len(parts[1]) != 1 or parts[0][-1]:  # it is not one, or something is behind it
        return request
    length = len(data) - len(parts[1][0])
    if length > LONGEST_HEAD:
        return request
    head = Head(data[:length], request.message)
    heads.add(head)
    return Received(request.message, request.raws, len(data), head)


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
