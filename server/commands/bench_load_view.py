"""A load report as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from matchcut.bench.campaign import Point, Report
from matchcut.bench.confidence import Estimate
from matchcut.bench.export import About
from matchcut.server.commands.output import console, counted, printable, table

__all__ = ["show"]


def show(report: Report, about: About) -> None:
    """Prints the report: rates, kinds of requests where there are several, stages of the last rate, what to know."""
    campaign = report.campaign
    who = about.server or campaign.target.address
    titled = f"{who}: {campaign.plan.mix}, {campaign.plan.arrivals.schedule}; rates a second, latency in ms"
    headings = ["rate", "done", "p50", "p95", "p99", "p99.9", "failed", "unsent"]
    columns = dict.fromkeys([*headings, ""], "right")
    rates = table(titled, columns, (_cells(point) for point in report.points))
    rates.columns[-1].no_wrap = True  # where room is short, figures fold rather than that a verdict is cut off
    console.print(rates)
    if len(campaign.plan.mix.names) > 1:
        kinds = ["rate", "kind", "planned", "ok", "p50", "p99", "service p50", "service p99"]
        made = table("by kind of request", dict.fromkeys(kinds, "right"), _kinds(report))
        made.columns[1].no_wrap = True  # likewise, headings rather than names
        console.print(made)
    stages = list(_stages(report.points[-1])) if report.points else []
    if stages:
        columns = {"kind": "left", "stage": "left", "mean": "right", "p50": "right", "p99": "right"}
        console.print(table(f"server's stages at {report.points[-1].rate:g} a second, in ms", columns, stages))
    for line in _lines(report):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _cells(point: Point) -> Iterator[str]:
    everything = point.tally.all
    yield f"{point.rate:g}"
    yield _estimate(point.throughput)
    for percent in (50.0, 95.0, 99.0, 99.9):
        yield _estimate(point.latency(percent), 1e3)
    yield str(everything.errors.total() + everything.unfinished)
    yield str(everything.missed)
    yield "INVALID" if point.invalid else "partial" if point.tally.partial else ""


def _kinds(report: Report) -> Iterator[list[str]]:
    for point in report.points:
        for name, kind in point.tally.kinds.items():
            times = [durations.at(percent) for durations in (kind.latency, kind.service) for percent in (50.0, 99.0)]
            shown = [f"{time * 1e3:.4g}" if kind.ok else "-" for time in times]
            yield [f"{point.rate:g}", name, str(kind.planned), str(kind.ok), *shown]


def _stages(point: Point) -> Iterator[list[str]]:
    for name, kind in point.tally.kinds.items():
        for stage, times in kind.stages.items():
            yield [name, stage, *(f"{time * 1e3:.3f}" for time in (times.mean, times.at(50), times.at(99)))]


def _lines(report: Report) -> Iterator[str]:
    campaign = report.campaign
    yield "latency counts from the planned time, of successes only" + (
        "; ± is half of the 95 % confidence interval over the repetitions" if campaign.repeat > 1 else ""
    )
    for point in report.points:
        workers = [one for run in point.runs for one in run.generators]
        if workers:
            busy, lag = max(one.thread for one in workers), max(one.lag.at(99) for one in workers)
            yield (
                f"{point.rate:g}/s: generator busy {busy:.0%} of a core at most, its loop late by {lag * 1e3:.2f} ms "
                f"(p99), requests by {point.tally.lateness.at(99) * 1e3:.2f} ms (p99)"
            )
        for kind in point.tally.kinds.values():
            if kind.frames:
                yield f"{point.rate:g}/s: {counted(kind.frames, 'frames')} sent, {kind.dropped} dropped by the server"
        yield from (f"{point.rate:g}/s: {text}" for text in point.failures(campaign.rules))
        yield from (f"{point.rate:g}/s: {said}" for said in _said(point))
        yield from (f"{point.rate:g}/s: INVALID: {text}" for text in point.invalid)
    yield from (f"LOST: {text}" for text in report.lost)
    yield from report.remarks
    if report.knee is not None and campaign.goal is not None:
        knee = report.knee
        if knee.rate:
            yield f"knee: {campaign.goal.text} up to {knee.rate:.4g} a second; {knee.beyond}"
        else:
            yield f"no knee: {knee.why}"
    if report.gone:
        yield "the server did not answer any more at the end"
    if report.partial:
        yield "interrupted: these figures are partial"


def _said(point: Point) -> Iterator[str]:
    """What the server said of the first failure of each status, and of which kinds; the same words once."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, kind in point.tally.kinds.items():
        for status, said in kind.why.items():
            if said:
                kinds.setdefault((status, said), []).append(name)
    of_several = len(point.tally.kinds) > 1
    for (status, said), names in kinds.items():
        of = f" ({', '.join(names)})" if of_several else ""
        yield f"{status}{of}: {said}"


def _estimate(value: Estimate | None, factor: float = 1.0) -> str:
    if value is None:
        return "-"  # no success, so no latency
    half = "" if value.half is None else f" ± {_short(value.half * factor, 2)}"
    return f"{_short(value.mean * factor, 4)}{half}"


def _short(value: float, digits: int) -> str:
    return f"{value:.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
