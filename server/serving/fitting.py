"""Checks what config.pbtxt says of inputs and outputs against the graph, and narrows those that it leaves open."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from matchcut.server.serving.configured import shown, wrong
from matchcut.server.serving.declared import Control, Declared, DeclaredState, DeclaredTensor
from matchcut.server.tensors import DTYPES, TensorSpec

__all__ = ["Fit", "fit", "resized"]

Specs = tuple[TensorSpec, ...]
MOST_BYTES = 512 << 20  # of one row of an input or output: the first runs make several


@dataclass(frozen=True, slots=True)
class Fit:
    """A graph as config.pbtxt wants it.

    inputs, outputs: all of the graph's, in its order, with the sizes that are left. max_batch: None where nothing is
    said. asked, given: what callers send and get, in the order and with the sizes in which they are declared; empty
    where none are.
    """

    inputs: Specs
    outputs: Specs
    max_batch: int | None
    asked: Specs
    given: Specs


def fit(inputs: Specs, outputs: Specs, said: Declared) -> Fit:
    """The graph with these inputs and outputs as config.pbtxt wants it.

    Raises:
        EngineFailed: they do not fit together; the message says what each of them has.
    """
    ins, outs = {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs}
    own = [state.input for state in said.states] + [control.input for control in said.controls]
    check_names("input", [*(one.name for one in said.inputs), *own], ins)
    check_names("output", [one.name for one in said.outputs], outs)
    check_names("output", [state.output for state in said.states], outs)
    if said.inputs and (missing := [name for name in ins if name not in own and name not in names(said.inputs)]):
        raise wrong(
            f"it has the inputs {listed(names(said.inputs))}, but the graph takes {listed(missing)} too: "
            "declare all inputs, or none"
        )
    max_batch = rows(said, ins, outs)
    batches = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs)) if max_batch is None else max_batch > 0
    if max_batch:
        check_open((*inputs, *outputs), max_batch)
    for one in (*said.inputs, *(into(state) for state in said.states)):
        ins[one.name] = narrowed("input", ins[one.name], one, batches)
    for one in (*said.outputs, *(out(state) for state in said.states)):
        outs[one.name] = narrowed("output", outs[one.name], one, batches)
    for control in said.controls:
        check_control(control, ins[control.input], batches)
    asked = tuple(outer(ins[one.name], one, batches) for one in said.inputs)
    given = tuple(outer(outs[one.name], one, batches) for one in said.outputs)
    return Fit(tuple(ins.values()), tuple(outs.values()), max_batch, asked, given)


def rows(said: Declared, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> int | None:
    """Most rows of one run; None where that is left to the graph.

    A max_batch_size of 0 and one that is not there are the same in the file: where all is declared, it is 0; where only
    some is, as many sizes as the graph has mean 0 too.
    """
    if said.max_batch:
        return said.max_batch
    tensors = [(one, inputs[one.name]) for one in said.inputs] + [(one, outputs[one.name]) for one in said.outputs]
    complete = bool(said.inputs and said.outputs) and all(one.inner is not None for one, _ in tensors)
    as_many = any(one.inner is not None and len(one.inner) == len(spec.shape) for one, spec in tensors)
    return 0 if complete or as_many else None


def check_names(role: str, found: Collection[str], known: Mapping[str, TensorSpec]) -> None:
    """Raises EngineFailed where a name is none of the graph's, or is there twice."""
    seen = set[str]()
    for name in found:
        if name not in known:
            raise wrong(f"it has an {role} {shown(name)}, but the graph's are {listed(known)}")
        if name in seen:
            raise wrong(f"{role} {shown(name)} is there twice: each is for one thing only")
        seen.add(name)


def check_open(specs: Specs, max_batch: int) -> None:
    """Raises EngineFailed where a first size cannot count rows."""
    for spec in specs:
        if not spec.shape or spec.shape[0] != -1:
            raise wrong(
                f"max_batch_size is {max_batch}, but {spec.name!r} has the shape {sizes(spec.shape)} in the graph, "
                "whose first size is not open: set it to 0, and say the first size in dims"
            )


def narrowed(role: str, spec: TensorSpec, said: DeclaredTensor, batches: bool) -> TensorSpec:
    """An input or output with the sizes that the graph or the file fixes."""
    if said.dtype and said.dtype != spec.dtype:
        raise wrong(f"{role} {spec.name!r} is {type_name(said.dtype)}, but {type_name(spec.dtype)} in the graph")
    wanted = said.inner
    if wanted is None:
        return spec
    row = spec.shape[1:] if batches else spec.shape
    what = "dims" if said.reshape is None else "reshape"
    if len(row) != len(wanted) or any(one not in (-1, size) for one, size in zip(row, wanted, strict=True)):
        counted = "not counting the first, which counts rows" if batches else "all of them"
        raise wrong(
            f"{role} {spec.name!r} has the {what} {sizes(wanted)}, but {sizes(row)} in the graph, {counted}; "
            "only what is -1 there may be any size"
        )
    if math.prod(size for size in wanted if size > 0) * DTYPES[spec.dtype].itemsize > MOST_BYTES:
        raise wrong(
            f"{role} {spec.name!r} has the {what} {sizes(wanted)}, more than {MOST_BYTES >> 20} MiB a row: "
            "leave open what may be small"
        )
    return TensorSpec(spec.name, spec.dtype, (spec.shape[0], *wanted) if batches else wanted)


def outer(spec: TensorSpec, said: DeclaredTensor, batches: bool) -> TensorSpec:
    """What callers see of an input or output that may be reshaped for the graph."""
    if said.reshape is None or said.sizes is None:
        return spec
    if between(said.sizes) != between(said.reshape):
        raise wrong(
            f"{spec.name!r} has the dims {sizes(said.sizes)} and the reshape {sizes(said.reshape)}: they must have as "
            "many elements, and as many of them before, between and after sizes of -1"
        )
    return TensorSpec(spec.name, spec.dtype, (spec.shape[0], *said.sizes) if batches else said.sizes)


def between(row: tuple[int, ...]) -> list[int]:
    """How many elements the sizes before the first open one have, those up to the next one, and so on.

    Triton's rule: where these are the same, each open size of the one row is that of the other.
    """
    counts = [1]
    for size in row:
        if size == -1:
            counts.append(1)
        else:
            counts[-1] *= size
    return counts


def resized(row: tuple[int, ...], known: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that a row of these sizes has where it is wanted in others.

    known: what is said of the row; wanted: of the other; each has as many of -1, which stand for sizes of the row.
    """
    found = (size for size, said in zip(row, known, strict=True) if said == -1)
    return tuple(next(found) if size == -1 else size for size in wanted)


def check_control(control: Control, spec: TensorSpec, batches: bool) -> None:
    """Raises EngineFailed where the input is no single value of the control's type."""
    if control.dtype != spec.dtype:
        raise wrong(
            f"control_input {spec.name!r} is {type_name(control.dtype)}, but {type_name(spec.dtype)} in the graph"
        )
    row = spec.shape[1:] if batches else spec.shape
    if any(size not in (-1, 1) for size in row):
        raise wrong(f"control_input {spec.name!r} has {sizes(row)} in the graph: it must be one value a row")


def into(state: DeclaredState) -> DeclaredTensor:
    """What is said of a state's input."""
    return DeclaredTensor(state.input, state.dtype, state.sizes)


def out(state: DeclaredState) -> DeclaredTensor:
    """What is said of a state's output."""
    return DeclaredTensor(state.output, state.dtype, state.sizes)


def names(tensors: tuple[DeclaredTensor, ...]) -> tuple[str, ...]:
    return tuple(one.name for one in tensors)


def type_name(dtype: str) -> str:
    """A type in the words of the file."""
    return "TYPE_STRING" if dtype == "BYTES" else f"TYPE_{dtype}"


def listed(found: Collection[str]) -> str:
    return ", ".join(map(shown, found)) or "none"


def sizes(shape: tuple[int, ...]) -> str:
    """[3,224,224], cut where it is long."""
    return f"[{','.join(map(str, shape[:16]))}{',...' if len(shape) > 16 else ''}]"
