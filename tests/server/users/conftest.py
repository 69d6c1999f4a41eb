"""An empty catalogue and log, and users who are nobody yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matchcut.server.events import open_log
from matchcut.server.records import Floats
from support.user_crowd import ITEMS
from support.user_world import World, vector


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty one, with a log in a dict and with the real one."""
    made = World(open_log(None, days=0) if request.param == "real" else None)
    yield made
    made.close()


@pytest.fixture
def faked() -> Iterator[World]:
    """An empty one with a log that does what the test says."""
    made = World()
    yield made
    made.close()


@pytest.fixture
def items(world: World) -> dict[str, Floats]:
    """Six items that are there, and their content."""
    for item_id in ITEMS:
        world.put(item_id)
    return {item_id: vector(item_id) for item_id in ITEMS}
