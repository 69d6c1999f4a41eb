"""`matchcut doctor`: would serving work here, and with what?"""

from __future__ import annotations

import argparse

from matchcut.server import config
from matchcut.server.commands.output import console, print_json, table

NAME = "doctor"
SUMMARY = "say whether serving would work here, and with what"
DESCRIPTION = """\
Looks at this machine as `matchcut serve` with the same options would: which device computes, which scan ranks and why
the others do not, which engines there are, whether video can be decoded, and whether the folders can be written to.
Changes nothing. With --for aarch64 it says instead what an Arm board would use, without having looked at one.
Exit code 0: serving would work; 1: it would not, and the lines marked "broken" say why."""
EXAMPLES = """\
examples:
  matchcut doctor
  matchcut doctor --device cuda
  matchcut doctor --scan avx2 --data /srv/matchcut
  matchcut doctor --profile edge
  matchcut doctor --for aarch64
  matchcut doctor --json
"""
OPTIONS = ("profile", "device", "scan", "scan_threads", "precision", "engine", "encoder", "data", "cache")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those options of config.py that decide what serving needs."""
    config.add_flags(parser, only=OPTIONS)
    parser.add_argument(
        "--for",
        dest="machine",
        choices=("here", "aarch64"),
        default="here",
        help="the machine that is meant [default: here]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Looks and prints; returns 0 where serving would work."""
    settings = config.load(vars(arguments))
    from matchcut.server import board, checkup  # what they import takes a while, which --help should not

    findings = (checkup if arguments.machine == "here" else board).examine(settings)
    serves = all(finding.state != "broken" for finding in findings)
    if arguments.json:
        print_json({"serves": serves, "findings": findings})
    else:
        console.print(table("matchcut doctor", {"what": "left", "state": "left", "": "left"}, findings))
        console.print("serving would work" if serves else "serving would not work; see what is broken above")
    return 0 if serves else 1
