"""`matchcut top`: what a server is doing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

from matchcut.server.commands.connect import UNREACHABLE, positive, say
from matchcut.server.commands.output import console, print_json
from matchcut.server.commands.top.reading import Reading, Source
from matchcut.server.commands.top.snapshot import Snapshot, snapshot
from matchcut.server.commands.top.view import view
from matchcut.server.config import environment
from matchcut.server.errors import Unavailable

NAME = "top"
SUMMARY = "watch what a server is doing"
DESCRIPTION = """\
Shows requests, stages, batches and what was given up of a server that was started with --metrics, and looks again
every --interval seconds until Ctrl-C. The first look, and the one of --once, is at all that happened since its start.
Medians and 99th percentiles are read from the buckets of histograms and are as coarse as those are.
Where the output is no terminal there is one look."""
EXAMPLES = """\
examples:
  matchcut serve --metrics 127.0.0.1:9464
  matchcut top
  matchcut top --once
  matchcut top --metrics 10.0.0.7:9464 --interval 5
  matchcut top --json
"""
DEFAULT = "127.0.0.1:9464"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where to look and how often."""
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default=environment("METRICS", DEFAULT),
        help=f"where the server serves its metrics [default: {DEFAULT}] [MATCHCUT_METRICS]",
    )
    parser.add_argument("--interval", type=positive, default=1.0, help="seconds between two looks [default: 1]")
    parser.add_argument("--once", action="store_true", help="look once and print it")
    parser.add_argument("--json", action="store_true", help="look once and print one JSON document; times in seconds")


def run(arguments: argparse.Namespace) -> int:
    """Looks and shows; returns 0 where it is told to end."""
    source = Source(arguments.metrics)
    try:
        if arguments.json:
            print_json(snapshot(source.address, source.read(), None))
        elif arguments.once or not console.is_terminal or console.is_dumb_terminal:
            console.print(view(snapshot(source.address, source.read(), None)))
        else:
            show(looks(source.address, source.read, lambda: time.sleep(arguments.interval)))
    except Unavailable as error:
        say(error.message)
        return UNREACHABLE
    return 0


def looks(address: str, read: Callable[[], Reading], wait: Callable[[], object]) -> Iterator[tuple[Snapshot, str]]:
    """A snapshot at each look, and a note; while the server is away, the last one.

    Raises:
        Unavailable: it was not there at the first look.
    """
    now = read()
    shown = snapshot(address, now, None)
    yield shown, ""
    while True:
        wait()
        try:
            before, now = now, read()
        except Unavailable as error:
            yield shown, f"these figures are old: {error.message}"
        else:
            shown = snapshot(address, now, before)
            yield shown, ""


def show(found: Iterator[tuple[Snapshot, str]]) -> None:
    """Shows one after the other, each in place of the one before, until Ctrl-C."""
    from rich.live import Live

    first = next(found)
    with Live(view(*first), console=console, screen=True, auto_refresh=False) as screen:
        screen.refresh()
        try:
            for shown, note in found:
                screen.update(view(shown, note), refresh=True)
        except KeyboardInterrupt:
            return
