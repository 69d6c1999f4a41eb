"""`matchcut serve`: run a server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import textwrap

from matchcut.server import config, process, profiles

NAME = "serve"
SUMMARY = "run a server"
DESCRIPTION = """\
Runs a server until it gets SIGTERM or Ctrl-C; calls under way then get --grace seconds to finish.
Every option is also an environment variable, shown in [brackets], and a line of the TOML file given by --config.
A flag beats the environment, the environment beats the file, and all of them beat --profile."""
EXAMPLES = """\
examples:
  matchcut serve
  matchcut serve --listen 0.0.0.0:7411 --data /srv/matchcut --config matchcut.toml
  matchcut serve --profile edge --threads 2
  MATCHCUT_ENGINE=onnxruntime matchcut serve

profiles:
  """ + "\n  ".join(
    textwrap.wrap(
        f"edge sets {profiles.explained('edge')}; and it gives memory back to the system at once",
        100,
        break_on_hyphens=False,
    )
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of config.py."""
    config.add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves; returns 0 after a clean stop."""
    settings = config.load(vars(arguments))
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    process.one_thread_for_products()
    if settings.profile == "edge":
        process.save_memory()
    from matchcut.server.app import serve  # what it imports takes a second, which --help should not

    asyncio.run(serve(settings, progress=say, ready=lambda address: say(f"serving on {address}")))
    return 0


def say(line: str) -> None:
    """Prints at once, so that whoever started the server can wait for the line."""
    print(f"matchcut: {line}", flush=True)
