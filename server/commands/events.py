"""`matchcut events`: tell the server what users did, from a file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from matchcut.client import Client, Error, Event, InvalidInput, NotFound, Recorded
from matchcut.server import errors
from matchcut.server.commands.connect import add_connection, client, say, told
from matchcut.server.commands.event_rows import COLUMNS, Row, Rows
from matchcut.server.commands.output import console, counted, print_json, table

NAME = "events"
SUMMARY = "tell the server what users did, from a file"
DESCRIPTION = f"""\
Sends the events of a CSV file with a line of column names, or of a JSONL file with one object a line.
Columns: {", ".join(COLUMNS)}; the first three
are needed, and time or id. user_id, item_id and timestamp are understood, too, and other columns ignored; a comma
separates them. time is in seconds since 1970, or a date and time (UTC unless it says otherwise); kind is impression,
click, watch, like, dislike, skip, save, share or purchase; fraction (0 to 1) or watched (seconds) tell how much was
watched.
Rows that are wrong are listed with their lines and left out. Events that the server has already change nothing, so a
run that was interrupted goes on where it stopped when it is started again."""
EXAMPLES = """\
examples:
  matchcut events january.csv
  matchcut events january.jsonl --tenant shop --json
"""
BATCH = 500
FEW = 5  # items that are named where most are unknown
NEARBY = 1000  # items of the catalogue among which a name like theirs is looked for
PLACE = re.compile(r"events\[(\d+)\]\.?")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A row that is no event."""

    line: int
    error: str


@dataclass(slots=True)
class Outcome:
    """What became of the rows so far. line: the last one that is done."""

    done: Recorded = field(default_factory=Recorded)
    items: dict[str, None] = field(default_factory=dict)  # the first few that events were of
    wrong: list[Wrong] = field(default_factory=list)
    line: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file and the connection."""
    parser.add_argument("file", type=Path, metavar="FILE", help="events: .csv or .jsonl")
    parser.add_argument(
        "--max-wrong", type=int, default=100, metavar="N", help="stop after more wrong rows than that [default: 100]"
    )
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Sends all rows; 1 if any was wrong."""
    if arguments.max_wrong < 0:
        raise errors.InvalidInput("--max-wrong must be at least 0")
    outcome = Outcome()
    try:
        with closing(Rows(arguments.file)) as rows, client(arguments) as server:
            server.health()  # no server at all is told at once
            complete = send(server, rows, outcome, arguments)
            if rows.ignored:
                say(f"columns that are none of events are ignored: {', '.join(rows.ignored)}")
            missing = absent(server, outcome)
    except (Error, KeyboardInterrupt):
        if outcome.line:
            say(f"lines up to {outcome.line} are done; start it again to go on")
        raise
    if arguments.json:
        done = outcome.done
        counts = {"recorded": done.recorded, "duplicates": done.duplicates, "unknown_items": done.unknown_items}
        counts["expired"] = done.expired
        print_json({**counts, "wrong": outcome.wrong, "complete": complete})
    else:
        summarise(outcome)
    if missing is not None:
        warn(outcome, missing)
    if not complete:
        say(f"more than {counted(arguments.max_wrong, 'wrong rows')}; nothing after line {outcome.line} was sent")
    return 1 if outcome.wrong else 0


def send(server: Client, rows: Rows, outcome: Outcome, arguments: argparse.Namespace) -> bool:
    """Sends the rows, so many in a call; False where too many were wrong."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=arguments.json) as progress:
        task = progress.add_task("sending", total=rows.size)
        for batch in batches(rows):
            good: list[tuple[int, Event]] = []
            for row in batch:
                if isinstance(row.event, Event):
                    good.append((row.line, row.event))
                else:
                    outcome.wrong.append(Wrong(row.line, row.event))
            if len(outcome.wrong) <= arguments.max_wrong:
                record(server, good, outcome, arguments.max_wrong)
            if len(outcome.wrong) > arguments.max_wrong:
                return False
            outcome.line = batch[-1].line
            sent = f"sending, {outcome.done.recorded + outcome.done.duplicates} events"
            progress.update(task, completed=rows.read, description=sent)
    return True


def batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The rows, so many at a time."""
    while batch := list(islice(rows, BATCH)):
        yield batch


def record(server: Client, good: list[tuple[int, Event]], outcome: Outcome, most: int) -> None:
    """Records events of lines; those that the server finds wrong are noted, and the others recorded."""
    while good and len(outcome.wrong) <= most:
        try:
            outcome.done += server.record([event for _, event in good])
            for _, event in good:
                if len(outcome.items) == FEW:
                    break
                outcome.items[event.item] = None
            return
        except InvalidInput as error:
            place = PLACE.match(error.field)
            if place is None:
                raise
            line, _ = good.pop(int(place[1]))
            outcome.wrong.append(Wrong(line, PLACE.sub("", error.message, count=1)))


def summarise(outcome: Outcome) -> None:
    """How many are recorded, and each row that is not."""
    done = outcome.done
    console.print(
        f"{counted(done.recorded, 'events')} recorded, {done.duplicates} were there already; {done.unknown_items} of "
        "the new ones are of items that the catalogue does not have yet",
        highlight=False,
    )
    if done.expired:
        were = "was" if done.expired == 1 else "were"
        say(f"{counted(done.expired, 'events')} {were} too old to be kept: see --event-days of the server")
    if outcome.wrong:
        rows = [(str(one.line), one.error) for one in sorted(outcome.wrong, key=lambda one: one.line)]
        console.print(table("wrong", {"line": "right", "why": "left"}, rows))


def absent(server: Client, outcome: Outcome) -> dict[str, str] | None:
    """A few unknown items, each with one of the catalogue that has such a name, or "". None: most items are known.

    It is there to help only: where the server does not tell, there are none.
    """
    done = outcome.done
    if 2 * done.unknown_items <= done.recorded:
        return None
    try:
        unknown = [item for item in outcome.items if not exists(server, item)]
        there = {PurePosixPath(item.id).stem: item.id for item in server.page(size=NEARBY).items} if unknown else {}
    except Error:
        return {}
    return {item: there.get(PurePosixPath(item).stem, "") for item in unknown}


def exists(server: Client, item: str) -> bool:
    """Whether the catalogue has the item."""
    try:
        server.get(item)
    except NotFound:
        return False
    return True


def warn(outcome: Outcome, missing: dict[str, str]) -> None:
    """That most of the events cannot count, and of which items they are."""
    named = [f"{item!r}" + (f" (is it {like!r}?)" if like else "") for item, like in missing.items()]
    such = f", such as {', '.join(named)}" if named else ""
    new = counted(outcome.done.recorded, "new events")
    say(
        f"warning: the catalogue does not have the items of {outcome.done.unknown_items} of {new}{such}; "
        "they count once it has them, and `matchcut ls` shows what items are called"
    )
