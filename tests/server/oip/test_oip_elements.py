"""Elements on their way in and out, and classes of outputs."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput
from matchcut.server.oip.classes import top
from matchcut.server.oip.elements import FIELDS, from_contents, from_raw, to_raw
from matchcut.server.tensors import DTYPES, Tensor

WHAT = "input 'x' for model 'm'"


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Tensor]:
    """A type and a tensor of it, empty ones and those of no size included."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    if dtype != "BYTES":
        return dtype, draw(arrays(DTYPES[dtype], shape))
    words = draw(st.lists(st.binary(max_size=6), min_size=math.prod(shape), max_size=math.prod(shape)))
    tensor = np.empty(len(words), np.object_)
    tensor[:] = words
    return dtype, tensor.reshape(shape)


@given(tensors())
def test_raw_elements_come_back_bit_for_bit(drawn: tuple[str, Tensor]) -> None:
    dtype, tensor = drawn
    raw = to_raw(tensor, dtype)
    back = from_raw(raw, dtype, tensor.shape, WHAT)
    assert back.dtype == DTYPES[dtype]
    assert back.shape == tensor.shape
    assert to_raw(back, dtype) == raw
    assert back.tolist() == tensor.tolist() or dtype in ("FP16", "FP32", "FP64")  # where there may be NaN


@given(tensors())
def test_elements_one_by_one_are_the_same_as_raw(drawn: tuple[str, Tensor]) -> None:
    dtype, tensor = drawn
    if dtype not in FIELDS:
        return
    contents = pb.InferTensorContents(**{FIELDS[dtype]: tensor.reshape(-1).tolist()})
    back = from_contents(contents, dtype, tensor.shape, WHAT)
    assert to_raw(back, dtype) == to_raw(tensor, dtype) or np.array_equal(back, tensor, equal_nan=True)


@given(st.binary(max_size=64), st.integers(0, 5))
def test_any_bytes_are_strings_or_refused(raw: bytes, count: int) -> None:
    try:
        found = from_raw(raw, "BYTES", (count,), WHAT)
    except InvalidInput:
        return
    assert found.shape == (count,)
    assert to_raw(found, "BYTES") == raw


@given(
    st.sampled_from(sorted(set(DTYPES) - {"BYTES"})), st.integers(0, 40), st.lists(st.integers(0, 2**62), max_size=3)
)
def test_any_number_of_bytes_is_the_shape_s_or_refused(dtype: str, size: int, shape: list[int]) -> None:
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    sizes = [each for each in shape if each]
    if expected == size == 0 and math.prod(sizes) * DTYPES[dtype].itemsize >= 2**62:
        return  # NumPy may have no such shape; see below
    if expected == size:
        assert from_raw(bytes(size), dtype, tuple(shape), WHAT).nbytes == size
        return
    with pytest.raises(InvalidInput, match=f"Expected {expected}, got {size}$"):
        from_raw(bytes(size), dtype, tuple(shape), WHAT)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_a_shape_without_elements_may_be_too_large_all_the_same(dtype: str) -> None:
    with pytest.raises(InvalidInput, match=r"the shape \[0,4611686018427387904,9\] of .* is too large"):
        from_raw(b"", dtype, (0, 2**62, 9), WHAT)


def test_raw_elements_are_not_copied() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    view = from_raw(raw, "FP32", (2, 3), WHAT)
    assert view.ctypes.data == np.frombuffer(raw, np.uint8).ctypes.data
    assert not view.flags.writeable


def test_a_byte_that_is_no_bool_becomes_one() -> None:
    assert from_raw(b"\0\1\2\xff", "BOOL", (4,), WHAT).view(np.uint8).tolist() == [0, 1, 1, 1]


def test_transposed_outputs_are_written_row_by_row() -> None:
    assert to_raw(np.arange(6, dtype=np.int32).reshape(2, 3).T, "INT32") == np.array([0, 3, 1, 4, 2, 5], "i4").tobytes()


def test_equal_values_are_in_the_order_of_their_indices_and_no_number_is_last() -> None:
    row = np.array([1, np.nan, 3, 3, -np.inf], np.float32)
    assert top(row, "FP32", 5, labels=("", "n"), batched=False).tolist() == [
        *(b"3.000000:2", b"3.000000:3", b"1.000000:0"),
        *(b"nan:1:n", b"-inf:4"),
    ]


@pytest.mark.parametrize("dtype", ["UINT8", "UINT64", "INT8", "INT64"])
def test_whole_numbers_are_written_without_a_point(dtype: str) -> None:
    info = np.iinfo(DTYPES[dtype])
    values = np.array([[info.min, info.max, 1]], DTYPES[dtype])
    assert top(values, dtype, 2, labels=(), batched=True).tolist() == [[f"{info.max}:1".encode(), b"1:2"]]


@given(
    arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(0, 6)), elements=from_dtype(np.dtype(np.float32))),
    st.integers(1, 8),
)
def test_classes_are_the_highest_of_each_row(values: Tensor, count: int) -> None:
    told = top(values, "FP32", count, labels=(), batched=True)
    assert told.shape == (len(values), min(count, values.shape[1]))
    ranked = np.where(np.isnan(values), -np.inf, values)
    for row, texts in zip(ranked, told, strict=True):
        chosen = [int(text.split(b":")[1]) for text in texts]
        assert len(set(chosen)) == len(chosen)
        assert [row[index] for index in chosen] == sorted(row, reverse=True)[: len(chosen)]


@pytest.mark.parametrize("dtype", ["BYTES", "BOOL", "BF16"])
def test_what_has_no_order_has_no_classes(dtype: str) -> None:
    with pytest.raises(InvalidInput, match=f"unsupported type '{dtype}'"):
        top(np.zeros(3, DTYPES[dtype]), dtype, 1, labels=(), batched=False)


def test_lengths_are_little_endian() -> None:
    element = np.empty(1, np.object_)
    element[0] = b"x" * 300
    assert to_raw(element, "BYTES") == struct.pack("<I", 300) + b"x" * 300
