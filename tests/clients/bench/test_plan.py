"""Plans: weights, shares of processes, live streams."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from matchcut.bench.arrivals import Arrivals, Camera, Schedule
from matchcut.bench.errors import BadInput
from matchcut.bench.plan import Mix, Plan, check, make, mix, share

KNOWN = ("query", "events", "live")
PLAN = Plan(Arrivals("constant"), Mix({"query": 8.0, "events": 2.0}), rate=100, seconds=100)
SENDS = list(make(PLAN))


def test_a_mix_is_read() -> None:
    assert mix(" query = 8, events=2.5 ", KNOWN) == Mix({"query": 8.0, "events": 2.5})
    assert str(mix("live,query=3", KNOWN)) == "live=1,query=3"
    assert mix("live,query=3", KNOWN).names == ("live", "query")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no workload ''; there are query, events, live"),
        ("quer=1", "no workload 'quer'"),
        ("query=1,query=2", "query is twice"),
        ("query=0", "weight '0' of query"),
        ("query=-1", "weight '-1'"),
        ("query=nan", "weight 'nan'"),
        ("query=inf", "weight 'inf'"),
        ("query=much", "weight 'much'"),
        ("query=", "weight ''"),
        ("query=1.5e308,events=1.5e308", "add up to more than a number can hold"),
    ],
)
def test_what_is_no_mix(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        mix(text, KNOWN)


def test_kinds_come_by_weight_and_the_same_again() -> None:
    sends = list(make(PLAN))
    counts = Counter(send.kind for send in sends)
    assert len(sends) == 10_000
    assert counts[0] / len(sends) == pytest.approx(0.8, abs=0.02)
    assert [send.number for send in sends] == list(range(10_000))
    assert len(make(PLAN)) == len(sends)
    assert list(make(PLAN)) == sends
    assert list(make(replace(PLAN, seed=2))) != sends


@given(processes=st.integers(1, 9), seconds=st.floats(0.01, 1), schedule=st.sampled_from(["poisson", "camera"]))
def test_shares_are_all_sends_once(processes: int, seconds: float, schedule: Schedule) -> None:
    arrivals = Arrivals(schedule, camera=Camera(20, 0.01))
    plan = Plan(arrivals, Mix({"live": 1.0, "query": 1.0}), 100, seconds, live=frozenset({"live"}), live_seconds=0.2)
    try:
        sends = make(plan)
    except BadInput:
        assume(False)
    shares = [share(sends, process, processes) for process in range(processes)]
    together = sorted((send for part in shares for send in part), key=lambda send: send.number)
    assert together == list(sends)  # frames of live queries included
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_large_plan_is_small_and_made_objects_little_by_little() -> None:
    sends = make(replace(PLAN, rate=1e6, seconds=4))
    assert sends.at.nbytes + sends.kinds.nbytes == 9 * len(sends) == 36_000_000
    part = share(sends, 1, 4)
    assert part.at.base is None  # the rest of the plan is given back
    assert [send.number for send, _ in zip(part, range(3), strict=False)] == [1, 5, 9]


def test_what_cannot_be_planned_is_told_without_planning() -> None:
    check(replace(PLAN, rate=1e5))
    with pytest.raises(BadInput, match="are more than 20000000"):
        check(replace(PLAN, rate=1e6))
    with pytest.raises(BadInput, match="nothing would be sent"):
        check(replace(PLAN, arrivals=Arrivals("poisson"), seconds=1e-9))
    with pytest.raises(BadInput, match="has more than 1000000 frames; make it shorter"):
        check(replace(PLAN, live_seconds=1e6))


def test_live_queries_have_frames_at_the_cameras_rate() -> None:
    arrivals = Arrivals("constant", camera=Camera(fps=20, jitter=0.001))
    plan = Plan(arrivals, Mix({"live": 1.0, "query": 1.0}), 5, 4, live=frozenset({"live"}), live_seconds=2)
    sends = list(make(plan))
    assert {len(send.frames) for send in sends if send.kind == 0} == {40}
    assert {len(send.frames) for send in sends if send.kind == 1} == {0}
    for send in sends:
        assert list(send.frames) == sorted(send.frames)
        assert all(send.at <= at <= send.at + 2.1 for at in send.frames)


def test_with_cameras_each_has_one_kind_and_a_live_one_is_one_stream() -> None:
    arrivals = Arrivals("camera", camera=Camera(fps=10, jitter=0.0))
    plan = Plan(arrivals, Mix({"live": 1.0, "query": 1.0}), rate=200, seconds=3, live=frozenset({"live"}))
    sends = list(make(plan))
    streams = [send for send in sends if send.kind == 0]
    assert 0 < len(streams) < 20
    assert all(len(send.frames) == pytest.approx(30, abs=1) for send in streams)
    assert all(send.frames[0] == send.at for send in streams)
    others = [send for send in sends if send.kind == 1]
    assert len(others) == pytest.approx(30 * (20 - len(streams)), abs=20)
    assert sends == sorted(sends, key=lambda send: send.at)


def test_a_camera_that_has_no_frame_yet() -> None:
    with pytest.raises(BadInput, match="no camera has a frame within"):
        make(Plan(Arrivals("camera", camera=Camera(fps=0.01)), Mix({"query": 1.0}), 0.01, 1e-6))
