"""Turns are fair between clients: one that floods does not starve the others, nor takes their room."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server.batcher import Batcher
from matchcut.server.batcher.line import Line, Request
from matchcut.server.errors import Overloaded
from matchcut.server.feed import Caller
from support.batching import Asking, Gated, Record, queue_up, rows


def request(client: str, count: int) -> Request:
    return Request(inputs={}, rows=count, key=(), caller=Caller(), client=client, arrived_ns=0)


def arrive(line: Line, client: str, count: int = 1) -> Request:
    one = request(client, count)
    line.stamp(one)
    line.add(one)
    return one


def serve(line: Line) -> Request:
    """The next turn."""
    one = next(iter(line))
    line.remove(one)
    line.reach(one)
    return one


def test_a_flood_waits_behind_the_one_request_of_another() -> None:
    run, record = Gated(), Record()
    batcher = Batcher(run, name="doubler", most=1, queue=64, watcher=record)
    first = Asking(batcher, rows(0), client="flood")
    run.begun()
    flood = queue_up(batcher, record, [rows(value) for value in range(1, 21)], clients=["flood"] * 20)
    quiet = queue_up(batcher, record, [rows(100), rows(101)], clients=["quiet"] * 2, waiting=20)
    run.open()
    for one in (first, *flood, *quiet):
        one.over()
    order = [batch[0] for batch in run.runs]
    assert order.index(100) <= 2
    assert order.index(101) <= 4
    assert sorted(order) == [*range(21), 100, 101]
    assert [value for value in order if value < 100] == list(range(21))


def test_whoever_sends_large_requests_gets_no_more_rows() -> None:
    line = Line()
    for _ in range(50):
        arrive(line, "large", 8)
        arrive(line, "small", 1)
    rows_by: Counter[str] = Counter()
    while rows_by["small"] < 50:
        one = serve(line)
        rows_by[str(one.client)] += one.rows
        assert abs(rows_by["large"] - rows_by["small"]) <= 8 + 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=30, max_size=30), min_size=2, max_size=5), st.randoms())
def test_clients_that_always_wait_are_served_alike_to_within_two_requests(
    sizes: list[list[int]], random: object
) -> None:
    line = Line()
    arrivals = [(f"client {at}", count) for at, counts in enumerate(sizes) for count in counts]
    random.shuffle(arrivals)  # type: ignore[attr-defined]
    waiting: Counter[str] = Counter()
    for client, count in arrivals:
        arrive(line, client, count)
        waiting[client] += 1
    served: Counter[str] = Counter(dict.fromkeys(waiting, 0))
    while all(waiting.values()):
        one = serve(line)
        served[str(one.client)] += one.rows
        waiting[str(one.client)] -= 1
        assert max(served.values()) - min(served.values()) <= 9 + 9


def test_a_client_that_comes_late_neither_catches_up_nor_waits_for_the_flood() -> None:
    line = Line()
    for _ in range(100):
        arrive(line, "flood")
    for _ in range(40):
        serve(line)
    for _ in range(10):
        arrive(line, "late")
    turns = [serve(line).client for _ in range(20)]
    assert Counter(turns) == {"late": 10, "flood": 10}


def test_one_long_stream_is_not_starved_by_ever_new_clients() -> None:
    line = Line()
    arrive(line, "stream")
    for at in range(20):
        arrive(line, f"early {at}")
    turns = 0
    for at in range(420):
        one = serve(line)
        if one.client == "stream":
            turns += 1
            arrive(line, "stream")
        else:
            arrive(line, f"new {at}")
    assert turns in (19, 20, 21)


def test_one_that_gives_up_costs_its_client_nothing() -> None:
    line = Line()
    arrive(line, "other", 3)
    given_up = [arrive(line, "client", 5) for _ in range(4)]
    for one in given_up:
        line.remove(one)
    arrive(line, "client", 1)
    assert serve(line).client == "client"


def test_clients_that_have_gone_leave_nothing_behind() -> None:
    line = Line()
    for at in range(100):
        arrive(line, f"client {at}")
        (serve(line) if at % 2 else line.remove(next(iter(line))))
    assert line.rows == 0
    assert not any(value for name, value in vars(line).items() if isinstance(value, (dict, list)) and name)


def test_a_flood_that_fills_the_line_makes_room_for_others() -> None:
    run, record = Gated(), Record()
    batcher = Batcher(run, name="doubler", most=1, queue=4, watcher=record)
    first = Asking(batcher, rows(0), client="flood")
    run.begun()
    flood = queue_up(batcher, record, [rows(value) for value in range(1, 5)], clients=["flood"] * 4)
    with pytest.raises(Overloaded):
        batcher.submit(rows(5), caller=Caller(), client="flood")
    quiet = Asking(batcher, rows(100), client="quiet")
    assert isinstance(flood[3].failure(), Overloaded)
    quieter = Asking(batcher, rows(101), client="quiet")
    assert isinstance(flood[2].failure(), Overloaded)
    with pytest.raises(Overloaded):  # now both have two: nobody gives way
        batcher.submit(rows(102), caller=Caller(), client="quiet")
    assert record.dropped_by == {"OVERLOADED": 4}
    run.open()
    assert [one.values() for one in (first, *flood[:2], quiet, quieter)] == [[0], [2], [4], [200], [202]]


def test_nobody_is_evicted_in_vain() -> None:
    line = Line()
    for _ in range(4):
        arrive(line, "flood", 2)
    arrive(line, "other", 3)
    newcomer = request("newcomer", 3)
    line.stamp(newcomer)
    evicted = line.to_evict(newcomer, 3)
    assert evicted is not None
    assert [one.tag for one in evicted] == [8, 6]
    assert line.to_evict(newcomer, 5) is None  # the flood has no more than the others then
    assert line.to_evict(newcomer, 0) == []
    assert line.rows == 11


def test_callers_without_a_client_are_each_their_own() -> None:
    run, record = Gated(), Record()
    batcher = Batcher(run, name="doubler", most=1, queue=2, watcher=record)
    first = Asking(batcher, rows(0))
    run.begun()
    others = queue_up(batcher, record, [rows(1), rows(2)])
    with pytest.raises(Overloaded):
        batcher.submit(rows(3), caller=Caller())
    run.open()
    assert [one.values() for one in (first, *others)] == [[0], [2], [4]]
    assert run.runs == [[0], [1], [2]]
