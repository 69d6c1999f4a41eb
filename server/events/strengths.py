"""How much an event speaks for its item."""

from __future__ import annotations

from math import isfinite

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Event, EventKind

UNIT = 1 << 20  # strengths are multiples of 1/UNIT: exact as integers on the disk and as floats in memory

_HALF_US = 10_000_000  # a watch of unknown share and this length counts half
_FIXED = {
    EventKind.IMPRESSION: 0.0,
    EventKind.CLICK: 0.5,
    EventKind.LIKE: 1.0,
    EventKind.DISLIKE: -1.0,
    EventKind.SKIP: -0.5,
    EventKind.SAVE: 1.0,
    EventKind.SHARE: 1.0,
    EventKind.PURCHASE: 1.0,
}


def strength(event: Event) -> float:
    """From -1 to 1, a multiple of 1/UNIT; see Logged.

    A click is 0.5; a like, save, share or purchase 1; a dislike -1; a skip -0.5; an impression 0. A watch is the
    fraction watched; where only a time t is known, 1 - 2^(-t/10 s), and 0.5 where neither is. All times the weight.

    Raises:
        InvalidInput: the weight or fraction is not a number from 0 to 1, or the time watched is negative.
    """
    weight, fraction = event.weight, event.fraction
    if not (isfinite(weight) and 0 <= weight <= 1):
        raise InvalidInput(f"weight is {weight}; give a number from 0 to 1", field="weight")
    if fraction is not None and not (isfinite(fraction) and 0 <= fraction <= 1):
        raise InvalidInput(f"fraction is {fraction}; give a number from 0 to 1", field="fraction")
    if event.watched_us < 0:
        raise InvalidInput(f"watched_us is {event.watched_us}; give 0 or more", field="watched_us")
    return round(weight * _unweighted(event) * UNIT) / UNIT


def _unweighted(event: Event) -> float:
    if event.kind is not EventKind.WATCH:
        return _FIXED[event.kind]
    if event.fraction is not None:
        return event.fraction
    return float(1 - 2.0 ** (-event.watched_us / _HALF_US)) if event.watched_us else 0.5
