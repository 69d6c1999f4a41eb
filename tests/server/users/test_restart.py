"""With everything on disk: a server that starts again knows every user as before, and forgets for good."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matchcut.server.catalog import open_catalog
from matchcut.server.events import open_log
from matchcut.server.records import EventKind, Item, Segment, TimeRange
from matchcut.server.session import SessionFolder, deploy
from matchcut.server.users import Galleries, Users
from support import session_models
from support.user_model import assert_same
from support.user_world import ENCODER, SECONDS, event, vector


@contextmanager
def server(folder: Path, *, user_events: int = 1000) -> Iterator[Users]:
    """What a server has of users, with all of it in a folder; six items are there."""
    catalog = open_catalog(folder / "catalog")
    told: list[Users] = []
    (folder / "log").mkdir(exist_ok=True)
    log = open_log(
        folder / "log" / "events.sqlite", days=0, user_events=user_events, trimmed=lambda keys: told[0].trimmed(keys)
    )
    for item_id in "abcdef":
        catalog.put("", Item(item_id), [Segment(TimeRange(), vector(item_id))], ENCODER, b"")
    model = SessionFolder(folder / "session", ENCODER).load()
    galleries = Galleries(catalog, log, model, clock_us=lambda: 5)
    assert galleries.wait_ready(SECONDS)
    users = Users(log, galleries)
    told.append(users)
    yield users
    users.close()
    log.close()
    catalog.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a trained model in it."""
    session_models.write(tmp_path / "trained", ENCODER, ids="abc")
    deploy(tmp_path / "session", tmp_path / "trained", ENCODER)
    return tmp_path


def test_a_restart_gives_the_same_state(folder: Path) -> None:
    kinds = list(EventKind)
    with server(folder) as users:
        for number in range(30):
            its = [
                event(
                    f"{number}/{at}", "abcdefg"[(number * at) % 7], (at * 37) % 11, kinds[at % 9], user_id=f"u{number}"
                )
                for at in range(12)
            ]
            users.record("", its[:7])
            users.recall("", f"u{number}")
            users.record("", its[7:])
        before = [users.recall("", f"u{number}") for number in range(30)]
        users.forget("", "u3")
    with server(folder) as users:
        after = [users.recall("", f"u{number}") for number in range(30)]
    assert sum(taste.events for taste in before) > 100
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        if number != 3:
            assert_same(other, one)
    assert (after[3].seen, after[3].events, after[3].query) == (set(), 0, None)


def test_a_state_follows_what_the_log_lets_go_of(folder: Path) -> None:
    with server(folder, user_events=8) as users:
        for at in range(40):
            users.record("", [event(str(at), "abcdef"[at % 6], at)])
            users.recall("", "u")
        until = time.monotonic() + SECONDS
        while users.recall("", "u").events > 10 and time.monotonic() < until:
            time.sleep(0.01)
        known = users.recall("", "u")
        assert known.events <= 10
    with server(folder, user_events=8) as users:
        assert_same(users.recall("", "u"), known)
