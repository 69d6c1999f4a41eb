"""Finds which layers have to stay in float32, and no more of them than that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matchcut.server.precision.gate import judge
from matchcut.server.records import Floats

__all__ = ["by_damage", "fewest", "onwards"]


def by_damage(
    names: Sequence[str], alone: Callable[[str], Floats], exact: Floats, told: Callable[[int], None]
) -> list[str]:
    """The layers, those first whose reduction alone turns the vectors the most.

    Args:
        alone: the vectors (n, dimensions) where only this layer is reduced.
        exact: those of float32.
        told: how many layers have been tried.
    """
    damage = {}
    for count, name in enumerate(names, start=1):
        damage[name] = 1 - judge(alone(name), exact).mean_cosine
        told(count)
    return sorted(names, key=lambda name: -damage[name])


def fewest(count: int, enough: Callable[[int], bool]) -> int | None:
    """The least number of layers, below `count`, that is enough; None where none is.

    Halves the interval, as if what is enough stayed so with each further layer. Where it does not quite, the number
    may be larger than it had to be, but it is always one that was tried and found to be enough.
    """
    if count < 1:
        return None
    if enough(0):
        return 0
    low, high = 0, count - 1
    if not high or not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def onwards(start: int, count: int, enough: Callable[[int], bool]) -> int | None:
    """The least number of layers from `start` on, below `count`, that is enough; None where none is."""
    return next((number for number in range(start, count) if enough(number)), None)
