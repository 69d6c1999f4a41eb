"""The graph of a whole sequence from the graph of one step: an ONNX Scan over time with the step as its body."""

from __future__ import annotations

from typing import Any

__all__ = ["over_time"]


def over_time(step: bytes, width: int, dimensions: int) -> bytes:
    """x (n, t, d), w (n, t, 1), lengths (n,) int64 -> query (n, d) after the last event of each.

    Behind a row's length the state stays what it was, so n rows of any lengths run together; n and t are open. Tracing
    a loop would freeze t.

    Args:
        step: the ONNX model of a step, see folder.py.
        width: of its state. dimensions: of its query.

    Raises:
        ImportError: onnx is not installed.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, checker, helper, numpy_helper

    model = onnx.load_from_string(step)
    body = model.graph

    def numbers(name: str, values: list[int]) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def floats(name: str, *sizes: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sizes))

    # Inside: two states, h and the query of the step before, then what is scanned.
    inner = helper.make_graph(
        [
            *body.node,
            helper.make_node("Where", ["there", "h_next", "h"], ["h_kept"]),
            helper.make_node("Where", ["there", "query", "before"], ["query_kept"]),
        ],
        "event",
        [
            floats("h", "n", width),
            floats("before", "n", dimensions),
            floats("x", "n", dimensions),
            floats("w", "n", 1),
            helper.make_tensor_value_info("there", TensorProto.BOOL, ["n", 1]),
        ],
        [floats("h_kept", "n", width), floats("query_kept", "n", dimensions)],
        list(body.initializer),
    )
    # Inside of a graph no name may be one of outside: x, w and query are those that callers know.
    for name in ("h", "before", "x", "w", "there", "query"):
        renamed(inner, name, f"event_{name}")
    nodes = [
        helper.make_node("Shape", ["x"], ["n_of_x"], start=0, end=1),
        helper.make_node("Shape", ["x"], ["t_of_x"], start=1, end=2),
        helper.make_node("Squeeze", ["t_of_x"], ["t"]),
        helper.make_node("Range", ["zero", "t", "one"], ["times"]),
        helper.make_node("Unsqueeze", ["times", "axis_0"], ["times_row"]),
        helper.make_node("Unsqueeze", ["lengths", "axis_1"], ["lengths_column"]),
        helper.make_node("Less", ["times_row", "lengths_column"], ["within"]),
        helper.make_node("Unsqueeze", ["within", "axis_2"], ["theres"]),
        helper.make_node("Concat", ["n_of_x", "width"], ["h_shape"], axis=0),
        helper.make_node("Concat", ["n_of_x", "dimensions"], ["query_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["h_shape"], ["h_0"]),
        helper.make_node("ConstantOfShape", ["query_shape"], ["query_0"]),
        helper.make_node(
            "Scan",
            ["h_0", "query_0", "x", "w", "theres"],
            ["h_last", "query"],
            num_scan_inputs=3,
            scan_input_axes=[1, 1, 1],
            body=inner,
        ),
    ]
    scalars = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("zero", 0), ("one", 1))]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "session-sequence",
            [
                floats("x", "n", "t", dimensions),
                floats("w", "n", "t", 1),
                helper.make_tensor_value_info("lengths", TensorProto.INT64, ["n"]),
            ],
            [floats("query", "n", dimensions)],
            [
                *scalars,
                *(numbers(f"axis_{axis}", [axis]) for axis in (0, 1, 2)),
                numbers("width", [width]),
                numbers("dimensions", [dimensions]),
            ],
        ),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        producer_name="matchcut",
    )
    checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def renamed(graph: Any, old: str, new: str) -> None:
    """Gives a tensor another name everywhere in a graph."""
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [new if name == old else name for name in field]
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
