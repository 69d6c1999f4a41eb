"""Many users at once."""

from __future__ import annotations

from matchcut.server.records import Floats
from matchcut.server.session import DecayingMean
from matchcut.server.users import Users
from support.user_model import assert_same, expected
from support.user_world import World, event

ITEMS = "abcdef"


def fill(users: Users, count: int, events: int = 5) -> None:
    """Gives so many users so many events each, of ITEMS, and recalls each."""
    for number in range(count):
        its = [event(f"{number}/{at}", ITEMS[(number + at) % 6], at, user_id=f"u{number}") for at in range(events)]
        users.record("", its)
        users.recall("", f"u{number}")


def check_all(world: World, users: Users, model: DecayingMean, items: dict[str, Floats], count: int) -> None:
    """Checks that each of so many users is what the log says."""
    for number in range(count):
        events = world.log.events(world.log.key("", f"u{number}"))
        assert_same(users.recall("", f"u{number}"), expected(model, items, events))
