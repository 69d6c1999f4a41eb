"""What a request to a model must be like, checked before anything runs.

The wording follows Triton's, whose clients may look at it.
"""

from __future__ import annotations

from collections.abc import Collection

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.tensors import DTYPES, Tensors, TensorSpec

__all__ = ["check_inputs", "check_outputs", "check_step", "check_wanted"]

Specs = tuple[TensorSpec, ...]


def check_inputs(model: str, specs: Specs, inputs: Tensors, *, max_batch: int) -> int:
    """How many rows the inputs have; 1 where the model does not batch.

    Args:
        max_batch: most rows; 0: the first size counts none.

    Raises:
        InvalidInput: an input is missing or unknown, or of another type or shape; the field names it.
    """
    known = {spec.name: spec for spec in specs}
    for name in inputs:
        if name not in known:
            raise InvalidInput(
                f"unexpected inference input {name!r} for model {model!r}; it takes {listed(known)}", field=name
            )
    if missing := [name for name in known if name not in inputs]:
        raise InvalidInput(
            f"expected {len(known)} inputs but got {len(inputs)} inputs for model {model!r}; missing are "
            f"{listed(missing)}",
            field=missing[0],
        )
    rows = 0
    for name, spec in known.items():
        tensor = inputs[name]
        if tensor.dtype != DTYPES[spec.dtype]:
            raise InvalidInput(
                f"inference input {name!r} data-type is {type_of(tensor.dtype)!r}, but model {model!r} expects "
                f"{spec.dtype!r}",
                field=name,
            )
        if not spec.takes(tensor.shape):
            raise InvalidInput(
                f"unexpected shape for input {name!r} for model {model!r}. Expected {sizes(spec.shape)}, got "
                f"{sizes(tensor.shape)}",
                field=name,
            )
        if not max_batch:
            continue
        if not 1 <= tensor.shape[0] <= max_batch:
            raise InvalidInput(
                f"inference request batch-size must be <= {max_batch} for {model!r}, and at least 1; it is "
                f"{tensor.shape[0]}",
                field=name,
            )
        if rows and tensor.shape[0] != rows:
            raise InvalidInput(
                f"input {name!r} batch size does not match other inputs for {model!r}: {tensor.shape[0]} rows, not "
                f"{rows}",
                field=name,
            )
        rows = tensor.shape[0]
    return rows or 1


def check_wanted(model: str, specs: Specs, wanted: Collection[str]) -> None:
    """Checks that the outputs that are asked for are there.

    Raises:
        InvalidInput: one is not.
    """
    if not wanted:
        return
    known = [spec.name for spec in specs]
    for name in wanted:
        if name not in known:
            raise InvalidInput(
                f"unexpected inference output {name!r} for model {model!r}; it gives {listed(known)}", field=name
            )


def check_step(model: str, step: SequenceStep | None, *, stateful: bool, rows: int) -> None:
    """Checks that a stateful model is asked for one row of a sequence, and another for none.

    Raises:
        InvalidInput: it is not so.
    """
    if not stateful:
        if step is not None:
            raise InvalidInput(
                f"model {model!r} keeps no state; leave the sequence out of the request", field="sequence_id"
            )
        return
    if step is None or not step.sequence_id:
        raise InvalidInput(
            f"inference request to model {model!r} must specify a non-zero or non-empty correlation ID",
            field="sequence_id",
        )
    if rows != 1:
        raise InvalidInput(
            f"inference request to model {model!r} has {rows} rows; a step of a sequence has one, so send one request "
            "for each sequence"
        )


def check_outputs(model: str, specs: Specs, outputs: Tensors, *, rows: int | None) -> None:
    """Checks what the model gave.

    Args:
        rows: how many each output must have; None where the model does not batch.

    Raises:
        EngineFailed: an output has another shape than the model says, or another number of rows.
    """
    for spec in specs:
        found = outputs[spec.name].shape
        if not spec.takes(found) or (rows is not None and found[0] != rows):
            expected = spec.shape if rows is None else (rows, *spec.shape[1:])
            advice = "" if rows is None else ", or set max_batch = 0 where its first size counts no rows"
            raise EngineFailed(
                f"output {spec.name!r} of model {model!r} has shape {sizes(found)} where {sizes(expected)} was "
                f"expected: correct the model{advice}"
            )


def type_of(dtype: object) -> str:
    """Our name of a NumPy type, or NumPy's where we have none."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype))


def sizes(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
