"""Tests of the launcher, and of what is built on it, on the simulated driver.

They get a process of their own, as a process with that driver has a GPU: `pytest tests/kernels/cuda` runs them, also
one file or test of them, and in a run of more than this folder tests/kernels/test_cuda.py does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # not for a run of more than this folder, which only asks below what to leave out
    from cuda_sim.simulation import Simulation

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True: left out."""
    asked = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    return None if all(path.is_relative_to(HERE) for path in asked) else True


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    """The simulated driver, as after a start; a test has to close what it opens."""
    from cuda_sim.simulation import load

    simulation = load()
    simulation.reset()
    yield simulation
    simulation.reset()
