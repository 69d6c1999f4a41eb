"""The commands of `matchcut`, one module or package each, called as the command.

Only the one that is asked for is imported: a server need not wait for what trains, nor hold it in memory.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

__all__ = ["COMMANDS", "Command", "command"]

# In the order in which `matchcut --help` lists them.
COMMANDS = (
    "serve",
    "index",
    "query",
    "ls",
    "rm",
    "events",
    "recommend",
    "forget",
    "reindex",
    "encoder",
    "engine",
    "train",
    "evaluate",
    "bench",
    "top",
    "doctor",
)


class Command(Protocol):
    """What each of them has: its name, what its help says, its arguments, and what it does."""

    NAME: str
    SUMMARY: str
    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit code."""
        ...


def command(name: str) -> Command:
    """One of COMMANDS."""
    return cast(Command, import_module(f"{__name__}.{name}"))
