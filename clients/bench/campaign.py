"""From what was asked to a report: each rate in fresh runs, as often as asked, or a search for the knee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from matchcut.bench import fleet, goal, plan, verdict
from matchcut.bench.confidence import Estimate, estimate
from matchcut.bench.drive import Bounds
from matchcut.bench.errors import LoadError
from matchcut.bench.plan import Plan
from matchcut.bench.prepared import Prepared
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target
from matchcut.bench.worker import Job

__all__ = ["Campaign", "Point", "Report", "carry_out", "shot"]

NEARLY_ALL = verdict.Rules()
LEAST = 10  # requests in a run: at rates below, a search for the knee has nothing to judge by
LOST_IN_A_ROW = 2  # runs; after so many the others would be lost, too
DRAIN = 1.0  # seconds beyond the timeout in which an answer may still come
Shot = Callable[[float, int], Tally]  # measures once: the rate, and which run of all it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What is to be measured.

    plan: everything but the rate; its seconds are with the warm-up. rates: to be measured one after the other.
    goal: where to look for the knee instead, from the first of the rates on. repeat: runs of each rate.
    timeout: deadline of each request in seconds. highest: where the search ends.
    """

    target: Target
    prepared: Callable[[int], tuple[Prepared, ...]]  # the requests of a run, by its number
    plan: Plan
    rates: tuple[float, ...]
    goal: goal.Goal | None = None
    rules: verdict.Rules = NEARLY_ALL
    repeat: int = 1
    processes: int = 1
    channels: int = 1
    warmup: float = 2.0
    timeout: float = 10.0
    late: float = 0.1
    in_flight: int = 1000
    highest: float = 1e6
    within: float = 0.05


@dataclass(slots=True)
class Point:
    """What was measured at one rate: a tally for each run."""

    rate: float
    runs: list[Tally] = field(default_factory=list)
    _merged: tuple[int, Tally] | None = None  # of how many runs

    @property
    def tally(self) -> Tally:
        """All runs as one, for percentiles, to be read only; its seconds are those of the longest."""
        if self._merged is None or self._merged[0] != len(self.runs):
            self._merged = len(self.runs), Tally.merged(self.runs)
        return self._merged[1]

    @property
    def throughput(self) -> Estimate:
        """Answers of successes a second, over the runs."""
        return estimate([run.throughput for run in self.runs])

    def latency(self, percent: float, kind: str = "") -> Estimate | None:
        """A percentile of latency in seconds, over the runs that had successes; of one kind, or of all together.

        None where there was no success at all: then there is no latency either.
        """
        found = [(run.kinds[kind] if kind else run.all).latency for run in self.runs]
        values = [latencies.at(percent) for latencies in found if latencies.count]
        return estimate(values) if values else None

    @property
    def invalid(self) -> list[str]:
        """Why the figures are the generator's own, of each run that has such a reason."""
        return _of_runs([verdict.invalid(run) for run in self.runs])

    def failures(self, rules: verdict.Rules) -> list[str]:
        """What had no success, of each run in which that is more than allowed."""
        return _of_runs([[text] if (text := verdict.failures(run, rules)) else [] for run in self.runs])


@dataclass(slots=True)
class Report:
    """All points in the order measured, and the knee where one was looked for.

    lost: which runs have no result, as a process of the generator died or could not do its job, and why; they are in no
    point.
    """

    campaign: Campaign
    points: list[Point] = field(default_factory=list)
    knee: goal.Knee | None = None
    partial: bool = False
    lost: list[str] = field(default_factory=list)

    @property
    def invalid(self) -> bool:
        """Some point's figures are the generator's own, or the search for the knee ended for that reason.

        A goal that is met although the generator was late is met: its lateness is part of the latency.
        """
        if self.knee is not None:
            return self.knee.steps[-1].verdict == "unknown"
        return any(point.invalid for point in self.points)

    @property
    def failed(self) -> bool:
        """More requests than allowed had no success; of rates above the knee that is no news."""
        rules = self.campaign.rules
        judged = [point for point in self.points if self.knee is None or point.rate <= self.knee.rate]
        return any(point.failures(rules) for point in judged)

    @property
    def remarks(self) -> list[str]:
        """What a reader should know who is about to believe the figures."""
        found = [f"{point.rate:g} a second: {text}" for point in self.points for text in verdict.remarks(point.tally)]
        counts = [count for point in self.points if (count := point.tally.all.latency.count)]
        if counts and min(counts) < verdict.FEW:
            found.append(f"a p99 here rests on {min(counts)} answers; from {verdict.FEW} on it rests on ten of them")
        goal, lasts = self.campaign.goal, self.campaign.plan.seconds
        if self.knee is not None and self.knee.rate and goal is not None and goal.most > self.campaign.within * lasts:
            found.append(
                f"a run of {lasts:g} s is short for {goal.text}: a queue that never stops growing may not get there, "
                f"so the knee may be up to {goal.most / lasts:.0%} above what the server keeps up; give more --seconds"
            )
        if self.campaign.target.local:
            found.append("the server is on this machine: the generator takes cores from it")
        return found

    @property
    def gone(self) -> bool:
        """The server was away: in the last second in which anything was planned, nothing but failures to reach it."""
        last = self.points[-1].runs[-1] if self.points and self.points[-1].runs else None
        if last is None or not last.timeline:
            return False
        ok, failed, _ = last.timeline[max(last.timeline)]
        return not ok and failed > 0 and last.all.errors["UNAVAILABLE"] > 0


class _Interrupted(Exception):
    """A run was interrupted; what it counted is kept."""


class _Lost(Exception):
    """Too many runs in a row gave nothing."""


def carry_out(campaign: Campaign, shoot: Shot, told: Callable[[str], object] = lambda line: None) -> Report:
    """Measures all that is asked; Ctrl-C during a run ends it with what there is, marked partial.

    A run that a process of the generator did not survive is told in the report, beside all others; after two in a row
    no more are tried.

    Args:
        campaign: what to measure.
        shoot: measures once; see shot().
        told: gets a line about each run, before it and after it.

    Raises:
        BadInput: a schedule cannot be made.
        LoadError: why the first run was lost, where there is nothing else to report.
        KeyboardInterrupt: before there was anything to report.
    """
    for rate in campaign.rates:  # what cannot be planned is told before anything is measured
        plan.check(replace(campaign.plan, rate=campaign.plan.arrivals.offered(rate)))
    measuring = _Measuring(campaign, shoot, told)
    report = measuring.report
    try:
        if campaign.goal is not None:
            measured = campaign.plan.seconds - campaign.warmup
            report.knee = goal.search(
                partial(measuring.judge, campaign.goal),
                campaign.rates[0],
                lowest=LEAST / measured,
                highest=campaign.highest,
                within=campaign.within,
            )
        else:
            for rate in campaign.rates:
                measuring.measure(rate)
    except _Interrupted:
        report.partial = True
    except _Lost:
        report.lost.append(f"{LOST_IN_A_ROW} runs in a row were lost, so what was to come after them was not measured")
    except KeyboardInterrupt:
        if not report.points:
            raise
        report.partial = True
    if measuring.first_error is not None and not report.points:
        raise measuring.first_error
    return report


class _Measuring:
    """A campaign under way; its report grows with each run."""

    def __init__(self, campaign: Campaign, shoot: Shot, told: Callable[[str], object]) -> None:
        self.report = Report(campaign)
        self.first_error: LoadError | None = None
        self._campaign = campaign
        self._shoot = shoot
        self._told = told
        self._numbers = count()  # of runs, lost ones included: what they have put in has ids with that number
        self._lost_in_a_row = 0

    def measure(self, rate: float) -> Point:
        """All runs of a rate; without any where all were lost."""
        campaign = self._campaign
        offered = campaign.plan.arrivals.offered(rate)
        point = Point(offered)
        measured = campaign.plan.seconds - campaign.warmup
        try:
            for turn in range(campaign.repeat):
                of = f", {turn + 1} of {campaign.repeat}" if campaign.repeat > 1 else ""
                run = f"{offered:g} a second{of}"
                self._told(f"{run}: {campaign.warmup:g} s to warm up, {measured:g} s measured")
                try:
                    tally = self._shoot(offered, next(self._numbers))
                except LoadError as error:
                    self._lose(run, error)
                    continue
                self._lost_in_a_row = 0
                point.runs.append(tally)
                if tally.partial:
                    raise _Interrupted
        finally:
            if point.runs:  # whatever ends it leaves the runs before
                self.report.points.append(point)
        return point

    def judge(self, wanted: goal.Goal, rate: float) -> goal.Verdict:
        """Measures a rate and says whether it meets the goal."""
        point, rules = self.measure(rate), self._campaign.rules
        if not point.runs:
            return "unknown"
        kept = sum(verdict.met(run, wanted, rules) for run in point.runs)
        found: goal.Verdict = "met" if 2 * kept > len(point.runs) else "missed"
        if found == "missed" and point.invalid and not verdict.refused(point.tally, rules):
            found = "unknown"
        self._told(f"{point.rate:g} a second: {wanted.text} is {found}")
        return found

    def _lose(self, run: str, error: LoadError) -> None:
        self.first_error = self.first_error or error
        self.report.lost.append(f"{run}: {error.message}")
        self._told(f"{run}: lost, as {error.message}")
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW:
            raise _Lost


def shot(campaign: Campaign) -> Shot:
    """Measures with processes of the generator."""

    def shoot(rate: float, number: int) -> Tally:
        planned = replace(campaign.plan, rate=rate, seed=campaign.plan.seed + number)
        bounds = Bounds(
            seconds=planned.seconds,
            warmup=campaign.warmup,
            late=campaign.late,
            in_flight=max(1, campaign.in_flight // campaign.processes),
            drain=campaign.timeout + DRAIN,
        )
        prepared = campaign.prepared(number)
        return fleet.run(
            [
                Job(
                    target=campaign.target,
                    prepared=prepared,
                    plan=planned,
                    bounds=bounds,
                    timeout=campaign.timeout,
                    process=process,
                    processes=campaign.processes,
                    channels=campaign.channels,
                )
                for process in range(campaign.processes)
            ]
        )

    return shoot


def _of_runs(found: Sequence[list[str]]) -> list[str]:
    if len(found) == 1:
        return found[0]
    return [f"run {number}: {text}" for number, texts in enumerate(found, start=1) for text in texts]
