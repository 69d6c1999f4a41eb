"""`matchcut rm`: take items out of the catalogue."""

from __future__ import annotations

import argparse
import sys

from matchcut.client import NotFound
from matchcut.server.commands.connect import add_connection, client, told
from matchcut.server.commands.output import print_json

NAME = "rm"
SUMMARY = "remove items from the catalogue"
DESCRIPTION = "Removes items; the next query no longer sees them."
EXAMPLES = """\
examples:
  matchcut rm tour/bikes.mp4
  matchcut rm old.mp4 older.mp4 --missing-ok
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the items and the connection."""
    parser.add_argument("items", nargs="+", metavar="ITEM", help="id of an item, as `matchcut ls` shows it")
    parser.add_argument("--missing-ok", action="store_true", help="items that are not there are no failure")
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Removes one after the other; goes on after one that is missing."""
    removed: list[str] = []
    missing: list[str] = []
    with client(arguments) as server:
        for item in arguments.items:
            try:
                (removed if server.remove(item, missing_ok=arguments.missing_ok) else missing).append(item)
            except NotFound as error:
                print(f"matchcut: {error.message}", file=sys.stderr)
                missing.append(item)
    if arguments.json:
        print_json({"removed": removed, "missing": missing})
    else:
        print(f"removed {len(removed)} of {len(arguments.items)}")
    return 1 if missing and not arguments.missing_ok else 0
