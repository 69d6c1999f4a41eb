"""The tours of all clients: how they are started, and what they have printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from support.processes import ROOT, bare

EXAMPLES = ROOT / "clients" / "python" / "example"
PROGRAMS = {
    "python": (sys.executable, "-W", "error", str(EXAMPLES / "tour.py")),
    "asyncio": (sys.executable, "-W", "error", str(EXAMPLES / "tour_asyncio.py")),
    **{name: (str(ROOT / "build" / "clients" / name / "tour"),) for name in ("cpp", "go", "java", "node")},
}
BUILT = ("cpp", "go", "java", "node")  # by ./build.sh clients
LIMIT = 120  # seconds that a tour may take at most


def command(language: str) -> tuple[str, ...]:
    """The program that takes the tour in a language; a test of one that is not built is skipped."""
    if not is_built(language):
        pytest.skip(f"the {language} client is not built: ./build.sh clients {language} says what it needs")
    return PROGRAMS[language]


def is_built(language: str) -> bool:
    """Whether a language is tested.

    ./build.sh test names in MATCHCUT_CLIENTS the clients that it has built; where it says nothing, those are tested
    that are there.
    """
    promised = os.environ.get("MATCHCUT_CLIENTS")
    if language in BUILT and promised is not None:
        return language in promised.split()
    return Path(PROGRAMS[language][0]).exists()


class Secured(NamedTuple):
    """A server with TLS that wants a token: what a client has to know of it."""

    address: str
    authorities: Path
    token: Path


class Tour(NamedTuple):
    """What a tour has printed, and how it has ended."""

    code: int
    lines: list[str]
    errors: str


def take(language: str, media: Path, environment: Mapping[str, str]) -> Tour:
    """Takes the tour in a language."""
    done = subprocess.run(
        [*command(language), str(media)],
        env=bare(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        text=True,
        check=False,
    )
    return Tour(done.returncode, done.stdout.splitlines(), done.stderr)
