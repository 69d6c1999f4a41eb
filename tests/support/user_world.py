"""A small world: a catalogue, a log, a session model that looks at both, and what is known of users."""

from __future__ import annotations

import numpy as np

from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.events.contract import EventLog
from matchcut.server.records import EncoderIdentity, Event, EventKind, Floats, Item, Segment, TimeRange
from matchcut.server.session import DecayingMean, SessionModel
from matchcut.server.users import Galleries, Users
from support.fake_log import FakeLog

DIMENSIONS = 6
ENCODER = EncoderIdentity("tiny", "1", "d1", DIMENSIONS)
SECONDS = 20  # more than anything here takes


def vector(item_id: str, seed: int = 0) -> Floats:
    """(6,) of unit length."""
    made = np.random.default_rng([seed, *item_id.encode()]).standard_normal(DIMENSIONS).astype(np.float32)
    direction: Floats = made / np.linalg.norm(made)
    return direction


def event(
    event_id: str,
    item_id: str,
    time_us: int,
    kind: EventKind = EventKind.LIKE,
    *,
    user_id: str = "u",
    weight: float = 1.0,
) -> Event:
    return Event(event_id, user_id, item_id, kind, time_us, weight=weight)


class World:
    """What the server would have.

    time_us: what the clock says.
    """

    def __init__(self, log: EventLog | None = None) -> None:
        self.time_us = 1000
        self.catalog: Catalog = open_catalog(None)
        self.log = log or FakeLog()
        self._galleries: list[Galleries] = []
        self._users: list[Users] = []

    def put(self, item_id: str, seed: int = 0, *, tenant: str = "", tags: tuple[str, ...] = ()) -> None:
        """Puts an item in; another seed is other content. Galleries are told, but may take a moment."""
        segments = [Segment(TimeRange(0, 10), vector(item_id, seed))]
        self.catalog.put(tenant, Item(item_id, tags=tags, duration_us=10), segments, ENCODER, b"%d" % seed)

    def galleries(self, model: SessionModel | None = None, *, unheard_us: int = 0) -> Galleries:
        """Galleries over the catalogue, filled."""
        made = Galleries(
            self.catalog,
            self.log,
            model or DecayingMean(ENCODER),
            clock_us=lambda: self.time_us,
            unheard_us=unheard_us,
        )
        self._galleries.append(made)
        assert made.wait_ready(SECONDS)
        return made

    def users(self, galleries: Galleries | None = None, *, cache_bytes: int = 1 << 30, ring: int = 50) -> Users:
        """Users of this log, as a server that has just started knows them."""
        made = Users(self.log, galleries or self.galleries(), cache_bytes=cache_bytes, ring=ring)
        self._users.append(made)
        return made

    def settle(self) -> None:
        """Waits until all galleries have what the catalogue has."""
        for each in self._galleries:
            assert each.wait(SECONDS)

    def close(self) -> None:
        for users in self._users:
            users.close()
        for each in self._galleries:
            each.close()
        self.catalog.close()
        self.log.close()
