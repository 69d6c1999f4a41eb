"""Goals, and the search for the knee on servers of a known capacity."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.bench import verdict
from matchcut.bench.arrivals import Arrivals
from matchcut.bench.confidence import estimate
from matchcut.bench.drive import Bounds, drive
from matchcut.bench.errors import BadInput
from matchcut.bench.goal import Verdict, goal, search
from matchcut.bench.histogram import Durations
from matchcut.bench.plan import Mix, Plan, Send, make
from matchcut.bench.tally import Kind, Outcome, Sample, Tally


@pytest.mark.parametrize(
    ("text", "kind", "percent", "most"),
    [
        ("p99<50ms", "", 99.0, 0.05),
        (" p99.9 < 0.2 s ", "", 99.9, 0.2),
        ("query.p50<900us", "query", 50.0, 900e-6),
        ("mean<1s", "", None, 1.0),
        ("max<2s", "", 100.0, 2.0),
    ],
)
def test_goals(text: str, kind: str, percent: float | None, most: float) -> None:
    found = goal(text)
    assert (found.kind, found.percent) == (kind, percent)
    assert found.most == pytest.approx(most)


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<50", "p99>50ms", "p0<1s", "p101<1s", "p99<0ms", "p99<1.2.3ms", "q<1s"]
)
def test_what_is_no_goal(text: str) -> None:
    with pytest.raises(BadInput, match="is no goal; write one like"):
        goal(text)


def test_what_a_goal_looks_at() -> None:
    times = Durations()
    for value in (0.1, 0.2, 0.6):
        times.add(value)
    assert goal("mean<1s").value(times) == pytest.approx(0.3)
    assert goal("max<1s").value(times) == 0.6
    assert goal("p50<1s").value(times) == pytest.approx(0.2, rel=1e-3)


@settings(max_examples=40)
@given(capacity=st.floats(0.5, 50_000), first=st.floats(1, 1000), within=st.sampled_from([0.02, 0.05, 0.2]))
def test_the_knee_lies_between_two_rates_that_are_near_each_other(capacity: float, first: float, within: float) -> None:
    asked: list[float] = []

    def met(rate: float) -> Verdict:
        asked.append(rate)
        return "met" if rate <= capacity else "missed"

    found = search(met, first, within=within, most_steps=60)
    assert [step.rate for step in found.steps] == asked
    if not found.rate:
        assert found.above > capacity
        assert "is missed even at" in found.why
        return
    assert found.rate <= capacity < found.above <= found.rate * (1 + within) * (1 + 1e-9)
    assert not found.why
    assert len(asked) == len(set(asked))


def test_a_search_that_ends_early_says_why() -> None:
    assert search(lambda rate: "met", 10, highest=35).why == "the highest rate to try is 35 a second"
    assert search(lambda rate: "met", 10, highest=35).rate == 35
    assert search(lambda rate: "missed", 10).why.startswith("the goal is missed even at 0.00976")
    low = search(lambda rate: "missed", 10, lowest=3)
    assert [step.rate for step in low.steps] == [10, 5, 3]
    assert low.why == "the goal is missed even at 3 a second"
    assert search(lambda rate: "met" if rate < 11 else "missed", 10, most_steps=3).why == "3 rates were tried"
    unknown = search(lambda rate: "unknown" if rate > 30 else "met", 10)
    assert (unknown.rate, unknown.above) == (20, 0)
    assert "the generator could not keep to 40 a second" in unknown.why
    assert [step.rate for step in unknown.steps] == [10, 20, 40, 40, 40]


def test_a_rate_of_which_nothing_is_known_is_tried_again() -> None:
    said: list[Verdict] = ["unknown", "met", "missed", "unknown", "unknown", "met"]
    found = search(lambda rate: said.pop(0), 10, within=0.5)
    assert found.rate == pytest.approx(200**0.5)
    assert found.above == 20


def test_the_knee_of_a_server_that_takes_its_time(simulate: Callable[[Callable[[Any], Awaitable[Any]]], Any]) -> None:
    """One worker that needs 10 ms: at constant rates all is well up to 100 a second, and nothing above."""

    def run(rate: float) -> Verdict:
        async def measured(loop: Any) -> Tally:
            free = loop.time()

            async def call(send: Send, due: float) -> Outcome:
                nonlocal free
                sent = loop.time()
                free = max(free, sent) + 0.01
                await asyncio.sleep(free - sent)
                return Outcome("OK", [Sample(due, sent, loop.time())])

            sends = make(Plan(Arrivals("constant"), Mix({"query": 1.0}), rate, 6))
            bounds = Bounds(seconds=6, drain=60)
            return await drive(sends, ["query"], call, start=loop.time(), bounds=bounds, stop=asyncio.Event())

        tally = simulate(measured)
        return "met" if verdict.met(tally, goal("p99<50ms"), verdict.Rules()) else "missed"

    found = search(run, 30)
    assert found.rate <= 102  # somewhat above 100 the queue is too long only after a while
    assert 100 < found.above < found.rate * 1.05


def test_a_goal_is_not_met_by_failures_or_by_nothing() -> None:
    tally = Tally()
    assert not verdict.met(tally, goal("p99<1s"), verdict.Rules())
    kind = tally.kinds["query"] = Kind(planned=100)
    for number in range(100):
        ok = number >= 5
        kind.add(Outcome("OK" if ok else "RESOURCE_EXHAUSTED", [Sample(0, 0, 0.01 if ok else 0.0001)]))
    assert not verdict.met(tally, goal("p99<1s"), verdict.Rules())
    assert verdict.met(tally, goal("p99<1s"), verdict.Rules(errors=0.05))
    assert verdict.met(tally, goal("query.p99<1s"), verdict.Rules(errors=0.05))
    assert not verdict.met(tally, goal("events.p99<1s"), verdict.Rules(errors=0.05))
    assert not verdict.met(tally, goal("p99<10ms"), verdict.Rules(errors=0.05))


def test_confidence_is_students() -> None:
    assert estimate([3.0]).half is None
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.303 / 3**0.5)  # deviation 1, two degrees of freedom
    assert estimate([5.0] * 4).half == 0
    many = estimate([0.0, 1.0] * 14)  # 27 degrees of freedom: those of 25 are used
    assert many.half == pytest.approx(2.060 * (7 / 27) ** 0.5 / 28**0.5)
