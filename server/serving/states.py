"""What a sequence carries from step to step: by input, tensors that nobody may write to."""

from __future__ import annotations

import numpy as np

from matchcut.server.errors import EngineFailed
from matchcut.server.tensors import DTYPES, Tensor, TensorSpec

__all__ = ["States", "first", "own", "zeros"]

States = dict[str, Tensor]


def zeros(spec: TensorSpec, rows: bool) -> Tensor:
    """The state of a sequence that begins: one row of zeros, or empty text; nobody may write to it.

    Raises:
        ValueError: the shape is not known.
    """
    shape = (1, *spec.shape[1:]) if rows else spec.shape
    state = np.full(shape, b"", DTYPES["BYTES"]) if spec.dtype == "BYTES" else np.zeros(shape, DTYPES[spec.dtype])
    state.flags.writeable = False
    return state


def first(spec: TensorSpec, rows: bool, content: bytes) -> Tensor:
    """The same, of these raw elements.

    Raises:
        EngineFailed: they are more or fewer than the state has, or it is a text.
    """
    state = zeros(spec, rows)
    if spec.dtype == "BYTES":
        raise EngineFailed(f"state {spec.name!r} is a text, which begins empty: say zero_data", reason="MODEL_INVALID")
    if len(content) != state.nbytes:
        raise EngineFailed(
            f"state {spec.name!r} has {state.nbytes} bytes, but begins with a file of {len(content)}: correct the file",
            reason="MODEL_INVALID",
        )
    # A byte that is neither 0 nor 1 must not become a bool as it is.
    read = np.frombuffer(content, np.uint8) != 0 if spec.dtype == "BOOL" else np.frombuffer(content, state.dtype)
    read.flags.writeable = False
    return read.reshape(state.shape)


def own(states: States) -> States:
    """Copies that nobody else holds: rows taken out of a joint run would keep all of it in memory."""
    kept = {name: value.copy() for name, value in states.items()}
    for value in kept.values():
        value.flags.writeable = False
    return kept
