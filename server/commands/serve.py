"""`matchcut serve`: run a server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import textwrap

from matchcut.server import config, process, profiles
from matchcut.server.config import NOT_GIVEN, Config

log = logging.getLogger("matchcut")

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
        f"edge sets {profiles.explained('edge')}; it also gives memory back at once",
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
    tell_of_precision(settings)
    process.one_thread_for_products()
    if settings.profile == "edge":
        process.save_memory()
    with process.starting() as started:
        from matchcut.server.app import serve  # what it imports takes half a second, which --help should not

        def ready(address: str) -> None:
            started()
            say(f"serving on {address}")

        asyncio.run(serve(settings, progress=say, ready=ready))
    return 0


def tell_of_precision(settings: Config) -> None:
    """Logs that --precision is not used, where an encoder is given; a warning unless only the profile sets it."""
    if settings.encoder == NOT_GIVEN or settings.precision == Config.precision:
        return
    by_profile = settings.precision == profiles.PROFILES[settings.profile].get("precision")
    log.log(
        logging.INFO if by_profile else logging.WARNING,
        "--precision %s%s is of the default encoder: %s is served as it is; `matchcut engine precision` makes one in "
        "another precision",
        settings.precision,
        " of the profile" if by_profile else "",
        settings.encoder,
    )


def say(line: str) -> None:
    """Prints at once, so that whoever started the server can wait for the line."""
    print(f"matchcut: {line}", flush=True)
