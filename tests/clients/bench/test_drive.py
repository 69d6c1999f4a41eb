"""The open loop, in simulated time: what a stall, a late generator, a full server and an interruption look like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from matchcut.bench import verdict
from matchcut.bench.arrivals import Arrivals
from matchcut.bench.drive import Bounds, Call, drive
from matchcut.bench.plan import Mix, Plan, Send, make
from matchcut.bench.tally import Outcome, Sample, Tally

Simulate = Callable[[Callable[[Any], Awaitable[Any]]], Any]
QUICK = 0.002  # seconds that the simulated server takes


def evenly(rate: float, seconds: float) -> list[Send]:
    return list(make(Plan(Arrivals("constant"), Mix({"query": 1.0}), rate, seconds)))


def answering(server: Callable[[Send], Awaitable[str]]) -> Call:
    """A call of a simulated server, which says what status comes of a request."""

    async def call(send: Send, due: float) -> Outcome:
        time = asyncio.get_running_loop().time
        sent = time()
        status = await server(send)
        return Outcome(status, [Sample(due, sent, time())])

    return call


async def quick(send: Send) -> str:
    await asyncio.sleep(QUICK)
    return "OK"


def driven(simulate: Simulate, sends: list[Send], server: Any = quick, **bounds: Any) -> Tally:
    """Drives a simulated server."""

    async def run(loop: Any) -> Tally:
        bound = Bounds(**{"seconds": 3.0, **bounds})
        return await drive(sends, ["query"], answering(server), start=loop.time(), bounds=bound, stop=asyncio.Event())

    tally: Tally = simulate(run)
    tally.generators[0].thread = 0.0  # of real time, of which the simulated seconds took next to nothing
    return tally


def test_all_that_is_planned_is_sent_and_answered(simulate: Simulate) -> None:
    tally = driven(simulate, evenly(100, 3))
    kind = tally.kinds["query"]
    assert (kind.planned, kind.sent, kind.ok, kind.bad) == (300, 300, 300, 0)
    assert tally.seconds == 3
    assert tally.throughput == 100
    assert kind.latency.at(50) == pytest.approx(QUICK, rel=0.01)
    assert tally.lateness.most == pytest.approx(0, abs=1e-9)
    assert tally.timeline == {0: [100, 0, 0], 1: [100, 0, 0], 2: [100, 0, 0]}
    assert not tally.partial


class Gate:
    """A server that answers nothing from one second to the next two thirds: one stall of 1 s."""

    def __init__(self) -> None:
        self.held = 0
        self.began = 0.0

    async def __call__(self, send: Send) -> str:
        time = asyncio.get_running_loop().time
        self.began = self.began or time()
        if 1 <= time() - self.began < 2:
            self.held += 1
            await asyncio.sleep(self.began + 2 - time())
        return await quick(send)


def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(simulate: Simulate) -> None:
    """Coordinated omission: a caller that waits for its answer asks once while the server stands still."""
    gate = Gate()
    latency = driven(simulate, evenly(100, 3), gate).kinds["query"].latency
    assert gate.held == 100  # all that were planned for that second
    assert latency.at(99) == pytest.approx(0.97, abs=0.01)
    assert latency.at(50) == pytest.approx(QUICK, rel=0.01)

    async def closed(loop: Any) -> list[float]:
        found = []
        waiting = Gate()
        while loop.time() < 1003:
            sent = loop.time()
            await waiting(evenly(1, 1)[0])
            found.append(loop.time() - sent)
            await asyncio.sleep(max(0.0, 0.01 - found[-1]))
        assert waiting.held == 1
        return sorted(found)

    closed_loop = simulate(closed)
    assert closed_loop[int(0.99 * len(closed_loop))] == pytest.approx(QUICK, rel=0.01)
    assert closed_loop[-1] == pytest.approx(1, abs=0.02)


def test_latency_counts_from_the_planned_time_service_from_the_sending(simulate: Simulate) -> None:
    """The generator itself stands still for 50 ms, less than what makes a request missed."""

    async def stalling(send: Send) -> str:
        if send.number == 100:
            loop: Any = asyncio.get_running_loop()
            loop.now += 0.05
        return await quick(send)

    tally = driven(simulate, evenly(100, 3), stalling)
    kind = tally.kinds["query"]
    assert (kind.ok, kind.missed) == (300, 0)
    assert kind.latency.at(99) > 0.02
    assert kind.service.at(99) == pytest.approx(QUICK, rel=0.01)
    assert tally.lateness.most == pytest.approx(0.04, abs=0.002)
    assert "the generator got no core" in " ".join(verdict.invalid(tally))


def test_requests_that_are_too_late_are_counted_as_missed_and_make_the_run_invalid(simulate: Simulate) -> None:
    async def stalling(send: Send) -> str:
        if send.number == 100:
            loop: Any = asyncio.get_running_loop()
            loop.now += 0.5
        return await quick(send)

    tally = driven(simulate, evenly(100, 3), stalling, late=0.1)
    kind = tally.kinds["query"]
    assert kind.late == pytest.approx(40, abs=1)  # of the 50 planned for the stall, those more than 100 ms late
    assert kind.planned == 300
    assert kind.sent == kind.ok == 300 - kind.late
    assert tally.timeline[1][2] == kind.late
    assert any("the generator was too late for them" in text for text in verdict.invalid(tally))
    assert f"{kind.late} not sent, too late" in verdict.failures(tally, verdict.Rules())


def test_a_plan_beyond_all_means_ends_when_it_says(simulate: Simulate) -> None:
    """Each turn of the loop takes 10 ms, where a request is due every tenth of one: most are missed, without a turn."""
    turns = 0

    async def run(loop: Any) -> Tally:
        async def hogging() -> None:
            nonlocal turns
            while True:
                turns += 1
                loop.now += 0.01
                await asyncio.sleep(0)

        hog = asyncio.ensure_future(hogging())
        call, bounds = answering(quick), Bounds(seconds=3.0, late=0.1)
        tally = await drive(evenly(10_000, 3), ["query"], call, start=loop.time(), bounds=bounds, stop=asyncio.Event())
        hog.cancel()
        return tally

    tally = simulate(run)
    kind = tally.kinds["query"]
    assert kind.planned == 30_000
    assert kind.late + kind.ok == 30_000
    assert kind.late > 29_000
    assert turns < 600  # of 10 ms each; a turn for each request would be 30,000 of them
    assert any("too late for them" in text for text in verdict.invalid(tally))


def test_no_more_are_under_way_than_allowed_and_what_is_not_sent_is_told(simulate: Simulate) -> None:
    under_way = most = 0

    async def slow(send: Send) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1)
        under_way -= 1
        return "OK"

    tally = driven(simulate, evenly(100, 3), slow, in_flight=10)
    kind = tally.kinds["query"]
    assert most == 10
    assert kind.ok == 30
    assert kind.full == 270
    assert kind.late == 0
    assert tally.throughput == pytest.approx(30 / tally.seconds)
    assert "270 requests were not sent, as too many were under way" in verdict.remarks(tally)[0]
    assert "270 not sent, too many under way" in verdict.failures(tally, verdict.Rules())
    assert not verdict.invalid(tally)  # it was the server


def test_errors_are_counted_by_status_and_are_in_no_latency(simulate: Simulate) -> None:
    """An overload that is refused at once is no success, quick as it is."""

    async def refusing(send: Send) -> str:
        if send.number % 10 == 3:
            return "RESOURCE_EXHAUSTED"
        if send.number % 100 == 4:
            return "UNAVAILABLE"
        await asyncio.sleep(0.1)
        return "OK"

    tally = driven(simulate, evenly(100, 3), refusing)
    kind = tally.kinds["query"]
    assert kind.errors == {"RESOURCE_EXHAUSTED": 30, "UNAVAILABLE": 3}
    assert kind.ok == kind.latency.count == kind.service.count == 267
    assert kind.failed.count == 33
    assert kind.latency.at(1) == pytest.approx(0.1, rel=0.01)
    assert kind.failed.most == pytest.approx(0, abs=1e-9)
    assert "33 of 300" in verdict.failures(tally, verdict.Rules())
    assert "30 RESOURCE_EXHAUSTED, 3 UNAVAILABLE" in verdict.failures(tally, verdict.Rules())
    assert not verdict.failures(tally, verdict.Rules(errors=0.2))


def test_the_warm_up_is_not_measured_but_its_failures_are_told(simulate: Simulate) -> None:
    async def cold(send: Send) -> str:
        if send.number < 50:
            return "UNAVAILABLE"
        await asyncio.sleep(1 if send.number < 100 else QUICK)
        return "OK"

    tally = driven(simulate, evenly(100, 3), cold, warmup=1.0)
    kind = tally.kinds["query"]
    assert (kind.planned, kind.ok) == (200, 200)
    assert kind.latency.most == pytest.approx(QUICK, rel=0.01)
    assert tally.seconds == 2
    assert tally.throughput == 100
    assert tally.warmup == {"UNAVAILABLE": 50, "OK": 50}
    assert "of the warm-up, which is not measured: 50 UNAVAILABLE" in verdict.remarks(tally)


def test_answers_of_a_stream_that_are_due_in_the_warm_up_are_left_out(simulate: Simulate) -> None:
    async def run(loop: Any) -> Tally:
        start = loop.time()
        send = Send(0.5, 0, 0, (0.5, 0.9, 1.3, 1.7))
        early = Send(0.1, 0, 1, (0.1, 0.2))

        async def call(send: Send, due: float) -> Outcome:
            return Outcome("OK", [Sample(start + at, start + at, start + at + 0.01) for at in send.frames])

        bounds = Bounds(seconds=2.0, warmup=1.0)
        return await drive([early, send], ["live"], call, start=start, bounds=bounds, stop=asyncio.Event())

    tally = simulate(run)
    assert tally.kinds["live"].planned == tally.kinds["live"].ok == 1
    assert tally.kinds["live"].latency.count == 2
    assert tally.throughput == 2


def test_an_interruption_keeps_what_was_measured(simulate: Simulate) -> None:
    async def run(loop: Any) -> Tally:
        stop = asyncio.Event()

        async def server(send: Send) -> str:
            await asyncio.sleep(5 if send.number % 2 else QUICK)
            return "OK"

        loop.call_later(1.005, stop.set)
        bounds = Bounds(seconds=3.0)
        return await drive(evenly(100, 3), ["query"], answering(server), start=loop.time(), bounds=bounds, stop=stop)

    tally = simulate(run)
    kind = tally.kinds["query"]
    assert tally.partial
    assert kind.planned == pytest.approx(101, abs=1)
    assert kind.ok == pytest.approx(51, abs=1)
    assert kind.unfinished == kind.planned - kind.ok
    assert tally.seconds == pytest.approx(1.005, abs=0.02)
    assert any("still under way at the end" in text for text in verdict.remarks(tally))


def test_what_does_not_end_is_given_up_after_the_drain(simulate: Simulate) -> None:
    async def never(send: Send) -> str:
        await asyncio.sleep(1000)
        return "OK"

    tally = driven(simulate, evenly(10, 3), never, drain=2.0)
    kind = tally.kinds["query"]
    assert (kind.ok, kind.unfinished, kind.bad) == (0, 30, 30)
    assert not tally.partial
    assert tally.throughput == 0


def test_a_defect_of_the_caller_is_no_outcome(simulate: Simulate) -> None:
    async def broken(send: Send) -> str:
        raise LookupError("there is no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        driven(simulate, evenly(10, 3), broken)
