"""Tallies of several processes add up to one, through JSON and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.bench import verdict
from matchcut.bench.tally import Generator, Kind, Outcome, Sample, Tally

STATUS = st.sampled_from(["OK", "OK", "OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"])
OUTCOMES = st.lists(st.tuples(STATUS, st.floats(0, 20)), max_size=30)


def counted(outcomes: list[tuple[str, float]], name: str = "query") -> Tally:
    tally = Tally(kinds={name: Kind()}, generators=[Generator(cpu=0.5, thread=0.25)], seconds=2.0)
    for status, seconds in outcomes:
        kind = tally.kinds[name]
        kind.planned += 1
        kind.sent += 1
        kind.add(Outcome(status, [Sample(1.0, 1.5, 1.5 + seconds)], {"rank": seconds / 2} if status == "OK" else {}))
        tally.mark(int(seconds), 0 if status == "OK" else 1)
    return tally


@settings(max_examples=40)
@given(first=OUTCOMES, second=OUTCOMES)
def test_two_processes_count_as_one_would(first: list[tuple[str, float]], second: list[tuple[str, float]]) -> None:
    parts = [json.loads(json.dumps(counted(each).encoded())) for each in (first, second)]
    merged, together = Tally.merged(map(Tally.decoded, parts)), counted(first + second)
    mine, theirs = merged.kinds["query"], together.kinds["query"]
    assert (mine.planned, mine.ok, mine.errors, mine.bad) == (theirs.planned, theirs.ok, theirs.errors, theirs.bad)
    assert mine.planned == mine.ok + mine.bad
    for name in ("latency", "service", "failed"):
        assert getattr(mine, name).summary() == pytest.approx(getattr(theirs, name).summary())
    assert mine.stages.keys() == theirs.stages.keys()
    assert merged.timeline == together.timeline
    assert len(merged.generators) == 2
    assert merged.seconds == 2


def test_refused_streams_are_explained() -> None:
    kind = Kind(planned=1)
    kind.add(Outcome("UNAVAILABLE", [Sample(0, 0, 1)], why="Stream removed (Received RST_STREAM with error code 7)"))
    said = verdict.remarks(Tally.decoded(Tally(kinds={"query": kind}).encoded()))
    assert "give the generator more --channels" in said[1]


def test_kinds_stay_apart_and_add_up() -> None:
    merged = Tally.merged([counted([("OK", 0.1)]), counted([("OK", 0.3), ("UNAVAILABLE", 0.0)], "events")])
    assert {name: kind.ok for name, kind in merged.kinds.items()} == {"query": 1, "events": 1}
    assert merged.all.planned == 3
    assert merged.all.errors == {"UNAVAILABLE": 1}
    assert merged.throughput == 1.0
    assert merged.all.latency.most == pytest.approx(0.8)  # from the planned time, half a second before the sending
    assert merged.all.service.most == pytest.approx(0.3)


def test_a_busy_process_makes_a_run_invalid() -> None:
    tally = counted([("OK", 0.1)] * 2000)
    assert verdict.invalid(tally) == []
    tally.generators[0].thread = 0.97
    assert "busy for 97% of the time; give it more --processes" in verdict.invalid(tally)[0]
