"""Requests cut from their bytes are what protobuf makes of the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.oip import framing
from matchcut.server.oip.elements import from_raw
from matchcut.server.oip.framing import LONGEST_HEAD, MOST, MOST_HEADS, RAW, STUBBORN, received

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


SMALL = framing.SMALL


@pytest.fixture(autouse=True, scope="module")
def cut() -> Iterator[None]:
    """Small messages are cut, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "SMALL", -1)
        yield


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
    whole = pb.ModelInferRequest()
    whole.CopyFrom(found.message)
    whole.raw_input_contents.extend(bytes(raw) for raw in found.raws)
    assert whole == expected
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


def test_a_small_message_is_left_to_protobuf_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "SMALL", SMALL)
    for length, kind in ((SMALL - 100, bytes), (SMALL + 1, memoryview)):
        data = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"x" * length, b"y"]).SerializeToString()
        found = received(data)
        assert [type(raw) for raw in found.raws] == [kind, kind]
        assert found.size == len(data)
        same(data)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small messages are small again, and none is known yet."""
    monkeypatch.setattr(framing, "SMALL", SMALL)
    framing.HEADS.clear()


def last(message: pb.ModelInferRequest, *raws: bytes) -> list[bytes]:
    """The message with each of these as its only tensor."""
    made = []
    for raw in raws:
        del message.raw_input_contents[:]
        message.raw_input_contents.append(raw)
        made.append(message.SerializeToString())
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES, st.binary(max_size=50), st.data())
@pytest.mark.usefixtures("small")
def test_messages_with_a_known_head_are_the_same(
    message: pb.ModelInferRequest, raw: bytes, data: st.DataObject
) -> None:
    framing.HEADS.clear()
    other = data.draw(st.binary(min_size=len(raw), max_size=len(raw)))
    first, second = last(message, raw, other)
    same(first)
    (head,) = framing.HEADS[len(first)].known
    assert head.data + raw == first
    found = received(second)
    assert found.head is head
    same(second)
    same(first)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, min_size=1, max_size=3), st.binary(max_size=3), st.data())
@pytest.mark.usefixtures("small")
def test_whatever_is_behind_a_known_head_is_the_same(
    messages: list[pb.ModelInferRequest], more: bytes, data: st.DataObject
) -> None:
    """Also where a field behind the tensor, or one that looks like it, has bytes of the same length."""
    framing.HEADS.clear()
    whole = b"".join(message.SerializeToString() for message in messages) + more
    same(whole)
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(changed))
    same(whole)


@pytest.mark.usefixtures("small")
def test_what_only_looks_like_a_tensor_at_the_end_makes_no_head() -> None:
    raw = b"0123456789"
    tensor = bytes([RAW, len(raw)]) + raw
    message = pb.ModelInferRequest(id=tensor.decode())
    for data in (message.SerializeToString(), tensor + message.SerializeToString()):
        same(data)
    assert not any(heads.known for heads in framing.HEADS.values())
    same(message.SerializeToString() + tensor)
    assert sum(len(heads.known) for heads in framing.HEADS.values()) == 1


@pytest.mark.usefixtures("small")
def test_heads_are_few_and_give_way_to_those_that_come_now() -> None:
    for length in range(5 * MOST):
        received(pb.ModelInferRequest(id="x" * length, raw_input_contents=[b"1"]).SerializeToString())
        assert len(framing.HEADS) <= MOST
    framing.HEADS.clear()
    large = pb.ModelInferRequest(id="x" * LONGEST_HEAD, raw_input_contents=[b"1"]).SerializeToString()
    assert received(large).head is received(large).head is None


@pytest.mark.usefixtures("small")
def test_several_heads_of_one_length_are_known_and_the_last_that_came_give_way_last() -> None:
    def asked(number: int) -> bytes:
        return pb.ModelInferRequest(id=f"{number:05}", raw_input_contents=[b"1"]).SerializeToString()

    for number in range(MOST_HEADS):
        assert received(asked(number)).head is not None
    for number in range(MOST_HEADS):
        head = received(asked(number)).head
        assert head is not None
        assert head.message.id == f"{number:05}"
    assert received(asked(0)).head is not None
    heads = [received(asked(100 + number)).head for number in range(STUBBORN)]
    assert [head is None for head in heads] == [*[True] * (STUBBORN - 1), False], (
        "where none comes again few are learnt"
    )
    (known,) = (each.known for each in framing.HEADS.values() if each.known)
    assert [int(head.message.id) for head in known] == [99 + STUBBORN, 0, *range(MOST_HEADS - 1, 1, -1)]
    for number in range(300):
        same(asked(number))
