"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips and photographs (build.sh fetches them)."""
    folder = ROOT / "build" / "media"
    if not (folder / "bikes.mp4").is_file():
        pytest.fail(f"{folder} is missing: run `./build.sh test`, or `python clients/demo/media.py build/media`")
    return folder
