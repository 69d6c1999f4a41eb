"""Models of a folder, driven by the standard client: loaded, replaced, unloaded, and sequences with their states."""

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

ONES = [("x", "FP32", np.ones((2, 3), np.float32))]
SUM = '[sequence]\nstates = { total_in = "total_out" }\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models: one that doubles, one that sums, one that is broken."""
    root = tmp_path / "models"
    onnx_models.write(root / "double" / "1", onnx_models.scale(2.0))
    onnx_models.write(root / "total" / "1", onnx_models.running_sum(), toml=SUM)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    return root


@pytest_asyncio.fixture
async def there(config: Config, folder: Path) -> AsyncIterator[App]:
    """A server of that folder whose callers may load and unload."""
    async with App(replace(config, models=folder, model_control="explicit")) as app:
        yield app


def step(value: float, sequence: int, **flags: bool) -> tuple[str, Any, Any]:
    options = {"sequence_id": sequence, "request_id": str(sequence), **flags}
    return "total", [("x", "FP32", np.full((1, 2), value, np.float32))], options


async def factor(triton: Apart, app: App, version: str = "") -> float:
    """By what the model multiplies now."""
    answer = await triton.run("infer", app.address, "double", ONES, model_version=version)
    return float(answer["outputs"]["y"][0, 0])


async def test_the_folder_s_models_stand_beside_the_encoder(there: App, triton: Apart) -> None:
    told = await triton.run("descriptions", there.address, "total")
    states = {entry["name"]: entry["state"] for entry in told["index"]}
    assert states == {
        **dict.fromkeys(("layout", "layout-media", "gru", "double", "total"), "READY"),
        "broken": "UNAVAILABLE",
    }
    assert "sequence_batching" in told["config"]
    assert [one["name"] for one in told["model"]["inputs"]] == ["x"], "the state is the server's own"
    assert await factor(triton, there) == 2


async def test_a_new_version_takes_over_and_old_ones_can_be_named(there: App, triton: Apart, folder: Path) -> None:
    onnx_models.write(folder / "double" / "2", onnx_models.scale(3.0))
    assert await factor(triton, there) == 2
    assert await triton.run("call", there.address, "load_model", "double") is None
    assert [await factor(triton, there, version) for version in ("", "1", "2")] == [3, 2, 3]
    onnx_models.write(folder / "double" / "3", onnx_models.scale(4.0)).write_bytes(b"no model")
    told = await triton.run("call", there.address, "load_model", "double")
    assert told["status"] == "INTERNAL"
    assert await factor(triton, there) == 3, "what is broken replaces nothing"
    (third,) = [
        entry
        for entry in (await triton.run("descriptions", there.address, "double"))["index"]
        if (entry["name"], entry["version"]) == ("double", "3")
    ]
    assert third["state"] == "UNAVAILABLE"
    assert third["reason"]


async def test_a_model_that_is_unloaded_is_unavailable(there: App, triton: Apart) -> None:
    assert await triton.run("call", there.address, "unload_model", "double") is None
    told = await triton.run("infer", there.address, "double", ONES)
    assert told["status"] == "UNAVAILABLE"
    assert await triton.run("call", there.address, "is_model_ready", "double") is False
    assert await triton.run("call", there.address, "load_model", "double") is None
    assert await factor(triton, there) == 2


async def test_sequences_keep_their_states_apart(there: App, triton: Apart) -> None:
    steps = [
        step(number, sequence, sequence_start=number == 1, sequence_end=number == 4)
        for number in range(1, 5)
        for sequence in (1, 2, 3)
    ]
    told = await triton.run("stream", there.address, steps)
    for sequence in "123":
        assert [float(one["outputs"]["y"][0, 0]) for one in told if one["id"] == sequence] == [1, 3, 6, 10]
    (gone,) = await triton.run("stream", there.address, [step(1, 1)])
    assert "START" in gone["message"]


async def test_a_state_of_no_number_poisons_its_own_sequence_only(there: App, triton: Apart) -> None:
    steps = [
        step(1, 1, sequence_start=True),
        step(float("nan"), 2, sequence_start=True),
        *(step(1, sequence) for _ in range(3) for sequence in (1, 2)),
        step(5, 2, sequence_start=True),
    ]
    told = await triton.run("stream", there.address, steps)
    assert [float(one["outputs"]["y"][0, 0]) for one in told if one["id"] == "1"] == [1, 2, 3, 4]
    poisoned = [float(one["outputs"]["y"][0, 0]) for one in told if one["id"] == "2"]
    assert np.isnan(poisoned[:4]).all()
    assert poisoned[4] == 5, "a start forgets what was"


async def test_the_server_s_own_gru_steps_a_sequence(there: App, triton: Apart) -> None:
    """Whatever comes in, after many steps of the same its state points there."""
    told = await triton.run("descriptions", there.address, "gru")
    assert "sequence_batching" in told["config"]
    size = int(told["model"]["inputs"][0]["shape"][1])
    vectors = np.eye(2, size, dtype=np.float32)
    shown = [0] * 3 + [1] * 40
    steps = [
        ("gru", [("x", "FP32", vectors[at : at + 1])], {"sequence_id": 5, "sequence_start": not number})
        for number, at in enumerate(shown)
    ]
    answers = [one["outputs"]["h_next"][0] for one in await triton.run("stream", there.address, steps)]
    assert answers[2][0] > 0.01
    assert answers[2][1] == 0
    assert answers[-1][1] > 20 * answers[-1][0] > 0


async def test_a_sequence_goes_on_while_its_model_is_replaced(there: App, triton: Apart, folder: Path) -> None:
    (first,) = await triton.run("infer_each", there.address, [step(1, 9, sequence_start=True)])
    assert first["outputs"]["y"][0, 0] == 1
    onnx_models.write(folder / "total" / "2", onnx_models.running_sum(factor=10.0), toml=SUM)
    assert await triton.run("call", there.address, "load_model", "total") is None
    told = await triton.run("stream", there.address, [step(1, 9, sequence_start=True), step(1, 9)])
    assert [float(one["outputs"]["y"][0, 0]) for one in told] == [10, 20]


async def test_rows_are_counted_as_they_ran(there: App, triton: Apart) -> None:
    requests = [[("x", "FP32", np.full((2, 3), number, np.float32))] for number in range(10)]
    answers = await triton.run("infer_aio", there.address, "double", requests)
    assert [answer["outputs"]["y"][1, 2] for answer in answers] == [2.0 * number for number in range(10)]
    (counted,) = (await triton.run("descriptions", there.address, "double"))["statistics"]
    assert counted["inference_count"] == "20"
    runs = {int(one["batch_size"]): int(one["compute_infer"]["count"]) for one in counted["batch_stats"]}
    assert sum(size * count for size, count in runs.items()) == 20
    assert sum(runs.values()) == int(counted["execution_count"])
