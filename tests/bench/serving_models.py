"""The models that the serving benchmark is run with, and the folders in which each server looks for them.

All are small graphs, so that what is measured is the serving; the very same files lie behind every server.

- *frame*: x (n, 3, 224, 224) float32, 602,112 bytes, to its channels' means times a matrix, (n, 16).
- *step*: a GRU step, x (n, 128) float32, 512 bytes, and the state h; plain products, as engines like them.
- *held*, *held-default*: the same, for what happens to sequences whose caller is lost.
- *slow*: x (1, 512) to y (1, 512) by as many products as take about SLOW seconds here; it takes one request at a time.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FRAME, STEP, SLOW_MODEL = "frame", "step", "slow"
HELD = {"held": 5.0, "held-default": 1.0}  # seconds after which idle sequences end; the second is Triton's default
LIGHT = "light"  # the name of the encoder, which is the graph of "frame"
WIDTH = 224
OUTPUTS = 16
HIDDEN = 128
SIDE = 512
SLOW = 0.2  # seconds of a run of "slow"
MOST = 8  # rows of one run
IDLE = 120.0  # seconds after which an idle sequence is forgotten: longer than servers have to wait for their turns
OPSET = 17
ENCODER = """\
name = "light"
version = "1"
dimensions = 16

[input]
width = 224
height = 224
layout = "NCHW"
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
"""


def build(folder: Path) -> None:
    """Makes the graphs and the folders `ours`, `triton` and `mlserver`, and the encoder `light/encoder.onnx`."""
    graphs = {FRAME: frame(0), STEP: step(), SLOW_MODEL: slow(folder)}
    for name, graph in graphs.items():
        put(folder / "ours" / name / "1", graph)
        put(folder / "triton" / name / "1", graph)
    for name, idle in {STEP: IDLE, **HELD}.items():
        for server in ("ours", "triton"):
            put(folder / server / name / "1", graphs[STEP])
        told = f'max_batch = {MOST}\n\n[sequence]\nstates = {{ h = "h_next" }}\nidle_timeout = {idle:g}\n'
        (folder / "ours" / name / "model.toml").write_text(told)
        (folder / "triton" / name / "config.pbtxt").write_text(triton_step(name, idle))
    (folder / "ours" / FRAME / "model.toml").write_text(f"max_batch = {MOST}\nkeep = 1\n")
    (folder / "ours" / SLOW_MODEL / "model.toml").write_text("max_batch = 0\n")
    (folder / "triton" / FRAME / "config.pbtxt").write_text(triton_frame())
    (folder / "triton" / SLOW_MODEL / "config.pbtxt").write_text(triton_slow())
    for model in (folder / "triton").glob("*/1"):
        shutil.copy(Path(__file__).parent / "peers" / "triton_model.py", model / "model.py")
    mlserver(folder / "mlserver", graphs[FRAME])
    light = folder / "light"
    put(light, graphs[FRAME], "encoder.onnx")
    (light / "encoder.toml").write_text(ENCODER)


def next_version(repository: Path, number: int) -> None:
    """Puts one more version of "frame" into a repository, whole at once: other weights, the same shapes."""
    model, made = repository / FRAME, repository / f".{number}"
    shutil.copytree(model / "1", made)
    put(made, frame(number))
    made.rename(model / str(number))


def put(folder: Path, graph: Any, name: str = "model.onnx") -> None:
    """Writes a graph's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(graph.SerializeToString())


def model(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: dict[str, Any]) -> Any:
    """A graph of float32 tensors."""
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def frame(seed: int) -> Any:
    """The light encoder."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W", "b"], ["y"]),
    ]
    weights = {"W": random.normal(size=(3, OUTPUTS)), "b": random.normal(size=OUTPUTS)}
    return model(nodes, {"x": ["n", 3, WIDTH, WIDTH]}, {"y": ["n", OUTPUTS]}, weights)


def step() -> Any:
    """A GRU step with y = h_next, since a state is not given to the caller."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gemm", ["x", "Wx", "bx"], ["gx"], transB=1),
        helper.make_node("Gemm", ["h", "Wh", "bh"], ["gh"], transB=1),
        helper.make_node("Split", ["gx"], ["xr", "xz", "xn"], axis=1),
        helper.make_node("Split", ["gh"], ["hr", "hz", "hn"], axis=1),
        helper.make_node("Add", ["xr", "hr"], ["sr"]),
        helper.make_node("Sigmoid", ["sr"], ["r"]),
        helper.make_node("Add", ["xz", "hz"], ["sz"]),
        helper.make_node("Sigmoid", ["sz"], ["z"]),
        helper.make_node("Mul", ["r", "hn"], ["gated"]),
        helper.make_node("Add", ["xn", "gated"], ["sn"]),
        helper.make_node("Tanh", ["sn"], ["candidate"]),
        helper.make_node("Sub", ["h", "candidate"], ["difference"]),
        helper.make_node("Mul", ["z", "difference"], ["kept"]),
        helper.make_node("Add", ["candidate", "kept"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["y"]),
    ]
    weights = {f"W{one}": random.normal(size=(3 * HIDDEN, HIDDEN)) * 0.1 for one in "xh"}
    weights |= {f"b{one}": random.normal(size=3 * HIDDEN) * 0.1 for one in "xh"}
    row = ["n", HIDDEN]
    return model(nodes, {"x": row, "h": row}, {"y": row, "h_next": row}, weights)


def slow(folder: Path) -> Any:
    """Products of a matrix, as many as take SLOW seconds on this machine now."""
    count = 8
    for _ in range(3):
        graph = products(count)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            session.run(None, {"x": np.ones((1, SIDE), np.float32)})
            taken.append(time.perf_counter() - began)
        count = max(1, round(count * SLOW / min(taken)))
    return products(count)


def products(count: int) -> Any:
    """Multiplies by a rotation so often, which keeps the numbers what they are in size."""
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(SIDE, SIDE)))[0]
    nodes = [helper.make_node("Mul", ["W", "x"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{at}", "W"], [f"m{at + 1}"]) for at in range(count)]
    nodes += [helper.make_node("ReduceMean", [f"m{count}"], ["y"], axes=[0], keepdims=1)]
    return model(nodes, {"x": [1, SIDE]}, {"y": [1, SIDE]}, {"W": turned})


def triton_config(name: str, rows: int, x: list[int], y: list[int]) -> str:
    """The part of a configuration that all have: one worker on the CPU, only the latest version."""
    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: {rows}\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: {x} }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: {y} }} ]\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\nversion_policy { latest { num_versions: 1 } }\n"
    )


def triton_frame() -> str:
    """Requests are joined where they wait; none is made to wait."""
    return triton_config(FRAME, MOST, [3, WIDTH, WIDTH], [OUTPUTS]) + "dynamic_batching { }\n"


def triton_step(name: str, idle: float) -> str:
    """Sequences, as many at once as the model has places: one for each row."""
    return triton_config(name, 1, [HIDDEN], [HIDDEN]) + (
        f"sequence_batching {{ max_sequence_idle_microseconds: {round(idle * 1e6)} direct {{ }} }}\n"
    )


def triton_slow() -> str:
    """One request at a time; with a dynamic batcher, since without one Triton runs what was cancelled in its queue."""
    return triton_config(SLOW_MODEL, 1, [SIDE], [SIDE]) + "dynamic_batching { }\n"


def mlserver(folder: Path, graph: Any) -> None:
    """MLServer's settings: in one process, which is its fastest for one model; batches where requests come at once."""
    put(folder / FRAME, graph)
    shutil.copy(Path(__file__).parent / "peers" / "mlserver_model.py", folder / FRAME / "mlserver_model.py")
    settings = {
        "name": FRAME,
        "implementation": "mlserver_model.Graph",
        "parameters": {"uri": str((folder / FRAME / "model.onnx").resolve())},
    }
    (folder / FRAME / "model-settings.json").write_text(json.dumps(settings))
