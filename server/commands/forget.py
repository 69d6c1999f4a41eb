"""`matchcut forget`: delete all that is kept of a user."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from matchcut.server.commands.connect import add_connection, client, told
from matchcut.server.commands.output import console, counted, print_json

NAME = "forget"
SUMMARY = "delete all that is kept of a user"
DESCRIPTION = """\
Deletes a user's events, state and the lists that were shown, from memory and from the disk, and prints the server's
receipt, which does not name the user. Succeeds if there is nothing, and says so."""
EXAMPLES = """\
examples:
  matchcut forget ann
  matchcut forget ann --tenant shop --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the user and the connection."""
    parser.add_argument("user", metavar="USER", help="id of the user, as events named it")
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Deletes and prints the receipt."""
    with client(arguments) as server:
        receipt = server.forget(arguments.user)
    if arguments.json:
        print_json(receipt)
        return 0
    when = datetime.fromtimestamp(receipt.time, UTC).isoformat(timespec="seconds")
    were = "was" if receipt.exposures == 1 else "were"
    deleted = f"{counted(receipt.events, 'events')} and {counted(receipt.exposures, 'lists')} that {were} shown"
    console.print(f"deleted {deleted}, {when}", highlight=False)
    console.print(f"receipt {receipt.digest}", highlight=False, soft_wrap=True)
    return 0
