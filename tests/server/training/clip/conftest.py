"""One real training, which the tests of this folder share: it takes about 25 s of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from matchcut.server.training.progress import Bar, bar

if TYPE_CHECKING:
    from matchcut.server.training.clip.run import Trained


@pytest.fixture
def silent() -> Iterator[Bar]:
    """A bar that says nothing."""
    with bar(silent=True) as made:
        yield made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A GRU and a mean that were trained on drifting digits, and the models that came of it."""
    from matchcut.server.training.clip.run import Options, train

    with bar(silent=True) as quiet:
        return train(Options("digits", tmp_path_factory.mktemp("clip") / "models", clips=110, threads=1), quiet)


@pytest.fixture(scope="session")
def models(trained: Trained) -> Path:
    """The folder of models."""
    return trained.placed["step"].parents[1]
