"""Tables and JSON of the commands' results."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from matchcut.client import Encoder, MediaReport, Ranking, StageTimes, TimeRange

console = Console()
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of surrogates, line and paragraph separators
# What changes the direction of the text around it, so that a line reads otherwise than it is: UAX #9, table 2.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(value: Any) -> Any:
    """Records as what JSON knows."""
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, TimeRange):
        return {"start": value.start, "end": value.end}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Iterable):
        return [plain(one) for one in value]
    return str(value)


def printable(text: str) -> str:
    """Text that a terminal only shows: what controls it or the order of the text, or is no Unicode, is an escape.

    Ids, titles and warnings are other people's words; one with an escape sequence in it is not to be obeyed.
    """
    return "".join(c.encode("unicode_escape").decode() if _controls(c) else c for c in text)


def _controls(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in _ESCAPED


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2))


def seconds(span: TimeRange | None) -> str:
    """A stretch of time as a person reads it."""
    return "-" if span is None else f"{span.start:.2f} - {span.end:.2f} s"


def counted(count: int, what: str) -> str:
    """So many of what is named in the plural, e.g. "1 frame"."""
    return f"{count} {what.removesuffix('s') if count == 1 else what}"


def table(title: str, columns: Mapping[str, str], rows: Iterable[Iterable[str]]) -> Table:
    """A table; columns are {heading: "left" or "right"}."""
    made = Table(title=Text(printable(title), style="bold"), title_justify="left")
    for heading, side in columns.items():
        made.add_column(heading, justify="right" if side == "right" else "left")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def print_ranking(ranking: Ranking, title: str) -> None:
    """The ranked items with where each matched, then the time of each stage."""
    columns = {"#": "right", "item": "left", "score": "right", "in the query": "right", "in the item": "right"}
    rows = [
        (str(place), match.item.id, f"{match.score:.4f}", seconds(match.query_range), seconds(match.item_range))
        for place, match in enumerate(ranking.matches, start=1)
    ]
    console.print(table(title, columns, rows))
    if not ranking.matches:
        console.print(
            "no item is eligible: the catalogue is empty, the filters leave nothing, or its items were put in with "
            "another encoder (the server's log says so when it starts)"
        )
    if ranking.report is not None:
        print_report(ranking.report)
    print_times(ranking.times, ranking.encoder)


def print_times(times: StageTimes, encoder: Encoder) -> None:
    """The time of each stage."""
    rows = [
        (
            stage.name,
            f"{stage.wall * 1e3:.1f}",
            f"{stage.cpu * 1e3:.1f}",
            stage.variant,
            ", ".join(counted(count, name) for name, count in sorted(stage.counts.items())),
        )
        for stage in times.stages
    ]
    rows.append(("total", f"{times.total * 1e3:.1f}", "", "", ""))
    columns = {"stage": "left", "ms": "right", "CPU ms": "right", "by": "left", "what": "left"}
    console.print(table(f"encoder {encoder.name} {encoder.version}", columns, rows))


def print_report(report: MediaReport) -> None:
    """What was found in the media, and every warning."""
    what = " ".join(part for part in (report.container, report.codec) if part)
    console.print(
        f"{what or 'frames'} {report.width}x{report.height}, {report.duration:.2f} s: {report.frames_seen} frames "
        f"decoded, {report.frames_used} used ({report.frames_reused} of them still), {report.frames_blank} blank",
        highlight=False,
    )
    for warning in report.warnings:
        print_warning(f"{warning.reason}: {warning.message}")


def print_warning(text: str) -> None:
    """A line that begins with a yellow word; brackets in the text are no markup."""
    console.print(Text.assemble(("warning ", "yellow"), printable(text)))
