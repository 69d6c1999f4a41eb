"""What is too old or too much goes by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from matchcut.server.events import EventLog, open_log
from matchcut.server.events.retention import DAY_US
from matchcut.server.records import Event, EventKind, Exposure, UserKey

Make = Callable[..., Event]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All users are looked at again and again."""
    monkeypatch.setattr("matchcut.server.events.retention._FIRST_S", 0.0)
    monkeypatch.setattr("matchcut.server.events.retention._PERIOD_S", 0.0)
    monkeypatch.setattr("matchcut.server.events.retention._PACE_S", 0.0)
    monkeypatch.setattr("matchcut.server.events.plausible.GRACE_US", 0)  # these clocks leap, and are right
    monkeypatch.setattr("matchcut.server.events.local._REST_S", 0.01)


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it does not come true")


def count(log: EventLog, user: str, tenant: str = "") -> int:
    return len(log.events(log.key(tenant, user)))


def consistent(log: EventLog) -> bool:
    """Whether the numbers that are kept are those of the events that are there."""
    store = log._store  # type: ignore[attr-defined]
    counted = store.read(
        "SELECT json_array(count(*), count(DISTINCT tenant || hex(user)), "
        "(SELECT count(*) FROM pairs), (SELECT coalesce(sum(users), 0) FROM tallies), "
        "(SELECT count(*) FROM (SELECT DISTINCT tenant, user, item_id FROM events)), "
        "(SELECT coalesce(sum(favoured), 0) FROM tallies), "
        "(SELECT count(*) FROM (SELECT DISTINCT tenant, user, item_id FROM events WHERE strength > 0)), "
        '(SELECT coalesce(sum("like"), 0) FROM tallies), '
        "(SELECT count(*) FROM (SELECT DISTINCT tenant, user, item_id FROM events WHERE kind = 4))) FROM events",
        {},
    )
    events, users, pairs, tallied, distinct, favoured, speak, likes, liked = json.loads(counted)
    sizes = log.sizes()
    assert (sizes.events, sizes.users) == (events, users)
    assert pairs == tallied == distinct
    assert favoured == speak
    assert likes == liked
    return True


def test_the_oldest_of_a_user_go(make: Make, tmp_path: Path) -> None:
    told: list[Sequence[UserKey]] = []
    kinds = list(EventKind)
    with closing(open_log(tmp_path / "log", days=0, user_events=100, trimmed=told.append)) as log:
        for start in range(0, 125, 25):
            log.append("", [make(f"{at}", "ann", f"i{at % 30}", kinds[at % 9], at) for at in range(start, start + 25)])
        log.append("", [make(f"b{at}", "bob", at=at) for at in range(90)])
        time.sleep(0.1)
        assert count(log, "ann") == 125  # up to a quarter more may be there
        log.append("", [make(f"{at}", "ann", f"i{at % 30}", kinds[at % 9], at) for at in range(125, 150)])
        until(lambda: count(log, "ann") == 100)
        assert min(event.time_us for event in log.events(log.key("", "ann"))) == make("", at=50).time_us
        assert count(log, "bob") == 90
        until(lambda: told == [[log.key("", "ann")]])
        assert consistent(log)
        assert log.sizes().users == 2


def test_a_late_event_of_a_full_user(make: Make) -> None:
    with closing(open_log(None, days=0, user_events=4)) as log:
        log.append("", [make(f"{at}", at=at) for at in range(10, 15)])
        log.append("", [make("late", at=1)])
        until(lambda: count(log, "ann") == 4)
        assert [event.time_us for event in log.events(log.key("", "ann"))] == [
            make("", at=at).time_us for at in range(11, 15)
        ]


def test_many_users_found_after_a_restart(make: Make, tmp_path: Path) -> None:
    """Those whom nobody counted while their events came."""
    with closing(open_log(tmp_path / "log", days=0, user_events=0)) as log:
        log.append("", [make(f"{at}", f"u{at % 600}", at=at) for at in range(6000)])
        log.append("t", [make(f"{at}", "v", at=at) for at in range(10)])
    told: list[Sequence[UserKey]] = []
    with closing(open_log(tmp_path / "log", days=0, user_events=6, trimmed=told.append)) as log:
        until(lambda: log.sizes().events == 601 * 6)
        assert consistent(log)
        assert sum(map(len, told)) == 601


def test_what_is_old_goes(make: Make, tmp_path: Path, now_us: int) -> None:
    clock = [now_us]
    told: list[Sequence[UserKey]] = []
    with closing(
        open_log(tmp_path / "log", days=10, user_events=0, threshold=0, clock_us=lambda: clock[0], trimmed=told.append)
    ) as log:
        for tenant in ("a", "b"):
            log.append(
                tenant,
                [
                    make(f"{user}-{day}", f"u{user}", f"i{day}", EventKind.LIKE, day * DAY_US)
                    for user in range(300)
                    for day in range(user % 5)
                ],
            )
        log.expose(log.key("a", "u1"), Exposure("r", now_us, "", "", "", ()))
        log.expose(log.key("a", "u1"), Exposure("s", now_us + 3 * DAY_US, "", "", "", ()))
        until(lambda: log.sizes().exposures == 2)
        everything = log.sizes().events
        assert everything == 2 * 60 * (1 + 2 + 3 + 4)
        assert not told
        clock[0] = now_us + 12 * DAY_US + 1
        until(lambda: log.sizes().events == 2 * 60)  # day 3 of those that have it
        until(lambda: log.sizes().exposures == 1)
        assert consistent(log)
        assert log.sizes().users == 2 * 60
        assert sum(map(len, told)) == 2 * 240
        assert log.popularity("a") == {"i3": 60}
        clock[0] = now_us + 100 * DAY_US
        until(lambda: log.sizes().events == 0)
        assert replace(log.sizes(), bytes=0, exposures=0) == replace(log.sizes(), bytes=0, exposures=0, users=0)
        assert log.counts("a", [], 9) == []


def test_what_is_old_when_it_comes(make: Make, now_us: int) -> None:
    with closing(open_log(None, days=1, clock_us=lambda: now_us + 2 * DAY_US)) as log:
        assert len(log.append("", [make("1")]).logged) == 1
        until(lambda: count(log, "ann") == 0)


def test_appends_go_on_where_the_upkeep_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("matchcut.server.events.local._FAILED_S", 0.01)

    def fail(keys: Sequence[UserKey]) -> None:
        raise RuntimeError("as told")

    with closing(open_log(None, days=0, user_events=2, trimmed=fail)) as log:
        log.append("", [make(f"{at}", at=at) for at in range(5)])
        until(lambda: "as told" in caplog.text)
        assert len(log.append("", [make("new", "bob")]).logged) == 1
        until(lambda: count(log, "ann") == 2)
