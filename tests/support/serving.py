"""Folders of models for tests, what they answer, and an engine that can be held."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.server.batcher import Batcher, Quiet
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed
from matchcut.server.feed import Caller
from matchcut.server.serving import Model, ModelState, Repository, SequenceStep
from matchcut.server.tensors import Tensors
from support import onnx_models

STATES = '[sequence]\nstates = { total_in = "total_out" }\n'


def put(root: Path, version: str, factor: float = 1.0, name: str = "m", toml: str = "") -> Path:
    """Writes a version that multiplies (n, 3) by the factor."""
    return onnx_models.write(root / name / version, onnx_models.scale(factor), toml=toml)


def put_sum(root: Path, version: str, factor: float) -> Path:
    """Writes a version with a state: the sum of (n, 2), times the factor."""
    return onnx_models.write(root / "m" / version, onnx_models.running_sum(factor=factor), toml=STATES)


def say(root: Path, config: str | bytes, name: str = "m") -> None:
    """Writes a model's config.pbtxt."""
    (root / name).mkdir(exist_ok=True)
    (root / name / "config.pbtxt").write_bytes(config if isinstance(config, bytes) else config.encode())


def ask(repository: Repository, name: str = "m", version: str = "") -> float:
    """What a model of put() makes of 1: its factor."""
    return times(repository.model(name, version))


def times(model: Model) -> float:
    """The same of a model that is held."""
    answer = model.infer({"x": np.ones((1, 3), np.float32)}, caller=Caller())
    return float(answer.outputs["y"][0, 0])


def add(model: Model, step: SequenceStep | None, value: Any = 1.0) -> float:
    """One step of a model of put_sum(): the sum so far."""
    x = np.broadcast_to(np.asarray(value, np.float32), (1, 2))
    first, second = model.infer({"x": x}, caller=Caller(), step=step).outputs["y"][0].tolist()
    assert first == second or first != first
    return float(first)


def states(repository: Repository) -> dict[tuple[str, str], ModelState]:
    """The index' states by model and version."""
    return {(entry.name, entry.version): entry.state for entry in repository.index()}


def reasons(repository: Repository, name: str = "m") -> dict[str, str]:
    """The index' reasons of a model, by version."""
    return {entry.version: entry.reason for entry in repository.index() if entry.name == name}


def until(true: Callable[[], bool]) -> None:
    """Waits for another thread; the run's own time limit ends it where that never comes."""
    pause = threading.Event()
    while not true():
        pause.wait(0.002)


def join_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets as many rows run together as may, whatever this machine finds worth it."""
    monkeypatch.setattr(Batcher, "tune", lambda batcher, _: batcher.most)


class Gate:
    """Holds all runs of engines until it is opened, and says when one is held.

    sizes: rows of each run. fail: whether runs fail.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.opened = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.fail = False
        honest = GraphEngine.run

        def run(engine: GraphEngine, inputs: Tensors) -> Any:
            self.sizes.append(len(next(iter(inputs.values()))))
            self.held.set()
            assert self.opened.wait(60)
            if self.fail:
                raise EngineFailed("the engine is broken")
            return honest(engine, inputs)

        monkeypatch.setattr(GraphEngine, "run", run)


class Waiting(Quiet):
    """Says when so many rows wait that do not run yet."""

    def __init__(self, rows: int) -> None:
        self.wanted = rows
        self.reached = threading.Event()

    def queued(self, model: str, rows: int) -> None:
        assert model == "m/1"
        if rows >= self.wanted:
            self.reached.set()
