"""`matchcut train rollback`: the session model that was served before."""

from __future__ import annotations

import argparse

from matchcut.server.commands.output import print_json
from matchcut.server.commands.train.session import place

NAME = "rollback"
SUMMARY = "serve the session model that was served before"
DESCRIPTION = """\
Makes the version that was served before the present one the one that is. A server that was started with --session takes
it within some seconds; states of users are made anew from their events."""
EXAMPLES = """\
examples:
  matchcut train rollback sessions
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the folder."""
    parser.add_argument("folder", type=place, metavar="FOLDER", help="of the session model's versions")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Goes back by one."""
    from matchcut.server.session.folder import current, rollback

    before = current(arguments.folder)
    number = rollback(arguments.folder)
    if arguments.json:
        print_json({"before": before, "served": number})
    else:
        print(f"version {number} is served now, as before version {before}")
    return 0
