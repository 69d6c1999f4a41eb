"""What config.pbtxt says of sizes narrows what the graph leaves open, and contradicts nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import EngineFailed
from matchcut.server.serving import Declared, DeclaredTensor
from matchcut.server.serving.fitting import fit, resized
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


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 12]), st.integers(0, 5)), min_size=1, max_size=4), st.data())
def test_open_sizes_go_from_one_row_to_the_other(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    """Rows of the same elements between open sizes; all but the last part end with an open size."""

    def row() -> tuple[int, ...]:
        found = list[int]()
        for count, _ in parts:
            one = data.draw(st.sampled_from([each for each in (1, 2, 4, count) if count % each == 0]))
            found += [one, count // one, -1]
        return tuple(found[:-1])

    here, there = row(), row()
    sizes = iter([size for _, size in parts])
    shape = tuple(next(sizes) if size == -1 else size for size in here)
    x, y = TensorSpec("x", "FP32", (-1, *there)), TensorSpec("y", "FP32", (-1, 1))
    said = Declared(max_batch=2, inputs=(DeclaredTensor("x", "FP32", here, reshape=there),))
    assert fit((x,), (y,), said).asked == (TensorSpec("x", "FP32", (-1, *here)),)
    made = resized(shape, here, there)
    assert TensorSpec("x", "FP32", there).takes(made)
    assert math.prod(made) == math.prod(shape)
    assert resized(made, there, here) == shape
    other = DeclaredTensor("x", "FP32", (*here, 3), reshape=there)
    with pytest.raises(EngineFailed, match="they must have as many elements"):
        fit((x,), (y,), Declared(max_batch=2, inputs=(other,)))
