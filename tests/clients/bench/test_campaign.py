"""Rates, repetitions, the search, interruptions; and the reports made of them, on scripted runs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from matchcut.bench.arrivals import Arrivals, Camera
from matchcut.bench.campaign import Campaign, Report, carry_out
from matchcut.bench.errors import WorkerDied
from matchcut.bench.export import About, as_csv, as_json
from matchcut.bench.goal import goal
from matchcut.bench.page import as_html
from matchcut.bench.plan import Mix, Plan
from matchcut.bench.tally import Generator, Kind, Outcome, Sample, Tally
from matchcut.bench.target import Target

NASTY = "<script>alert('&')</script>"


def campaign(**changes: Any) -> Campaign:
    plan = Plan(changes.pop("arrivals", Arrivals("poisson")), Mix({"query": 1.0}), rate=1, seconds=12)
    given = {"target": Target(address="far:1"), "prepared": lambda run: (), "plan": plan, "rates": (10.0,), **changes}
    return Campaign(**given)


def ran(
    latency: float, *, errors: int = 0, thread: float = 0.1, partial: bool = False, status: str = "UNAVAILABLE"
) -> Tally:
    """A run of 1000 requests that took so long."""
    kind = Kind(planned=1000, sent=1000)
    tally = Tally(kinds={"query": kind}, generators=[Generator(cpu=0.2, thread=thread)], seconds=10, partial=partial)
    for number in range(1000):
        ok = number >= errors
        stages = {"rank": latency / 2, "total": latency} if ok else {}
        kind.add(Outcome("OK" if ok else status, [Sample(0, 0.001, latency)], stages))
        tally.mark(number * 10 // 1000, 0 if ok else 1)
        tally.generators[0].lateness.add(0.001)
    return tally


def test_each_rate_is_run_as_often_as_asked_with_runs_numbered_apart() -> None:
    asked: list[tuple[float, int]] = []
    told: list[str] = []

    def shoot(rate: float, number: int) -> Tally:
        asked.append((rate, number))
        return ran(0.01 * (number + 1))

    report = carry_out(campaign(rates=(10.0, 20.0), repeat=3), shoot, told.append)
    assert asked == [(10, 0), (10, 1), (10, 2), (20, 3), (20, 4), (20, 5)]
    first, second = report.points
    half = first.latency(50)
    assert half is not None
    assert half.mean == pytest.approx(0.02, rel=1e-3)
    assert half.half == pytest.approx(4.303 * 0.01 / 3**0.5, rel=0.01)
    assert first.throughput.mean == 100
    assert second.tally.all.planned == 3000
    assert [report.invalid, report.failed, report.partial, report.gone] == [False] * 4
    assert told[1] == "10 a second, 2 of 3: 2 s to warm up, 10 s measured"


def test_remarks_say_what_a_reader_would_not_guess() -> None:
    report = carry_out(campaign(), lambda rate, number: ran(0.01))
    assert report.remarks == []
    near = campaign(target=Target(address="127.0.0.1:1"), rates=(10.0, 20.0))
    report = carry_out(near, lambda rate, number: ran(0.01, errors=int(rate)))
    assert report.remarks == [
        "10 a second: latencies are of successes only; not among them: 10 UNAVAILABLE",
        "20 a second: latencies are of successes only; not among them: 20 UNAVAILABLE",
        "a p99 here rests on 980 answers; from 1000 on it rests on ten of them",
        "the server is on this machine: the generator takes cores from it",
    ]


def test_cameras_come_whole() -> None:
    arrivals = Arrivals("camera", camera=Camera(fps=25))
    asked: list[float] = []
    carry_out(campaign(arrivals=arrivals, rates=(30.0, 80.0)), lambda rate, number: asked.append(rate) or ran(0.01))  # type: ignore[func-returns-value]
    assert asked == [25, 75]


def knee(latency: Callable[[float], float], **changes: Any) -> Report:
    wanted = campaign(goal=goal("p99<50ms"), **changes)
    return carry_out(wanted, lambda rate, number: ran(latency(rate)))


def test_the_knee_is_found_with_fresh_runs() -> None:
    report = knee(lambda rate: 0.01 if rate <= 70 else 0.5)
    assert report.knee is not None
    assert report.knee.rate <= 70 < report.knee.above <= report.knee.rate * 1.05
    assert [point.rate for point in report.points] == [step.rate for step in report.knee.steps]
    assert not report.invalid


def test_a_search_in_which_the_generator_gives_out_is_invalid() -> None:
    wanted = campaign(goal=goal("p99<50ms"))
    report = carry_out(wanted, lambda rate, number: ran(0.01 if rate < 50 else 0.2, thread=rate / 80))
    assert report.knee is not None
    assert report.knee.rate == 40
    assert report.knee.why.startswith("the generator could not keep to 80 a second")
    assert report.invalid


def test_a_server_that_refuses_has_missed_the_goal_however_late_the_generator_was() -> None:
    wanted = campaign(goal=goal("p99<50ms"), within=1.0)
    report = carry_out(wanted, lambda rate, number: ran(0.01, errors=0 if rate < 20 else 500, thread=1.0))
    assert report.knee is not None
    assert [step.verdict for step in report.knee.steps] == ["met", "missed"]
    assert not report.invalid


def test_most_of_the_repetitions_decide() -> None:
    latencies = iter([0.01, 0.5, 0.01, 0.5, 0.5, 0.01] + [0.5] * 60)
    wanted = campaign(goal=goal("p99<50ms"), repeat=3, within=1.0)
    report = carry_out(wanted, lambda rate, number: ran(next(latencies)))
    assert report.knee is not None
    assert (report.knee.rate, report.knee.above) == (10, 20)


def test_an_interruption_keeps_what_there_is() -> None:
    runs = [ran(0.01), ran(0.01, partial=True)]
    report = carry_out(campaign(rates=(10.0, 20.0, 30.0), repeat=1), lambda rate, number: runs.pop(0))
    assert [point.rate for point in report.points] == [10, 20]
    assert report.partial

    def interrupted(rate: float, number: int) -> Tally:
        if number:
            raise KeyboardInterrupt
        return ran(0.01)

    report = carry_out(campaign(rates=(10.0, 20.0)), interrupted)
    assert [point.rate for point in report.points] == [10]
    assert report.partial
    with pytest.raises(KeyboardInterrupt):
        carry_out(campaign(), lambda rate, number: interrupted(rate, 1))


def test_an_interruption_between_two_repetitions_keeps_those_before() -> None:
    def shoot(rate: float, number: int) -> Tally:
        if number == 2:
            raise KeyboardInterrupt
        return ran(0.01)

    report = carry_out(campaign(repeat=5), shoot)
    assert [len(point.runs) for point in report.points] == [2]
    assert report.partial


DIED = "a process of the load generator ended by signal 9"


def losing(*runs: int, **changes: Any) -> tuple[Report, list[int], list[str]]:
    """A campaign in which these runs are lost, the numbers of all that were tried, and what was said meanwhile."""
    tried: list[int] = []
    told: list[str] = []

    def shoot(rate: float, number: int) -> Tally:
        tried.append(number)
        if number in runs:
            raise WorkerDied(DIED)
        return ran(0.01)

    return carry_out(campaign(**changes), shoot, told.append), tried, told


def test_a_run_that_is_lost_late_leaves_all_others() -> None:
    report, tried, told = losing(3, rates=(10.0, 20.0, 30.0), repeat=2)
    assert tried == [0, 1, 2, 3, 4, 5]
    assert [(point.rate, len(point.runs)) for point in report.points] == [(10, 2), (20, 1), (30, 2)]
    assert report.lost == [f"20 a second, 2 of 2: {DIED}"]
    assert f"20 a second, 2 of 2: lost, as {DIED}" in told
    assert not report.partial
    assert json.loads(json.dumps(as_json(report, About("x"))))["lost"] == report.lost
    assert f"Runs were lost, and are in none of the figures:<br>20 a second, 2 of 2: {DIED}" in as_html(
        report, About("x")
    )


def test_a_rate_of_which_all_runs_are_lost_is_no_point() -> None:
    report, tried, _ = losing(1, rates=(10.0, 20.0, 30.0))
    assert [point.rate for point in report.points] == [10, 30]
    assert tried == [0, 1, 2]


def test_after_two_in_a_row_no_more_are_tried() -> None:
    report, tried, _ = losing(1, 2, 3, 4, rates=(10.0, 20.0, 30.0, 40.0, 50.0))
    assert tried == [0, 1, 2]
    assert [point.rate for point in report.points] == [10]
    assert report.lost[-1] == "2 runs in a row were lost, so what was to come after them was not measured"
    report, tried, _ = losing(1, 3, rates=(10.0, 20.0, 30.0, 40.0, 50.0))
    assert tried == [0, 1, 2, 3, 4], "two that are not in a row are no reason to stop"


def test_where_every_run_is_lost_the_first_reason_is_the_error() -> None:
    with pytest.raises(WorkerDied, match="signal 9"):
        losing(0, 1, 2, 3, rates=(10.0, 20.0))
    with pytest.raises(WorkerDied, match="signal 9"):
        losing(0)


def test_a_search_tries_a_lost_rate_again() -> None:
    report, tried, _ = losing(1, goal=goal("p99<50ms"), highest=20.0)
    assert report.knee is not None
    assert [step.verdict for step in report.knee.steps] == ["met", "unknown", "met"]
    assert report.knee.rate == 20
    assert tried == [0, 1, 2]
    report, tried, _ = losing(1, 2, goal=goal("p99<50ms"), highest=20.0)
    assert report.knee is None
    assert [point.rate for point in report.points] == [10]
    assert len(report.lost) == 3


def test_a_run_in_which_nothing_was_planned_is_no_success() -> None:
    report = carry_out(campaign(), lambda rate, number: Tally(kinds={"query": Kind()}, seconds=10))
    assert report.failed
    assert "nothing was measured" in as_html(report, About("x"))
    stopped = carry_out(campaign(), lambda rate, number: Tally(kinds={"query": Kind()}, partial=True))
    assert not stopped.failed


def test_where_nothing_succeeded_there_is_no_latency() -> None:
    runs = [ran(0.01, errors=1000), ran(0.02)]
    report = carry_out(campaign(repeat=2), lambda rate, number: runs[number])
    known = report.points[0].latency(99)
    assert known is not None
    assert known.mean == pytest.approx(0.02, rel=1e-3), "a run without a success must not count as one of 0 ms"
    failed = carry_out(campaign(), lambda rate, number: runs[0])
    assert failed.points[0].latency(99) is None
    assert json.loads(json.dumps(as_json(failed, About("x"))))["points"][0]["latency"]["p99"] is None
    (row,) = csv.DictReader(io.StringIO(as_csv(failed)))
    assert (row["ok"], row["p99_ms"], row["service_p99_ms"], row["max_ms"]) == ("0", "", "", "")
    assert "<td>-</td>" in as_html(failed, About("x"))


@pytest.mark.parametrize(("aim", "said"), [("p99<3s", True), ("p99<50ms", False)])
def test_a_knee_of_runs_that_are_short_for_its_goal_is_remarked(aim: str, said: bool) -> None:
    report = carry_out(campaign(goal=goal(aim), highest=20.0), lambda rate, number: ran(0.01))
    assert report.knee is not None
    assert report.knee.rate == 20
    assert any("may be up to 25% above what the server keeps up" in text for text in report.remarks) == said


def test_a_server_that_dies_is_noticed() -> None:
    dying = ran(0.01, errors=1000)
    report = carry_out(campaign(), lambda rate, number: dying)
    assert report.gone
    assert report.failed
    refusing = carry_out(campaign(), lambda rate, number: ran(0.01, errors=1000, status="RESOURCE_EXHAUSTED"))
    assert refusing.failed
    assert not refusing.gone
    nearly = carry_out(campaign(), lambda rate, number: ran(0.01, errors=1))
    assert not nearly.failed


REPORTS: Sequence[Callable[[], Report]] = (
    lambda: carry_out(campaign(rates=(10.0, 20.0), repeat=2), lambda rate, number: ran(0.01 + rate / 1000)),
    lambda: knee(lambda rate: 0.01 if rate <= 70 else 0.5),
    lambda: carry_out(campaign(), lambda rate, number: ran(0.01, errors=1000, status=NASTY)),
    lambda: carry_out(campaign(), lambda rate, number: ran(0.01, thread=1.0, partial=True)),
    lambda: carry_out(campaign(), lambda rate, number: Tally(kinds={"query": Kind()})),
)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.mark.parametrize("made", REPORTS)
def test_the_page_stands_alone(made: Callable[[], Report]) -> None:
    text = as_html(made(), About(f"matchcut bench load {NASTY}", f"server {NASTY}", {"CPU": NASTY}))
    page = Page()
    page.feed(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not page.attributes & {"src", "href", "srcset", "action", "data", "onload"}
    assert not re.search(r"https?:|//|url\(|@import", text.replace("</", ""))
    assert page.text.count(NASTY) >= 3
    for drawn in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(drawn)


def test_the_page_says_what_matters() -> None:
    page = Page()
    page.feed(as_html(knee(lambda rate: 0.01 if rate <= 70 else 0.5), About("matchcut bench load")))
    found = " ".join(page.text.split())
    assert "The highest rate with p99<50ms is" in found
    for word in ("Latency against load", "Percentiles", "rank", "The generator", "knee:", "loop's thread"):
        assert word in found
    assert "svg" in page.tags
    page = Page()
    page.feed(as_html(REPORTS[3](), About("matchcut bench load")))
    assert "INVALID: the generator was the bottleneck" in page.text
    assert "partial" in page.text


def test_json_and_csv_hold_it_all() -> None:
    report = REPORTS[0]()
    told = json.loads(json.dumps(as_json(report, About("matchcut bench load", "matchcut 1", {"CPU": "x"}))))
    assert told["format"] == "matchcut-load-1"
    assert [point["rate"] for point in told["points"]] == [10, 20]
    assert told["points"][0]["latency"]["p99"]["mean"] == pytest.approx(0.02, rel=1e-3)
    assert told["points"][0]["kinds"]["query"]["stages"]["rank"]["p50"] == pytest.approx(0.01, rel=1e-3)
    again = Tally.decoded(told["points"][1]["runs"][1])
    assert again.all.latency.at(99) == report.points[1].runs[1].all.latency.at(99)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [(row["rate"], row["run"], row["kind"], row["ok"]) for row in rows] == [
        ("10", "1", "query", "1000"),
        ("10", "2", "query", "1000"),
        ("20", "1", "query", "1000"),
        ("20", "2", "query", "1000"),
    ]
    assert float(rows[0]["p99_ms"]) == pytest.approx(20, rel=1e-3)
    assert float(rows[0]["service_p99_ms"]) == pytest.approx(19, rel=1e-3)
    found = as_json(REPORTS[1](), About("x"))["knee"]
    assert found["goal"] == "p99<50ms"
    assert found["steps"][0] == {"rate": 10.0, "verdict": "met"}
