"""A model repository of Triton's, as it is, driven by the standard client: what config.pbtxt says holds and is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from matchcut.server.app import App
from matchcut.server.config import Config
from support import onnx_models
from support.apart import Apart
from support.onnx_models import node

# As Triton's documentation has them: quick start, model configuration, implicit state management.
DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
    reshape { shape: [ 1, 3, 8, 8 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 3 ]
    reshape { shape: [ 1, 3, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
instance_group [ { count: 1 kind: KIND_GPU } ]
"""
SEQUENCE = """
name: "total"
backend: "onnxruntime"
max_batch_size: 8
default_model_filename: "sum.onnx"
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 16 }
  control_input [
    {
      name: "START"
      control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ]
    },
    {
      name: "READY"
      control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } ]
    },
    {
      name: "CORRID"
      control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ]
    }
  ]
  state [
    {
      input_name: "INPUT_STATE"
      output_name: "OUTPUT_STATE"
      data_type: TYPE_INT32
      dims: [ 1 ]
      initial_state: { name: "first" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true }
    }
  ]
}
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "WHO" data_type: TYPE_UINT64 dims: [ 1 ] } ]
model_warmup [ { name: "first" batch_size: 1 inputs { key: "INPUT" value: { data_type: TYPE_INT32 dims: 1 } } } ]
"""
PLAIN = """
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
version_policy: { specific { versions: [ 1, 3 ] } }
dynamic_batching { max_queue_delay_microseconds: 100 default_queue_policy { max_queue_size: 32 } }
"""


def classifier() -> Any:
    """The mean of each channel of one picture."""
    mean = node("ReduceMean", ["data_0"], ["fc6_1"], axes=[2, 3], keepdims=1)
    return onnx_models.model([mean], {"data_0": ("FP32", (1, 3, 8, 8))}, {"fc6_1": ("FP32", (1, 3, 1, 1))})


def accumulator() -> Any:
    """OUTPUT is INPUT and all before it, begun anew where START is set."""
    one = ("INT32", ("n", 1))
    nodes = [
        node("Sub", ["one", "START"], ["goes_on"]),
        node("Mul", ["INPUT_STATE", "goes_on"], ["before"]),
        node("Cast", ["READY"], ["ready"], to=onnx_models.KINDS["INT32"]),
        node("Mul", ["INPUT", "ready"], ["now"]),
        node("Add", ["before", "now"], ["OUTPUT_STATE"]),
        node("Identity", ["OUTPUT_STATE"], ["OUTPUT"]),
        node("Identity", ["CORRID"], ["WHO"]),
    ]
    inputs: dict[str, Any] = {"INPUT": one, "START": one, "INPUT_STATE": one, "READY": ("FP32", ("n", 1))}
    inputs["CORRID"] = ("UINT64", ("n", 1))
    outputs: dict[str, Any] = {"OUTPUT": one, "OUTPUT_STATE": one, "WHO": ("UINT64", ("n", 1))}
    return onnx_models.model(nodes, inputs, outputs, {"one": np.array([1], np.int32)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The repository; one model is of another backend, one is an ensemble, one is broken."""
    root = tmp_path / "models"
    onnx_models.write(root / "densenet_onnx" / "1", classifier())
    (root / "densenet_onnx" / "densenet_labels.txt").write_text("red\ngreen\nblue\n")
    onnx_models.write(root / "total" / "1", accumulator(), file="sum.onnx")
    for number in "123":
        onnx_models.write(root / "plain" / number, onnx_models.scale(float(number)))
    (root / "python" / "1").mkdir(parents=True)
    (root / "python" / "1" / "model.py").write_text("class TritonPythonModel: pass\n")
    (root / "all" / "1").mkdir(parents=True)
    onnx_models.write(root / "broken" / "1", onnx_models.scale())
    for name, config in {
        "densenet_onnx": DENSENET,
        "total": SEQUENCE,
        "plain": PLAIN,
        "python": 'backend: "python"',
        "all": 'platform: "ensemble" ensemble_scheduling { step [ { model_name: "plain" model_version: -1 } ] }',
        "broken": 'name: "broken"\nmax_batch_size: many\n',
    }.items():
        (root / name / "config.pbtxt").write_text(config)
    return root


@pytest_asyncio.fixture
async def there(config: Config, folder: Path) -> AsyncIterator[App]:
    """A server of that repository whose callers may load and unload."""
    async with App(replace(config, models=folder, model_control="explicit")) as app:
        yield app


async def test_each_model_is_ready_or_says_why_not(there: App, triton: Apart) -> None:
    index = (await triton.run("descriptions", there.address, "plain"))["index"]
    own = ("layout", "layout-media", "gru")
    found = {(one["name"], one.get("version", "")): one for one in index if one["name"] not in own}
    assert {key for key, one in found.items() if one["state"] == "READY"} == {
        *(("densenet_onnx", "1"), ("total", "1"), ("plain", "1"), ("plain", "3")),
    }
    advice = 'which is not here: export the model to ONNX and say backend: "onnxruntime", or leave this model to Triton'
    assert found["python", "1"]["reason"] == f"config.pbtxt: it wants the backend 'python', {advice}"
    assert found["all", "1"]["reason"].startswith("config.pbtxt: it is an ensemble, which is not here: have callers")
    assert found["broken", "1"]["reason"] == "config.pbtxt: line 2, column 17: Couldn't parse integer: many"
    assert found["plain", "2"]["reason"] == "only versions 1, 3 are served, as config.pbtxt says"
    told = await triton.run("call", there.address, "load_model", "python")
    assert told["status"] == "INTERNAL"
    assert advice in told["message"]


async def test_a_classifier_without_rows_and_with_labels(there: App, triton: Apart) -> None:
    told = await triton.run("descriptions", there.address, "densenet_onnx")
    config = told["config"]
    assert (config["name"], config["platform"], config["backend"]) == (
        "densenet_onnx",
        "onnxruntime_onnx",
        "onnxruntime",
    )
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["input"] == [
        {
            "name": "data_0",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NCHW",
            "dims": ["3", "8", "8"],
            "reshape": {"shape": ["1", "3", "8", "8"]},
        }
    ]
    assert config["output"] == [
        {
            "name": "fc6_1",
            "data_type": "TYPE_FP32",
            "dims": ["3"],
            "label_filename": "densenet_labels.txt",
            "reshape": {"shape": ["1", "3", "1", "1"]},
        }
    ]
    assert told["model"]["inputs"] == [{"name": "data_0", "datatype": "FP32", "shape": ["3", "8", "8"]}]
    picture = np.zeros((3, 8, 8), np.float32)
    picture[1], picture[2] = 0.75, 0.5
    plain = await triton.run("infer", there.address, "densenet_onnx", [("data_0", "FP32", picture)])
    np.testing.assert_array_equal(plain["outputs"]["fc6_1"], np.array([0, 0.75, 0.5], np.float32))
    best = await triton.run(
        "infer", there.address, "densenet_onnx", [("data_0", "FP32", picture)], outputs=[("fc6_1", 2)]
    )
    assert best["outputs"]["fc6_1"].tolist() == [b"0.750000:1:green", b"0.500000:2:blue"]


async def test_a_sequence_with_state_and_controls(there: App, triton: Apart) -> None:
    config = (await triton.run("descriptions", there.address, "total"))["config"]
    assert config["default_model_filename"] == "sum.onnx"
    assert config["max_batch_size"] == 8
    batching = config["sequence_batching"]
    assert batching["max_sequence_idle_microseconds"] == "5000000"
    assert [one["name"] for one in batching["control_input"]] == ["START", "READY", "CORRID"]
    assert batching["control_input"][0]["control"] == [{"int32_false_true": [0, 1]}]
    assert batching["control_input"][1]["control"] == [
        {"kind": "CONTROL_SEQUENCE_READY", "fp32_false_true": [0.0, 1.0]}
    ]
    assert batching["control_input"][2]["control"] == [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]
    assert batching["state"] == [
        {"input_name": "INPUT_STATE", "output_name": "OUTPUT_STATE", "data_type": "TYPE_INT32", "dims": ["1"]}
    ]
    steps = [
        (
            "total",
            [("INPUT", "INT32", np.array([[10 * sequence + number]], np.int32))],
            {"sequence_id": sequence, "sequence_start": number == 1, "sequence_end": number == 3},
        )
        for number in (1, 2, 3)
        for sequence in (7, 8)
    ]
    told = await triton.run("stream", there.address, steps)
    for sequence, sums in ((7, [71, 143, 216]), (8, [81, 163, 246])):
        own = [one["outputs"] for one in told if one["outputs"]["WHO"][0, 0] == sequence]
        assert [int(one["OUTPUT"][0, 0]) for one in own] == sums
    (gone,) = await triton.run("stream", there.address, [("total", steps[0][1], {"sequence_id": 7})])
    assert "START" in gone["message"]


async def test_rows_versions_and_a_queue(there: App, triton: Apart, folder: Path) -> None:
    config = (await triton.run("descriptions", there.address, "plain"))["config"]
    assert config["version_policy"] == {"specific": {"versions": ["1", "3"]}}
    assert config["dynamic_batching"] == {"default_queue_policy": {"max_queue_size": 32}}
    assert config["max_batch_size"] == 4
    rows = [("x", "FP32", np.ones((4, 3), np.float32))]
    for version, factor in (("", 3), ("1", 1), ("3", 3)):
        answer = await triton.run("infer", there.address, "plain", rows, model_version=version)
        assert answer["outputs"]["y"][3, 0] == factor
    refused = await triton.run("infer", there.address, "plain", rows, model_version="2")
    assert refused["status"] == "UNAVAILABLE"
    many = await triton.run("infer", there.address, "plain", [("x", "FP32", np.ones((5, 3), np.float32))])
    assert many["status"] == "INVALID_ARGUMENT"
    assert "batch-size must be <= 4" in many["message"]


async def test_a_broken_config_replaces_nothing_and_a_good_one_does(there: App, triton: Apart, folder: Path) -> None:
    path, rows = folder / "plain" / "config.pbtxt", [("x", "FP32", np.ones((1, 3), np.float32))]
    path.write_text(PLAIN.replace("TYPE_FP32", "TYPE_FP64"))
    told = await triton.run("call", there.address, "load_model", "plain")
    assert told["status"] == "INTERNAL"
    assert "input 'x' is TYPE_FP64, but TYPE_FP32 in the graph" in told["message"]
    assert (await triton.run("infer", there.address, "plain", rows))["outputs"]["y"][0, 0] == 3
    path.write_text(PLAIN.replace("[ 1, 3 ]", "[ 2 ]"))
    assert await triton.run("call", there.address, "load_model", "plain") is None
    assert (await triton.run("infer", there.address, "plain", rows))["outputs"]["y"][0, 0] == 2
    config = (await triton.run("descriptions", there.address, "plain"))["config"]
    assert config["version_policy"] == {"specific": {"versions": ["2"]}}
