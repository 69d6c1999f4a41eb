"""Shows what a server is doing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from matchcut.server.commands.output import printable, table
from matchcut.server.commands.top.snapshot import Snapshot

__all__ = ["view"]


def view(shown: Snapshot, note: str = "") -> Group:
    """A few lines, and below them tables, side by side where there is room.

    Args:
        note: a warning to show as well.
    """
    runs = [batches(shown)] if shown.batches else []
    times = [stages(shown)] if shown.stages else []
    return Group(*lines(shown, note), Columns([Group(requests(shown), *runs), *times], padding=(0, 2)))


def lines(shown: Snapshot, note: str) -> Iterator[Text]:
    """What needs no table."""
    span = f"{shown.seconds:.1f} s"
    yield Text.assemble(
        ("matchcut", "bold"),
        printable(f" {shown.version} at {shown.address}: "),
        f"since its start, {span} ago" if shown.since_start else f"the last {span}",
    )
    if note:
        yield Text.assemble(("warning ", "yellow"), printable(note))
    places = ", ".join(f"{number(one.taken)} of {number(one.size)} {one.kind}" for one in shown.places)
    segments = f"{number(shown.segments)} segments, {number(shown.coded_segments)} coded for the scan"
    models = ", ".join(f"{one.name} {one.version}{'' if one.ready else ' (not ready)'}" for one in shown.models)
    drops = "; ".join(f"{number(one.count)} {one.what}: {one.reason}" for one in shown.drops)
    for what, text in (("places taken", places), ("catalogue", segments), ("models", models), ("given up", drops)):
        yield Text(printable(f"{what}: {text or 'none'}"))


def requests(shown: Snapshot) -> Table:
    """A row for each rpc."""
    right = dict.fromkeys(("ended", "per s", "under way", "p50 ms", "p99 ms"), "right")
    rows = (
        (
            one.rpc.rpartition("/")[2],
            number(one.ended),
            "-" if one.per_second is None else f"{one.per_second:.1f}",
            number(one.under_way),
            ms(one.p50),
            ms(one.p99),
            ", ".join(f"{number(count)} {code}" for code, count in one.failed.items()),
        )
        for one in shown.requests
    )
    return table("requests", {"rpc": "left", **right, "failed": "left"}, rows)


def stages(shown: Snapshot) -> Table:
    """A row for each stage."""
    right = dict.fromkeys(("replies", "p50 ms", "p99 ms", "total s"), "right")
    rows = ((one.stage, number(one.replies), ms(one.p50), ms(one.p99), f"{one.total:.2f}") for one in shown.stages)
    return table("stages", {"stage": "left", **right}, rows)


def batches(shown: Snapshot) -> Table:
    """A row for each model."""
    right = dict.fromkeys(("runs", "rows a run", "waiting", "wait p50 / p99", "run p50 / p99"), "right")
    rows = (
        (
            one.model,
            number(one.runs),
            "-" if one.rows_per_run is None else f"{one.rows_per_run:.1f}",
            number(one.waiting),
            f"{ms(one.wait_p50)} / {ms(one.wait_p99)}",
            f"{ms(one.run_p50)} / {ms(one.run_p99)}",
        )
        for one in shown.batches
    )
    return table("batches, ms", {"model": "left", **right}, rows)


def number(value: float) -> str:
    """A count, which is whole unless somebody else tells it."""
    return f"{value:.0f}" if math.isfinite(value) else "?"


def ms(seconds: float | None) -> str:
    """Seconds as milliseconds."""
    return "-" if seconds is None or not math.isfinite(seconds) else f"{seconds * 1e3:.1f}"
