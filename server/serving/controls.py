"""The inputs that tell a graph where in its sequence a step is, filled by the server."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.declared import Control, Signal
from matchcut.server.tensors import DTYPES, Tensor, TensorSpec

__all__ = ["filled"]


def filled(controls: Collection[tuple[Control, TensorSpec]], step: SequenceStep) -> dict[str, Tensor]:
    """These inputs for one step; each has a single value, since a step has one row.

    Of a sequence's number the lower bits are given where the type has fewer, as Triton does it.

    Raises:
        InvalidInput: the graph takes numbers of sequences, and this one has a name.
    """
    return {spec.name: one(value(control, step), spec) for control, spec in controls}


def value(control: Control, step: SequenceStep) -> float | int | bytes:
    """What a step tells the graph."""
    if control.signal is Signal.CORRID:
        return identity(control, step.sequence_id)
    # A step that is run is ready: rows of sequences that have none are not in the run at all.
    true = {Signal.START: step.start, Signal.END: step.end, Signal.READY: True}[control.signal]
    return control.on if true else control.off


def identity(control: Control, sequence: int | str) -> int | bytes:
    """A sequence's id in the control's type."""
    if control.dtype == "BYTES":
        return str(sequence).encode()
    if isinstance(sequence, str):
        raise InvalidInput(
            f"the model takes numbers of sequences as {control.dtype}; give a number, not {sequence!r}",
            field="sequence_id",
        )
    bits = 8 * DTYPES[control.dtype].itemsize
    lower = sequence & ((1 << bits) - 1)
    signed = control.dtype.startswith("INT")
    return lower - (1 << bits) if signed and lower >> (bits - 1) else lower


def one(found: float | int | bytes, spec: TensorSpec) -> Tensor:
    """A tensor of one element; open sizes are 1."""
    made = np.empty(tuple(1 for _ in spec.shape), DTYPES[spec.dtype])
    made.fill(found)
    return made
