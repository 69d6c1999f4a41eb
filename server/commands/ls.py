"""`matchcut ls`: what is in the catalogue."""

from __future__ import annotations

import argparse

from matchcut.server.commands.connect import add_connection, add_tag_filter, client, told
from matchcut.server.commands.output import console, counted, print_json, table

NAME = "ls"
SUMMARY = "list the catalogue"
DESCRIPTION = "Lists the items of the server's catalogue in the order of their ids."
EXAMPLES = """\
examples:
  matchcut ls
  matchcut ls --tag sport --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the filter and the connection."""
    add_tag_filter(parser)
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Lists and prints."""
    with client(arguments) as server:
        items = list(server.items(all_of=arguments.tag, any_of=arguments.any_tag, none_of=arguments.not_tag))
    if arguments.json:
        print_json(items)
        return 0
    rows = [(item.id, item.title, f"{item.duration:.2f} s", ", ".join(item.tags)) for item in items]
    columns = {"item": "left", "title": "left", "duration": "right", "tags": "left"}
    console.print(table(counted(len(items), "items"), columns, rows))
    return 0
