"""A report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from matchcut.bench.campaign import Point, Report
from matchcut.bench.confidence import Estimate
from matchcut.bench.export import About
from matchcut.bench.goal import Knee
from matchcut.bench.histogram import Durations
from matchcut.bench.svg import Axis, Line, chart

__all__ = ["as_html"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.4em } th, td { padding: .2em .7em; border-bottom: 1px solid #ddd }
td { text-align: right; font-variant-numeric: tabular-nums } td:first-child { text-align: left }
th { font-weight: 600; text-align: left } svg { width: 100%; font: 12px system-ui, sans-serif } code { font-size: 90% }
.bad { background: #fde8e6; border-left: 4px solid #c00; padding: .5em 1em } .good { border-left: 4px solid #3a8f5c;
padding: .5em 1em; background: #eef7f0 } .note { color: #555 }
"""
CURVE = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99)
MOST_CURVES = 8


def as_html(report: Report, about: About) -> str:
    """The page."""
    campaign = report.campaign
    body = [
        f"<h1>Load on {escape(campaign.target.address)}</h1>",
        f"<p><code>{escape(about.command)}</code></p>",
        _verdict(report),
        "<h2>Latency against load</h2>",
        "<p class=note>Latency counts from the time at which a request was planned to be sent. Successes only.</p>",
        _against_load(report),
        _points(report.points),
        "<h2>Percentiles</h2>",
        _percentiles(report.points),
        "<h2>By kind of request</h2>",
        _kinds(report.points),
        _stages(report.points),
        "<h2>In the course of time</h2>",
        _timelines(report.points),
        "<h2>What had no success</h2>",
        _failures(report.points),
        "<h2>The generator</h2>",
        _generators(report.points),
        "<h2>What to know</h2>",
        _list(report.remarks),
        "<h2>Where the figures are from</h2>",
        _table(["", ""], _about(report, about)),
    ]
    title = f"Load on {escape(campaign.target.address)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _verdict(report: Report) -> str:
    parts = []
    if report.partial:
        parts.append(_box("bad", ["The measuring was interrupted: this is partial."]))
    if report.lost:
        parts.append(_box("bad", ["Runs were lost, and are in none of the figures:", *report.lost]))
    why = [f"{point.rate:g} a second: {text}" for point in report.points for text in point.invalid]
    if report.invalid:
        parts.append(_box("bad", ["INVALID: the generator was the bottleneck, not the server.", *why]))
    rules = report.campaign.rules
    failures = [f"{point.rate:g} a second: {text}" for point in report.points for text in point.failures(rules)]
    if report.gone:
        failures.append("At the end the server did not answer any more.")
    if failures:
        parts.append(_box("bad", failures))
    if report.knee is not None:
        parts.append(_box("good" if report.knee.rate else "bad", [_knee(report, report.knee)]))
    return "".join(parts) or _box("good", ["The generator kept to its plan, and the server answered."])


def _knee(report: Report, knee: Knee) -> str:
    assert report.campaign.goal is not None
    goal = report.campaign.goal.text
    if not knee.rate:
        return f"The knee was not found: {knee.why}."
    return f"The highest rate with {goal} is {knee.rate:.4g} a second; {knee.beyond}."


def _against_load(report: Report) -> str:
    points = _by_rate(report.points)
    lines = [
        Line(name, [(point.rate, found.mean * 1e3) for point in points if (found := point.latency(percent))])
        for name, percent in (("p50", 50.0), ("p95", 95.0), ("p99", 99.0))
    ]
    knee, goal = report.knee, report.campaign.goal
    mark = (knee.rate, f"knee: {knee.rate:.4g}") if knee and knee.rate else None
    across = goal.most * 1e3 if goal else 0
    return chart(Axis("offered, requests a second"), Axis("latency, ms", log=True), lines, mark=mark, across=across)


def _points(points: Sequence[Point]) -> str:
    headings = ["offered /s", "answered /s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms", "service p99 ms"]
    rows = []
    for point in points:
        tally = point.tally.all
        rates = [f"{point.rate:g}", _estimate(point.throughput)]
        cells = [_estimate(point.latency(percent), 1e3) for percent in (50.0, 95.0, 99.0, 99.9, 100.0)]
        rows.append([*rates, *cells, _at(tally.service, 99), "INVALID" if point.invalid else ""])
    note = "<p class=note>± is half of the 95 % confidence interval over the repetitions.</p>"
    return _table([*headings, ""], rows) + (note if any(len(point.runs) > 1 for point in points) else "")


def _percentiles(points: Sequence[Point]) -> str:
    chosen = _by_rate(points)[-MOST_CURVES:]
    lines = []
    for point in chosen:
        latency = point.tally.all.latency
        # A percentile that fewer than one answer decides is the maximum under another name.
        held = [percent for percent in CURVE if latency.count * (1 - percent / 100) >= 1]
        values = latency.each(held)
        drawn = [(100 / (100 - percent), values[percent] * 1e3) for percent in held]
        lines.append(Line(f"{point.rate:g} /s", drawn, dots=False))
    shown = Axis("percentile", log=True, show=lambda value: f"{100 - 100 / value:.6g} %")
    return chart(shown, Axis("latency, ms", log=True), lines)


def _by_rate(points: Sequence[Point]) -> list[Point]:
    """In the order of their rates; of a rate that was tried again, the last try."""
    last = {point.rate: point for point in points}
    return [last[rate] for rate in sorted(last)]


def _kinds(points: Sequence[Point]) -> str:
    headings = ["", "offered /s", "planned", "ok", "errors", "missed", "p50 ms", "p99 ms", "service p50", "service p99"]
    rows = []
    for point in points:
        for name, kind in point.tally.kinds.items():
            counts = [str(kind.planned), str(kind.ok), str(kind.errors.total()), str(kind.missed)]
            times = [_at(kind.latency, 50), _at(kind.latency, 99)]
            served = [_at(kind.service, 50), _at(kind.service, 99)]
            dropped = f"{kind.dropped} of {kind.frames} frames dropped by the server" if kind.frames else ""
            rows.append([name, f"{point.rate:g}", *counts, *times, *served, dropped])
    return _table([*headings, ""], rows)


def _stages(points: Sequence[Point]) -> str:
    rows = [
        [name, f"{point.rate:g}", stage, _ms(times.mean), _ms(times.at(50)), _ms(times.at(99)), str(times.count)]
        for point in points
        for name, kind in point.tally.kinds.items()
        for stage, times in kind.stages.items()
    ]
    if not rows:
        return "<p class=note>The server tells no stage times.</p>"
    note = (
        "<p class=note>As the server tells in its replies; “elsewhere” is the service time beyond its total. Of live "
        "queries they are means of a stream's frames, and “receive” is the wait for them.</p>"
    )
    headings = ["", "offered /s", "stage", "mean ms", "p50 ms", "p99 ms", "replies looked at"]
    return f"<h2>Stages of the server</h2>{note}{_table(headings, rows)}"


def _timelines(points: Sequence[Point]) -> str:
    parts = []
    for point in points:
        timeline = point.tally.timeline
        if not timeline:
            continue
        names = ("succeeded", "failed", "not sent")
        lines = [
            Line(name, [(second, timeline[second][column]) for second in sorted(timeline)], dots=False)
            for column, name in enumerate(names)
            if column == 0 or any(counts[column] for counts in timeline.values())
        ]
        parts.append(f"<p>{point.rate:g} a second, all runs, by planned second:</p>")
        parts.append(chart(Axis("second"), Axis("requests"), lines))
    return "".join(parts)


def _failures(points: Sequence[Point]) -> str:
    rows = []
    for point in points:
        for name, kind in point.tally.kinds.items():
            found = [*kind.errors.most_common(), ("not sent: generator too late", kind.late)]
            found += [("not sent: too many under way", kind.full), ("unfinished", kind.unfinished)]
            rows += [
                [name, f"{point.rate:g}", status, str(count), kind.why.get(status, "")]
                for status, count in found
                if count
            ]
    return (
        _table(["", "offered /s", "status", "requests", "what the server said first"], rows)
        if rows
        else "<p>Nothing: all requests succeeded.</p>"
    )


def _generators(points: Sequence[Point]) -> str:
    headings = [
        "offered /s",
        "run",
        "process",
        "loop's thread",
        "all threads",
        "lag p99 ms",
        "late p50 ms",
        "late p99 ms",
    ]
    rows = [
        [
            f"{point.rate:g}",
            str(run),
            str(number),
            f"{one.thread:.0%}",
            f"{one.cpu:.0%}",
            *(_ms(value) for value in (one.lag.at(99), one.lateness.at(50), one.lateness.at(99))),
        ]
        for point in points
        for run, tally in enumerate(point.runs, start=1)
        for number, one in enumerate(tally.generators, start=1)
    ]
    return _table(headings, rows) + "<p class=note>Shares are of one core.</p>"


def _about(report: Report, about: About) -> list[list[str]]:
    campaign = report.campaign
    settings = {
        "server": about.server or "unknown",
        "requests": str(campaign.plan.mix),
        "schedule": f"{campaign.plan.arrivals.schedule}, seed {campaign.plan.seed}",
        "measured": f"{campaign.plan.seconds - campaign.warmup:g} s after {campaign.warmup:g} s of warm-up",
        "repeated": f"{campaign.repeat} times" if campaign.repeat > 1 else "no: nothing is known of the spread",
        "generator": f"{campaign.processes} processes with {campaign.channels} connections each",
        "deadline": f"{campaign.timeout:g} s; not sent if {campaign.late:g} s late or {campaign.in_flight} under way",
    }
    return [[name, value] for name, value in {**settings, **about.facts}.items()]


def _estimate(value: Estimate | None, factor: float = 1.0) -> str:
    if value is None:
        return "-"
    half = "" if value.half is None else f" ± {value.half * factor:.3g}"
    return f"{value.mean * factor:.4g}{half}"


def _at(times: Durations, percent: float) -> str:
    """A percentile in milliseconds; where there was no success there is none."""
    return _ms(times.at(percent)) if times.count else "-"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}"


def _box(kind: str, lines: Iterable[str]) -> str:
    return f'<div class="{kind}">{"<br>".join(escape(line) for line in lines)}</div>'


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
