"""The highest values of an output as text, for callers who want classes and not numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.tensors import Tensor

__all__ = ["top"]

WITHOUT = ("BYTES", "BOOL", "BF16")  # types that have no order, or none that NumPy knows


def top(output: Tensor, dtype: str, count: int, *, labels: Sequence[str], batched: bool) -> Tensor:
    """The `count` highest values, of each row where the output is batched, as BYTES "value:index[:label]".

    The highest first, of equal ones that of the lower index, NaN last; values of floating point have six decimals, as
    Triton writes them.

    Args:
        output: of any shape; a row's indices count its elements in order.
        labels: by index; () where there are none. An empty one is left out.

    Returns (rows, k) or (k,), with k the lower of count and the elements there are.

    Raises:
        InvalidInput: the type has no order.
    """
    if dtype in WITHOUT:
        raise InvalidInput(f"class result not available for output due to unsupported type '{dtype}'")
    row_shape = output.shape[1:] if batched else output.shape
    rows = output.reshape(len(output) if batched else 1, math.prod(row_shape))
    kept = min(count, rows.shape[1])
    texts = np.empty((len(rows), kept), np.object_)
    for text, row in zip(texts, rows, strict=True):
        text[:] = [_text(row[index], int(index), labels) for index in descending(row)[:kept]]
    return texts if batched else texts[0]


def descending(row: Tensor) -> NDArray[np.intp]:
    """Indices by value, the highest first; of equal ones the lower index first; NaN last."""
    values = np.where(np.isnan(row), -np.inf, row) if np.issubdtype(row.dtype, np.floating) else row
    turned = np.argsort(values[::-1], kind="stable")[::-1]  # not of -values, which unsigned numbers do not have
    return len(row) - 1 - turned


def _text(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:f}" if isinstance(value, np.floating) else f"{value}"
    label = labels[index] if index < len(labels) else ""
    return f"{number}:{index}:{label}".encode() if label else f"{number}:{index}".encode()
