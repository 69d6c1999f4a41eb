"""Requests cut from their bytes are what protobuf makes of the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.oip.elements import from_raw
from matchcut.server.oip.framing import MOST, RAW, received

RAWS = st.lists(st.binary(max_size=300), max_size=5)
MESSAGES = st.builds(
    pb.ModelInferRequest,
    model_name=st.text(max_size=5),
    id=st.text(max_size=5),
    raw_input_contents=RAWS,
    inputs=st.lists(
        st.builds(pb.ModelInferRequest.InferInputTensor, name=st.text(max_size=3), shape=st.lists(st.integers(0, 9))),
        max_size=3,
    ),
    parameters=st.dictionaries(
        st.text(max_size=3), st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)), max_size=2
    ),
)


def same(data: bytes) -> pb.ModelInferRequest:
    """Checks that both find the same, or both nothing; gives what they find."""
    try:
        expected = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            received(data)
        return pb.ModelInferRequest()
    found = received(data)
    assert [bytes(raw) for raw in found.raws] == list(expected.raw_input_contents)
    assert not found.message.raw_input_contents
    found.message.raw_input_contents.extend(bytes(raw) for raw in found.raws)
    assert found.message == expected
    return expected


@given(MESSAGES)
def test_messages_are_the_same(message: pb.ModelInferRequest) -> None:
    assert same(message.SerializeToString()) == message


@given(st.lists(MESSAGES, min_size=2, max_size=3))
def test_messages_one_after_the_other_are_merged(messages: list[pb.ModelInferRequest]) -> None:
    same(b"".join(message.SerializeToString() for message in messages))


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"")
@example(bytes([RAW]))
@example(bytes([RAW, 5, 1]))
@example(bytes([RAW, 0]) * (MOST + 1))
@example(bytes([RAW | 128, 0, 1, 7]))  # the tag in two bytes
@example(bytes([RAW, 0x81, 0x80, 0x00, 9]))  # a length in three
@example(bytes([RAW]) + b"\xff" * 9 + b"\x01")
@example(bytes([RAW]) + b"\xff" * 11)
@example(b"\x3b\x3c")  # a group where bytes should be
@example(b"\x39" + bytes(8) + b"\x3d" + bytes(4) + b"\x38\1")  # numbers there
@example(b"\x00\x01")
@example(b"\xf8\xff\xff\xff\xff\xff\x01\x00")
@example(b"\x3a\x01\x07\x0b\x0c\x3a\x01\x08")  # a group between two
def test_any_bytes_are_the_same(data: bytes) -> None:
    same(data)


@given(MESSAGES, st.data())
def test_damaged_messages_are_the_same(message: pb.ModelInferRequest, data: st.DataObject) -> None:
    written = bytearray(message.SerializeToString())
    if written:
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(written[: data.draw(st.integers(0, len(written)))]))


def test_tensors_lie_where_they_arrived() -> None:
    values = np.arange(1000, dtype=np.float32)
    for name in ("m", "mo", "mod", "mode"):  # so that they begin at any address
        message = pb.ModelInferRequest(model_name=name, raw_input_contents=[values.tobytes(), b"second"])
        data = message.SerializeToString()
        first, second = received(data).raws
        whole = np.frombuffer(data, np.uint8)
        assert np.shares_memory(np.frombuffer(first, np.uint8), whole)
        assert bytes(second) == b"second"
        array = from_raw(first, "FP32", (1000,), "")
        assert array.flags.aligned
        assert np.array_equal(array, values)
        at = np.frombuffer(first, np.uint8).ctypes.data
        assert np.shares_memory(array, whole) == (at % 4 == 0)


def test_a_message_of_very_many_fields_is_left_to_protobuf() -> None:
    raws: Any = [b"x"] * (MOST * 100)
    found = received(pb.ModelInferRequest(raw_input_contents=raws).SerializeToString())
    assert list(found.raws) == raws
    assert isinstance(found.raws[0], bytes)
    few = received(pb.ModelInferRequest(raw_input_contents=raws[:3]).SerializeToString())
    assert isinstance(few.raws[0], memoryview)
