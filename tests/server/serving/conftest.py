"""Fixtures of the tests of served models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matchcut.server import oip
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.models import description, graph
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.served import Limits, Served
from support import onnx_models


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder of models."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(root: Path) -> Iterator[Callable[..., Served]]:
    """Loads a model with what its TOML says, as version 1 of the model m."""
    served: list[Served] = []

    def make(proto: Any, toml: str = "", limits: Limits | None = None, version: str = "1") -> Served:
        path = onnx_models.write(root / "m" / version, proto, toml=toml)
        engine = GraphEngine(graph.read(path), threads=1)
        said = description.of_version(path, root / "m", root)
        served.append(Served(engine, said, name="m", version=version, limits=limits or Limits(threads=1)))
        return served[-1]

    yield make
    for each in served:
        each.runner.close()


@pytest.fixture
def open_(root: Path) -> Iterator[Callable[..., FolderRepository]]:
    """Opens the folder of models as a repository."""
    opened: list[FolderRepository] = []

    def make(**options: Any) -> FolderRepository:
        opened.append(FolderRepository(root, limits=options.pop("limits", Limits(threads=1)), **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def triton(open_: Callable[..., FolderRepository]) -> Callable[..., FolderRepository]:
    """Opens the folder as a repository that reads config.pbtxt."""
    return lambda **options: open_(read=oip.read_config, **options)
