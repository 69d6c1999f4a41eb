"""What was shown, judged by what its users then did."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.exposures import WINDOW_US, by_variant, judge
from matchcut.server.records import EventKind, Exposure, Logged, Shown

NONE = ("", "")


def exposure(time_us: int, items: str, *, propensity: float = 1.0, variant: str = "") -> Exposure:
    shown = tuple(Shown(item, position, 0.0, propensity) for position, item in enumerate(items))
    return Exposure(f"r{time_us}", time_us, "e" if variant else "", variant, "m", shown)


def did(time_us: int, item: str, strength: float = 1.0) -> Logged:
    return Logged(time_us, b"d", item, EventKind.LIKE, strength)


def test_an_event_counts_for_the_last_list_before_it_that_the_item_was_in() -> None:
    exposures = [("t", b"u", exposure(200, "bc")), ("t", b"u", exposure(100, "ab")), ("t", b"u", exposure(300, "c"))]
    events = [("t", b"u", did(150, "b")), ("t", b"u", did(250, "b")), ("t", b"u", did(250, "c"))]
    made = judge(exposures, events)[NONE]
    assert made.rewards.tolist() == [0, 1, 1, 1, 0]
    assert made.lists.tolist() == [0, 0, 1, 1, 2]
    assert made.users.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("tenant", "user", "event"),
    [
        ("t", b"u", did(99, "a")),  # before it was shown
        ("t", b"u", did(100 + WINDOW_US + 1, "a")),  # long after
        ("t", b"u", did(150, "a", -1.0)),  # against it
        ("t", b"u", did(150, "a", 0.0)),
        ("t", b"u", did(150, "x")),
        ("t", b"v", did(150, "a")),  # another user
        ("s", b"u", did(150, "a")),  # another tenant's user of the same digest
    ],
)
def test_what_does_not_count(tenant: str, user: bytes, event: Logged) -> None:
    assert judge([("t", b"u", exposure(100, "a"))], [(tenant, user, event)])[NONE].rewards.tolist() == [0]


def test_an_event_that_names_a_list_counts_for_that_one_alone() -> None:
    exposures = [("t", b"u", exposure(100, "ab")), ("t", b"u", exposure(200, "ab")), ("t", b"v", exposure(300, "a"))]
    named = Logged(250, b"named", "a", EventKind.LIKE, 1.0)
    against = Logged(250, b"against", "b", EventKind.DISLIKE, -1.0)
    late = Logged(100 + 2 * WINDOW_US, b"late", "b", EventKind.LIKE, 1.0)
    answers = [("t", b"u", "r100", named), ("t", b"u", "r100", late), ("t", b"u", "r200", against)]
    events = [("t", b"u", named), ("t", b"u", against), ("t", b"u", late)]
    assert judge(exposures, events, answers)[NONE].rewards.tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("user", "recommendation", "item"),
    [
        (b"u", "r999", "a"),  # no such list: the last one that the item was in
        (b"u", "r100", "b"),  # the item was not in it
        (b"v", "r100", "a"),  # another user's list
    ],
)
def test_an_event_that_names_a_list_that_it_cannot_be_of(user: bytes, recommendation: str, item: str) -> None:
    exposures = [("t", b"u", exposure(100, "a")), ("t", b"u", exposure(200, "ab"))]
    event = did(250, item)
    made = judge(exposures, [("t", user, event)], [("t", user, recommendation, event)])[NONE]
    assert made.rewards.tolist() == [0, float(user == b"u" and item == "a"), float(user == b"u" and item == "b")]


@pytest.mark.parametrize("time_us", [100, 100 + WINDOW_US])
def test_the_window_holds_both_its_ends(time_us: int) -> None:
    made = judge([("t", b"u", exposure(100, "a"))], [("t", b"u", did(time_us, "a"))])
    assert made[NONE].rewards.tolist() == [1]


def test_twice_is_once() -> None:
    made = judge([("t", b"u", exposure(100, "a"))], [("t", b"u", did(150, "a"))] * 2)
    assert made[NONE].rewards.tolist() == [1]


def test_nothing_shown_is_nothing_judged() -> None:
    assert judge([], [("t", b"u", did(1, "a"))]) == {}
    assert judge([("t", b"u", exposure(100, ""))], []) == {}
    assert by_variant({}) == []
    with pytest.raises(InvalidInput, match="window_us is 0"):
        judge([], [], window_us=0)


def test_variants_apart_with_what_they_would_be_without_exploration() -> None:
    """Variant x explored: its second list went to chance. Without that it would have earned what its first did."""
    exposures = [
        ("t", b"u", exposure(100, "a", propensity=0.75, variant="x")),
        ("t", b"v", exposure(100, "b", propensity=0.25, variant="x")),
        ("t", b"w", exposure(100, "b", variant="y")),
    ]
    events = [("t", b"u", did(150, "a")), ("t", b"w", did(150, "b"))]
    x, y = by_variant(judge(exposures, events))
    assert (x.experiment, x.variant, x.lists, x.users) == ("e", "x", 2, 2)
    assert x.value.logged.mean == 0.5
    assert x.value.ips.mean == pytest.approx(1 / 0.75 / 2)
    assert x.value.snips.mean == 1
    assert (y.variant, y.value.logged.mean, y.value.ips.mean) == ("y", 1, 1)
    text = x.text()
    for part in (
        "e / x: 2 items shown in 2 lists to 2 users",
        "effective sample size 1",
        "SNIPS",
        "as shown",
        "mean weight",
    ):
        assert part in text


def test_positions_below_one_that_was_explored_do_not_count_for_no_exploration() -> None:
    shown = (Shown("a", 0, 0.0, 0.1), Shown("b", 1, 0.0, 0.9))
    made = judge([("t", b"u", Exposure("r", 100, "", "", "m", shown))], [("t", b"u", did(150, "b"))])
    (report,) = by_variant(made)
    assert (report.value.logged.mean, report.value.effective) == (0.5, 0.0)
    assert math.isnan(report.value.snips.mean)


def test_what_is_not_known_is_none_in_json() -> None:
    (report,) = by_variant(judge([("t", b"u", exposure(100, "a", propensity=0.2))], []))
    plain = report.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert isinstance(plain["value"], dict)
    assert plain["value"]["snips"] == {"mean": None, "low": None, "high": None}
    assert plain["value"]["logged"]["mean"] == 0


def test_the_intervals_are_over_users() -> None:
    exposures = [("t", user, exposure(time, "abcd")) for user in range(10) for time in (100, 200, 300)]
    (report,) = by_variant(judge(exposures, [("t", user, did(350, item)) for user in range(5) for item in "abcd"]))
    assert (report.lists, report.users, report.value.groups, report.value.samples) == (30, 10, 10, 120)
    per_user = np.array([4 / 12] * 5 + [0] * 5)
    half = 1.959964 * per_user.std(ddof=1) / math.sqrt(10)
    assert report.value.logged.high - report.value.logged.mean == pytest.approx(half, rel=1e-5)


def test_clipped_weights_are_told() -> None:
    shown = tuple(Shown(item, place, 0.0, 0.5) for place, item in enumerate("abc"))
    (report,) = by_variant(judge([("t", b"u", Exposure("r", 1, "", "", "m", shown))], []), clip=3)
    assert (report.value.largest, report.value.clipped) == (8.0, 2)
    assert "2 weights clipped" in report.text()


@pytest.mark.parametrize(
    ("users", "threshold", "told", "said"),
    [(9, 10, 0, "fewer than 10"), (10, 10, 10, "at least 10"), (19, 10, 10, "at least 10"), (9, 1, 9, "to 9")],
)
def test_numbers_of_users_are_told_as_a_server_tells_them(users: int, threshold: int, told: int, said: str) -> None:
    judged = judge([("t", user, exposure(100, "a")) for user in range(users)], [])
    (report,) = by_variant(judged, threshold=threshold)
    assert (report.users, report.value.groups, report.lists) == (told, told, users)
    assert f"{said} users" in report.text()
