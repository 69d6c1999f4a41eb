"""A file that is to be the step of a GRU is checked by its signature, without an engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from matchcut.server.errors import EngineFailed
from matchcut.server.models import gru, temporal

SIZE = 8


def write(path: Path, inputs: dict[str, Any], output: tuple[str, Any], kind: int = TensorProto.FLOAT) -> Path:
    """A graph that adds its inputs, with shapes as they are given."""
    names = list(inputs)
    graph = helper.make_graph(
        [helper.make_node("Sum", names, [output[0]])],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output[0], kind, output[1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def test_what_is_written_here_is_taken_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # to import it would fail
    path = tmp_path / "gru.onnx"
    path.write_bytes(gru.write(gru.decaying_mean(SIZE, 3.0)))
    temporal.check(path, dimensions=SIZE)


@pytest.mark.parametrize("shape", [["n", SIZE], ["n", None], None])
def test_what_an_engine_infers_is_left_to_it(tmp_path: Path, shape: Any) -> None:
    path = write(tmp_path / "gru.onnx", {"x": ["n", SIZE], "h": ["n", SIZE]}, ("h_next", shape))
    temporal.check(path, dimensions=SIZE)


ROW = ["n", SIZE]


@pytest.mark.parametrize(
    ("inputs", "output", "kind", "said"),
    [
        ({"x": ROW, "h": ROW}, ("h_after", ROW), TensorProto.FLOAT, "outputs ['h_after']"),
        ({"h": ROW, "x": ROW}, ("h_next", ROW), TensorProto.FLOAT, "inputs ['h', 'x']"),
        ({"x": ROW}, ("h_next", ROW), TensorProto.FLOAT, "inputs ['x']"),
        ({"x": ROW, "h": ROW, "c": ROW}, ("h_next", ROW), TensorProto.FLOAT, "inputs ['x', 'h', 'c']"),
        ({"x": ["n", SIZE + 1], "h": ROW}, ("h_next", ROW), TensorProto.FLOAT, "x (n, 9)"),
        ({"x": ROW, "h": ["n", 1]}, ("h_next", ROW), TensorProto.FLOAT, "h (n, 1)"),
        ({"x": ROW, "h": [1, SIZE]}, ("h_next", ROW), TensorProto.FLOAT, "h (1, 8)"),
        ({"x": ROW, "h": None}, ("h_next", ROW), TensorProto.FLOAT, "h ()"),
        ({"x": ROW, "h": ROW}, ("h_next", ["n", 1]), TensorProto.FLOAT, "h_next (n, 1)"),
        ({"x": ROW, "h": ROW}, ("h_next", ROW), TensorProto.DOUBLE, "x (n, 8) of another type than float32"),
    ],
)
def test_what_is_something_else_is_refused_with_what_it_is(
    tmp_path: Path, inputs: dict[str, Any], output: tuple[str, Any], kind: int, said: str
) -> None:
    path = write(tmp_path / "gru.onnx", inputs, output, kind)
    with pytest.raises(EngineFailed, match=r"each \(n, 8\) in float32, n open: give --gru such a file") as caught:
        temporal.check(path, dimensions=SIZE)
    assert said in caught.value.message
    assert caught.value.reason == "MODEL_INVALID"


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"none\.onnx cannot be read"):
        temporal.check(tmp_path / "none.onnx", dimensions=SIZE)
    whole = gru.write(gru.decaying_mean(SIZE, 3.0))
    for content in (b"", b"no model", whole[: len(whole) // 2]):
        (tmp_path / "gru.onnx").write_bytes(content)
        with pytest.raises(EngineFailed, match=r"gru\.onnx cannot be read as ONNX"):
            temporal.check(tmp_path / "gru.onnx", dimensions=SIZE)
