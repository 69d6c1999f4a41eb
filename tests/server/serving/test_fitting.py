"""What config.pbtxt says of sizes narrows what the graph leaves open, and contradicts nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import EngineFailed
from matchcut.server.serving import Declared, DeclaredTensor
from matchcut.server.serving.fitting import fit
from matchcut.server.tensors import TensorSpec

SIZES = st.lists(st.sampled_from([-1, 1, 2]), min_size=1, max_size=3).map(tuple)


@given(SIZES, SIZES, st.booleans(), st.lists(st.lists(st.integers(1, 3), max_size=4), max_size=8))
def test_what_is_left_is_what_both_take(
    graph: tuple[int, ...], said: tuple[int, ...], batches: bool, shapes: list[list[int]]
) -> None:
    rows = (-1,) if batches else ()
    spec, y = TensorSpec("x", "FP32", (*rows, *graph)), TensorSpec("y", "FP32", (*rows, 1))
    given_sizes = DeclaredTensor("x", "FP32", said), DeclaredTensor("y", "FP32", (1,))
    declared = Declared(max_batch=2 if batches else 0, inputs=given_sizes[:1], outputs=given_sizes[1:])
    fits = len(graph) == len(said) and all(there in (-1, one) for there, one in zip(graph, said, strict=True))
    if not fits:
        with pytest.raises(EngineFailed, match="has the dims"):
            fit((spec,), (y,), declared)
        return
    found = fit((spec,), (y,), declared)
    (left,) = found.inputs
    assert found.asked == found.inputs
    assert found.max_batch == (2 if batches else 0)
    for shape in [tuple(shape) for shape in shapes]:
        both = spec.takes(shape) and TensorSpec("x", "FP32", (*rows, *said)).takes(shape)
        assert left.takes(shape) == both
