"""Training needs torch, which is not installed where pip offers no build of it without CUDA (see build.sh)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import util
from pathlib import Path

import pytest

REASON = 'training needs torch, which is not installed: pip install "matchcut[train]"'
MISSING = [name for name in ("torch", "sklearn", "matplotlib", "onnx") if util.find_spec(name) is None]


class Skipped(pytest.Module):
    """A file of tests that cannot even be imported."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        pytest.skip(f"{REASON} ({', '.join(MISSING)})", allow_module_level=True)


class SkippedFolder(pytest.File):
    """A folder of them. A pytest.Directory would have its conftest.py imported, which may not be possible either."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        pytest.skip(f"{REASON} ({', '.join(MISSING)})", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skips the files of this folder where something is missing."""
    return Skipped.from_parent(parent, path=module_path) if MISSING else None


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Skips the folders below it likewise."""
    return SkippedFolder.from_parent(parent, path=path) if MISSING and path != Path(__file__).parent else None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The same sums in the same order on every machine, and no threads beside those of other tests."""
    if not MISSING:
        import torch

        torch.set_num_threads(1)
