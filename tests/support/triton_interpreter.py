"""Runs the Triton kernels on the CPU, element by element, over NumPy arrays: no GPU and no torch.

Importing this puts Triton of this process into its interpreter, for good: what triton.jit decorates from then on is
interpreted and cannot be compiled. Children of the process are not affected, so compile in one. tests/kernels imports
this module before any other (conftest.py there); whatever else imports matchcut.kernels.gpu to run it does so too.

Triton 3.9's own interpreter does the work; see `_mend` for what is put right in it. It differs from a GPU in these
ways, which tests have to allow for: programs run one after another; exp, log and division are NumPy's, correct to an
ulp; a product and a sum are never fused; a sum over a tile is NumPy's pairwise sum.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.launch import Argument, Plan, Slot


def _enter() -> None:
    """Imports Triton for the interpreter, and leaves the environment as it was."""
    if "triton" in sys.modules:
        raise RuntimeError("triton was imported before support.triton_interpreter, which has to come first")
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"  # Triton's own library functions are decorated while it is imported
    try:
        import triton
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before
    triton.knobs.propagate_env = False
    triton.knobs.runtime.interpret = True
    triton.knobs.propagate_env = True


_enter()

import triton.language as tl  # noqa: E402 (only now is it interpreted)
from triton.runtime.interpreter import (  # noqa: E402
    InterpretedFunction,
    InterpreterBuilder,
    InterpreterError,
    TensorHandle,
    _patch_lang,
)

__all__ = ["InterpreterError", "execute", "from_bf16", "interpret", "to_bf16"]

_DTYPES: dict[str, type[np.generic]] = {
    "i1": np.bool_,
    "i8": np.int8,
    "u8": np.uint8,
    "i16": np.int16,
    "u16": np.uint16,
    "i32": np.int32,
    "u32": np.uint32,
    "i64": np.int64,
    "u64": np.uint64,
    "fp16": np.float16,
    "bf16": np.uint16,  # NumPy has none: its bits
    "fp32": np.float32,
    "fp64": np.float64,
}


def interpret(kernel: Kernel, grid: tuple[int, ...], *arguments: NDArray[Any] | float, backwards: bool = False) -> None:
    """Runs every program of the grid, in order or from the last to the first; arrays are changed in place.

    Args:
        grid: 1 to 3 sizes.
        arguments: those that are not constants, in order. For a pointer a C-contiguous array of its type ("*bf16":
            uint16, the bits) at a multiple of 16 bytes, as in a launch; for a scalar a number that its type holds.

    Raises:
        ValueError: an argument does not fit the kernel's spec.
        InterpreterError: the kernel failed, or touched memory that is in none of the arrays; the message says where.
    """
    if not isinstance(kernel.function, InterpretedFunction):
        raise ValueError(f"{kernel.name} was imported before support.triton_interpreter, which has to come first")
    if len(arguments) != len(kernel.arguments):
        raise ValueError(f"{kernel.name} takes {len(kernel.arguments)} arguments, not {len(arguments)}")
    values: dict[str, Any] = {}
    spans: list[tuple[int, int]] = []
    for (name, kind), value in zip(kernel.arguments.items(), arguments, strict=True):
        if kind.startswith("*"):
            spans.append(_span(name, kind, value))
            data = np.array([spans[-1][0]], np.uint64)
        else:
            data = _scalar(name, kind, value, aligned=name in kernel.aligned)
        type_ = tl.str_to_ty(kind, None)
        values[name] = tl.tensor(TensorHandle(data, type_), type_)
    _memory.spans = sorted(span for span in spans if span[0] < span[1])
    _memory.backwards = backwards
    try:
        # All that overflows or is NaN on purpose also would on a GPU, silently.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            kernel.function[grid](**values, **kernel.constants)
    finally:
        _memory.spans = []
        _prepared.clear()


def execute(
    plan: Plan, kernels: Sequence[Kernel], *, backwards: bool = False, **inputs: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Does what a plan says as its launcher on a GPU would; what is no input holds rubbish at first.

    Args:
        kernels: those that the plan's names are looked up in.
        backwards: see interpret.
        inputs: the content of each of the plan's input slots, by name; copied.

    Returns:
        The arrays of the output slots by name.
    """
    known = {kernel.name: kernel for kernel in kernels}
    arrays: dict[str, NDArray[Any]] = {}
    cleared: list[NDArray[Any]] = []
    for slot in plan.inputs:
        given = inputs[slot.name]
        if given.shape != slot.shape or given.dtype != slot.dtype:
            raise ValueError(f"{slot.name} must be {slot.shape} {slot.dtype}, not {given.shape} {given.dtype}")
        arrays[slot.name] = given.copy()

    def buffer(argument: Argument) -> NDArray[Any] | float:
        if not isinstance(argument, Slot):
            return argument.copy() if isinstance(argument, np.ndarray) else argument
        if argument.name not in arrays:
            made = np.frombuffer(bytearray(b"\xcb" * argument.nbytes), argument.dtype).reshape(argument.shape)
            if argument.zeroed:
                made[...] = 0
                cleared.append(made)
            arrays[argument.name] = made
        return arrays[argument.name]

    for launch in plan.launches:
        interpret(known[launch.kernel], launch.grid, *map(buffer, launch.arguments), backwards=backwards)
    if any(array.any() for array in cleared):
        raise ValueError("a slot that has to be zero before the launch is not zero after it")
    return {slot.name: arrays[slot.name] for slot in plan.outputs}


def to_bf16(values: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded.astype(np.uint16))


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What the bits of bfloat16 stand for."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _span(name: str, kind: str, value: Any) -> tuple[int, int]:
    """First address and the one after the last of an array."""
    dtype = np.dtype(_DTYPES[kind[1:]])
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise ValueError(f"{name} must be an array of {dtype} for {kind}, not {getattr(value, 'dtype', type(value))}")
    if not value.flags.c_contiguous or not value.flags.writeable:
        raise ValueError(f"{name} must be C-contiguous and writeable")
    address: int = value.ctypes.data
    if address % 16:
        raise ValueError(f"{name} must lie at a multiple of 16 bytes, as every buffer of a launch does")
    return address, address + value.nbytes


def _scalar(name: str, kind: str, value: Any, *, aligned: bool) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and value.ndim:
        raise ValueError(f"{name} must be a number for {kind}, not an array")
    data = np.array([value], _DTYPES[kind])  # raises OverflowError for an integer that does not fit
    if data.dtype.kind in "iub" and int(data[0]) != value:
        raise ValueError(f"{name} must be a whole number for {kind}, not {value!r}")
    if aligned and int(data[0]) % 16:
        raise ValueError(f"{name} must be a multiple of 16, which the kernel was compiled for, not {value!r}")
    return data


class _Memory:
    """What the kernel that runs may touch, and in which order its programs do."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.backwards = False

    def check(self, pointers: TensorHandle, mask: TensorHandle, verb: str) -> None:
        used = np.broadcast_to(pointers.data, mask.data.shape)[mask.data.astype(bool)]
        if not used.size:
            return
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        starts = np.array([0, *(start for start, _ in self.spans)], np.uint64)
        stops = np.array([0, *(stop for _, stop in self.spans)], np.uint64)
        within = stops[np.searchsorted(starts, used, side="right") - 1]
        outside = used + np.uint64(size) > within
        if outside.any():
            raise MemoryError(f"the kernel {verb} outside of its arrays, {outside.sum()} of {used.size} elements")


_memory = _Memory()
_prepared: set[int] = set()  # modules whose use of Triton's language is interpreted in this run


def _mend() -> None:
    """Puts right what Triton 3.9's interpreter does otherwise than a GPU.

    To bfloat16 it truncates (a GPU rounds to nearest, ties to even), tl.dot multiplies the bit patterns of bfloat16,
    arithmetic on bfloat16 adds bit patterns (refused here: kernels widen first), and it reads and writes wherever a
    pointer leads (checked here). It also looks through all of Triton's language at each call of a function from a
    kernel, which takes most of the time; once for each module of functions is enough.
    """
    cast, dot, binary = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot, InterpreterBuilder.binary_op
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    atomic, place = InterpreterBuilder.create_atomic_rmw, InterpreterBuilder.set_grid_idx

    def placed(self: Any, *at: int) -> None:
        turned = [size - 1 - index for size, index in zip(self.grid_dim, at, strict=True)]
        place(self, *(turned if _memory.backwards else at))

    def widened(handle: TensorHandle) -> TensorHandle:
        return TensorHandle(from_bf16(handle.data), tl.float32) if handle.dtype.scalar == tl.bfloat16 else handle

    def mended_cast(self: Any, source: TensorHandle, to: Any) -> TensorHandle:
        if source.dtype.scalar == tl.bfloat16 and to.scalar != tl.bfloat16:
            source = widened(source)
        if to.scalar == tl.bfloat16 and source.dtype.scalar != tl.bfloat16:
            return TensorHandle(to_bf16(source.data.astype(np.float32)), tl.bfloat16)
        return cast(self, source, to)

    def mended_dot(self: Any, a: TensorHandle, b: TensorHandle, *rest: Any) -> TensorHandle:
        return dot(self, widened(a), widened(b), *rest)

    def mended_binary(self: Any, left: TensorHandle, right: TensorHandle, op: Any) -> TensorHandle:
        if left.dtype.scalar == tl.bfloat16:
            raise TypeError("arithmetic on bfloat16: widen to float32 first, the interpreter cannot do it")
        return binary(self, left, right, op)

    def checked_load(self: Any, pointers: TensorHandle, mask: TensorHandle, *rest: Any) -> TensorHandle:
        _memory.check(pointers, mask, "reads")
        return load(self, pointers, mask, *rest)

    def checked_store(self: Any, pointers: TensorHandle, value: TensorHandle, mask: TensorHandle, *rest: Any) -> Any:
        _memory.check(pointers, mask, "writes")
        return store(self, pointers, value, mask, *rest)

    def checked_atomic(self: Any, op: Any, pointers: TensorHandle, value: Any, mask: TensorHandle, *rest: Any) -> Any:
        _memory.check(pointers, mask, "writes")
        return atomic(self, op, pointers, value, mask, *rest)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        module = id(self.fn.__globals__)
        if module not in _prepared:
            _patch_lang(self.fn)
            _prepared.add(module)
        return self.rewrite()(*arguments, **named)

    InterpretedFunction.__call__ = call
    InterpreterBuilder.set_grid_idx = placed
    InterpreterBuilder.cast_impl = mended_cast
    InterpreterBuilder.create_dot = mended_dot
    InterpreterBuilder.binary_op = mended_binary
    InterpreterBuilder.create_masked_load = checked_load
    InterpreterBuilder.create_masked_store = checked_store
    InterpreterBuilder.create_atomic_rmw = checked_atomic


_mend()
