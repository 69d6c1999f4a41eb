"""A report as data: one JSON document, or CSV with a row for each run and kind of request."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from typing import Any

from matchcut.bench.campaign import Point, Report
from matchcut.bench.confidence import Estimate
from matchcut.bench.histogram import PERCENTILES
from matchcut.bench.tally import Kind

__all__ = ["FORMAT", "About", "as_csv", "as_json"]

FORMAT = "matchcut-load-1"
SHOWN = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class About:
    """What a reader needs beside the figures. server: its name and version, where it tells."""

    command: str
    server: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def as_json(report: Report, about: About) -> dict[str, Any]:
    """Everything, histograms included, fit for JSON. Times are in seconds, rates a second."""
    campaign = report.campaign
    knee = None
    if report.knee is not None and campaign.goal is not None:
        knee = {"goal": campaign.goal.text, **asdict(report.knee)}
    return {
        "format": FORMAT,
        "command": about.command,
        "server": {"address": campaign.target.address, "identity": about.server},
        "environment": about.facts,
        "settings": {
            "schedule": campaign.plan.arrivals.schedule,
            "mix": dict(campaign.plan.mix.weights),
            "seed": campaign.plan.seed,
            "warmup": campaign.warmup,
            "seconds": campaign.plan.seconds - campaign.warmup,
            "repeat": campaign.repeat,
            "processes": campaign.processes,
            "channels": campaign.channels,
            "timeout": campaign.timeout,
            "late": campaign.late,
            "in_flight": campaign.in_flight,
            "errors": campaign.rules.errors,
        },
        "partial": report.partial,
        "invalid": report.invalid,
        "lost": report.lost,
        "knee": knee,
        "remarks": report.remarks,
        "points": [_point(report, point) for point in report.points],
    }


def as_csv(report: Report) -> str:
    """A row for each rate, run and kind, and for all kinds together where there are several.

    Times are in milliseconds, and empty where there was no success.
    """
    out = io.StringIO()
    names = [f"p{percent:g}_ms" for percent in PERCENTILES]
    columns = ["rate", "run", "kind", "planned", "sent", "ok", "late", "full", "unfinished", "errors", "throughput"]
    columns += ["mean_ms", *names, "max_ms", *(f"service_{name}" for name in names), "partial", "invalid"]
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for point in report.points:
        for number, run in enumerate(point.runs, start=1):
            kinds = dict(run.kinds)
            if len(kinds) > 1:
                kinds["all"] = run.all
            for name, kind in kinds.items():
                latency, service = kind.latency.each(PERCENTILES), kind.service.each(PERCENTILES)
                times = {"mean_ms": kind.latency.mean, "max_ms": kind.latency.most}
                times |= {f"p{percent:g}_ms": value for percent, value in latency.items()}
                times |= {f"service_p{percent:g}_ms": value for percent, value in service.items()}
                writer.writerow(
                    {
                        **{column: getattr(kind, column) for column in ("planned", "sent", "ok", "late", "full")},
                        "rate": f"{point.rate:g}",
                        "run": number,
                        "kind": name,
                        "unfinished": kind.unfinished,
                        "errors": " ".join(f"{status}={count}" for status, count in kind.errors.most_common()),
                        "throughput": f"{kind.latency.count / run.seconds if run.seconds else 0:.3f}",
                        **({column: f"{value * 1e3:.3f}" for column, value in times.items()} if kind.ok else {}),
                        "partial": int(run.partial),
                        "invalid": int(bool(point.invalid)),
                    }
                )
    return out.getvalue()


def _point(report: Report, point: Point) -> dict[str, Any]:
    tally = point.tally
    return {
        "rate": point.rate,
        "throughput": asdict(point.throughput),
        "latency": {f"p{percent:g}": _estimate(point.latency(percent)) for percent in SHOWN},
        "kinds": {name: _kind(kind) for name, kind in tally.kinds.items()},
        "invalid": point.invalid,
        "failures": point.failures(report.campaign.rules),
        "runs": [run.encoded() for run in point.runs],
    }


def _estimate(value: Estimate | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _kind(kind: Kind) -> dict[str, Any]:
    return {
        "planned": kind.planned,
        "ok": kind.ok,
        "missed": {"late": kind.late, "full": kind.full},
        "errors": dict(kind.errors),
        "unfinished": kind.unfinished,
        "frames": kind.frames,
        "frames_dropped": kind.dropped,
        "latency": kind.latency.summary(),
        "service": kind.service.summary(),
        "stages": {name: durations.summary() for name, durations in kind.stages.items()},
    }
