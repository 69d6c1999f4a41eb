"""What a sequence carries from step to step: by input, tensors that nobody may write to."""

from __future__ import annotations

import numpy as np

from matchcut.server.tensors import DTYPES, Tensor, TensorSpec

__all__ = ["States", "own", "zeros"]

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


def own(states: States) -> States:
    """Copies that nobody else holds: rows taken out of a joint run would keep all of it in memory."""
    kept = {name: value.copy() for name, value in states.items()}
    for value in kept.values():
        value.flags.writeable = False
    return kept
