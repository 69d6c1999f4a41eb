"""A log of events of each kind, and events made up for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from matchcut.server.events import EventLog, open_log
from matchcut.server.records import Event, EventKind

NOW_US = 1_750_000_000_000_000


class Make(Protocol):
    def __call__(
        self, event_id: str, user: str = "ann", item: str = "a", kind: EventKind = EventKind.CLICK, at: int = 0
    ) -> Event: ...


@pytest.fixture
def make() -> Make:
    """Makes an event, so many microseconds after NOW_US."""

    def make(
        event_id: str, user: str = "ann", item: str = "a", kind: EventKind = EventKind.CLICK, at: int = 0
    ) -> Event:
        return Event(event_id, user, item, kind, NOW_US + at)

    return make


@pytest.fixture
def now_us() -> int:
    return NOW_US


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    """An empty one of each kind that keeps events for ever."""
    path = None if request.param == "memory" else tmp_path / "events.sqlite"
    with closing(open_log(path, days=0, clock_us=lambda: NOW_US)) as opened:
        yield opened
