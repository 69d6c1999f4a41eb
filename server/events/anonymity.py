"""Numbers of users as they leave the server: k-anonymity (L. Sweeney, 2002) for counts.

A number below the threshold k is 0. One at or above it is rounded down to a multiple of max(5, k), so that most people
who join or leave an item change nothing that is published: a difference of two answers shows that at least one of the
last max(5, k) came or went, not which. It does not stop someone who controls k - 1 made-up users of an item and watches
one person only; that takes noise, or counts that are published seldom. A threshold of 0 or 1 switches all of it off.
"""

from __future__ import annotations

_COARSEST = 5


def step(threshold: int) -> int:
    """What published numbers are multiples of."""
    return max(_COARSEST, threshold) if threshold > 1 else 1


def published(users: int, threshold: int) -> int:
    """What may be said of so many users."""
    if users < threshold:
        return 0
    return users - users % step(threshold)
