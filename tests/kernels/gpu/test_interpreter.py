"""The interpreter that runs the kernels in tests does what a GPU does, where it can, and says so where it cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Kernel
from support.triton_interpreter import InterpreterError, from_bf16, interpret, to_bf16


@triton.jit
def _sums(values, total, largest, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at, mask=at < count, other=0.0)
    tl.atomic_add(total, tl.sum(x, axis=0))
    tl.atomic_max(largest + (at & 1), at.to(tl.int64), mask=at < count)


@triton.jit
def _product(a, b, out, SIZE: tl.constexpr, SUM: tl.constexpr):
    at = tl.arange(0, SIZE)
    cells = at[:, None] * SIZE + at[None, :]
    tl.store(out + cells, tl.dot(tl.load(a + cells), tl.load(b + cells), out_dtype=SUM))


@triton.jit
def _rounded(values, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(values + at).to(tl.bfloat16))


@triton.jit
def _doubled(values, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    x = tl.load(values + at)
    tl.store(values + at, x + x)


@triton.jit
def _latest(out):
    tl.store(out, (tl.program_id(0) * 3 + tl.program_id(1)) * 2 + tl.program_id(2))


@triton.jit
def _scalars(out, small, large, real):
    tl.store(out, small * 65536 + 0 * large)
    tl.store(out + 1, large * 65536)
    tl.store(out + 2, (real * 4).to(tl.int64))


def spec(function: Callable[..., Any], arguments: dict[str, str], **constants: Any) -> Kernel:
    return Kernel(name=function.__name__, function=function, arguments=arguments, constants=constants)


SUMS = spec(_sums, {"values": "*fp32", "total": "*fp32", "largest": "*i64", "count": "i32"}, BLOCK=4)


def test_runs_every_program_with_atomics_and_masks() -> None:
    values, total, largest = np.arange(11, dtype=np.float32), np.zeros(1, np.float32), np.full(2, -1, np.int64)
    interpret(SUMS, (3,), values, total, largest, 11)
    assert total.tolist() == [55.0]
    assert largest.tolist() == [10, 9]


def test_runs_the_programs_from_the_last_to_the_first() -> None:
    kernel = spec(_latest, {"out": "*i32"})
    for backwards, latest in ((False, 11), (True, 0)):
        out = np.zeros(1, np.int32)
        interpret(kernel, (2, 3, 2), out, backwards=backwards)
        assert out.tolist() == [latest]


@pytest.mark.parametrize(
    ("kind", "sum_", "convert"),
    [("*i8", tl.int32, None), ("*bf16", tl.float32, to_bf16), ("*fp16", tl.float32, None)],
)
def test_multiplies_matrices(kind: str, sum_: Any, convert: Callable[[Any], Any] | None) -> None:
    a, b = np.random.default_rng(3).integers(-128, 128, (2, 16, 16)).astype(np.int8)
    whole = sum_ is tl.int32
    out = np.zeros((16, 16), np.int32 if whole else np.float32)
    kernel = spec(_product, {"a": kind, "b": kind, "out": "*i32" if whole else "*fp32"}, SIZE=16, SUM=sum_)
    given = [x if whole else convert(x.astype(np.float32)) if convert else x.astype(np.float16) for x in (a, b)]
    interpret(kernel, (1,), *given, out)
    np.testing.assert_array_equal(out, a.astype(np.int64) @ b.astype(np.int64))


def test_rounds_to_bf16_to_nearest_even() -> None:
    kernel = spec(_rounded, {"values": "*fp32", "out": "*bf16"}, SIZE=8)
    step = 2.0**-7  # between neighbours from 1 to 2
    values = np.array([1 + step / 2, 1 + 1.5 * step, 1 + step * 0.51, -2 + step / 4, 3e38, np.inf, -0.0, np.nan])
    out = np.zeros(8, np.uint16)
    interpret(kernel, (1,), values.astype(np.float32), out)
    made = from_bf16(out)
    wanted = [1, 1 + 2 * step, 1 + step, -2, float(np.float32(3e38).view(np.uint32) >> 16 << 16), np.inf, -0.0, np.nan]
    np.testing.assert_array_equal(made[:4], wanted[:4])
    np.testing.assert_array_equal(made[5:], wanted[5:])
    assert abs(made[4] / 3e38 - 1) < 2**-8
    assert np.signbit(made[6])
    np.testing.assert_array_equal(out, to_bf16(values))


def test_scalars_have_the_types_that_the_spec_says() -> None:
    out = np.zeros(3, np.int64)
    interpret(
        spec(_scalars, {"out": "*i64", "small": "i32", "large": "i64", "real": "fp32"}), (1,), out, 65536, 65536, 0.25
    )
    assert out.tolist() == [0, 2**32, 1], "an i32 overflows as on a GPU, an i64 does not"


@pytest.mark.parametrize(("count", "verb"), [(12, "reads"), (3, "writes")])
def test_memory_of_others_is_not_touched(count: int, verb: str) -> None:
    largest = np.zeros(0 if verb == "writes" else 2, np.int64)
    with pytest.raises(InterpreterError, match=f"{verb} outside of its arrays"):
        interpret(SUMS, (3,), np.zeros(11, np.float32), np.zeros(1, np.float32), largest, count)


def test_arithmetic_on_bf16_is_refused() -> None:
    with pytest.raises(InterpreterError, match="widen to float32"):
        interpret(spec(_doubled, {"values": "*bf16"}, SIZE=4), (1,), np.zeros(4, np.uint16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros(11)}, "values must be an array of float32"),
        ({"values": 3.0}, "values must be an array"),
        ({"values": np.zeros((4, 4), np.float32)[:, 1]}, "C-contiguous"),
        ({"values": np.zeros(12, np.float32)[1:]}, "multiple of 16 bytes"),
        ({"count": np.zeros(3)}, "count must be a number"),
        ({"count": 2.5}, "whole number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "values": np.zeros(11, np.float32),
        "total": np.zeros(1, np.float32),
        "largest": np.zeros(2, np.int64),
        "count": 11,
    }
    with pytest.raises(ValueError, match=message):
        interpret(SUMS, (3,), *(given | change).values())


def test_aligned_arguments_and_their_number_are_checked() -> None:
    kernel = Kernel("k", _sums, SUMS.arguments, SUMS.constants, aligned=frozenset({"count"}))
    given = (np.zeros(16, np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64))
    interpret(kernel, (4,), *given, 16)
    with pytest.raises(ValueError, match="multiple of 16, which"):
        interpret(kernel, (4,), *given, 15)
    with pytest.raises(ValueError, match="takes 4 arguments, not 3"):
        interpret(kernel, (4,), *given)
    with pytest.raises(ValueError, match="was imported before"):
        interpret(Kernel("k", lambda: None, SUMS.arguments, SUMS.constants), (4,), *given, 16)


def test_the_environment_is_left_alone() -> None:
    assert "TRITON_INTERPRET" not in os.environ, "children of the tests compile"
