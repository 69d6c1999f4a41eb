"""Numbers on the command line of `matchcut bench`, for argparse."""

from __future__ import annotations

import argparse
import math
import re

from matchcut.server.commands.connect import positive

__all__ = ["at_least_1", "from_zero", "rates", "shape", "size"]


def at_least_1(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return value


def from_zero(text: str) -> float:
    """A number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from zero")
    return value


def rates(text: str) -> tuple[float, ...]:
    """Numbers above zero with commas between them."""
    return tuple(positive(part) for part in text.split(","))


def size(text: str) -> tuple[int, int]:
    """Width and height of a picture, e.g. "320x240"."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or not all(0 < int(one) <= 16384 for one in found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 320x240, of at most 16384")
    return int(found[1]), int(found[2])


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """A tensor's name and its dimensions, e.g. "pixels=1,3,224,224"."""
    name, _, dims = text.rpartition("=")
    try:
        found = tuple(int(size) for size in dims.split(","))
    except ValueError:
        found = ()
    if not name or not found or min(found) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape like pixels=1,3,224,224")
    return name, found
