"""Events as messages, and what is no event told in words."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from math import isfinite
from numbers import Real
from typing import Any, TypeAlias

from matchcut.client import options as wire
from matchcut.client.user_results import Event
from matchcut.v1 import events_pb2

__all__ = ["Events", "each", "epoch_seconds", "pack"]

Events: TypeAlias = Iterable[Event | Mapping[str, Any]] | Event | Mapping[str, Any]  # many, or one

TEXTS = ("user", "item", "kind", "session", "recommendation", "id")
NUMBERS = ("weight", "fraction", "watched")
FIELDS = {field.name: field.default is MISSING for field in fields(Event)}  # whether it is required
LATEST = 1e11  # seconds since 1970: the year 5138. Milliseconds have been above that since 1973
FINER = ((1e14, "milliseconds"), (1e17, "microseconds"), (float("inf"), "nanoseconds"))
KINDS = {
    value.name.removeprefix("EVENT_KIND_").lower(): value.number
    for value in events_pb2.EventKind.DESCRIPTOR.values
    if value.number
}


def each(events: Events) -> Iterator[Event | Mapping[str, Any]]:
    """The events, one by one; a single one may be given without a list around it."""
    return iter((events,) if isinstance(events, Event | Mapping) else events)


def pack(event: Event | Mapping[str, Any], *, anonymous: bool = False) -> events_pb2.Event:
    """An event as its message; if anonymous, a mapping need not name the user.

    Raises:
        TypeError: it is neither an Event nor a mapping of an Event's fields, or a field is of another type.
        ValueError: its kind is none, its time is no time, or it says twice how much was watched.
    """
    if isinstance(event, Mapping):
        event = _of({"user": "", **event} if anonymous else event)
    elif not isinstance(event, Event):
        raise TypeError(f"an event is an Event or a mapping of its fields, not {type(event).__name__}")
    _check(event)
    kind = KINDS.get(event.kind)
    if kind is None:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {event.kind!r}")
    if event.fraction is not None and event.watched is not None:
        raise ValueError("an event has either fraction or watched, not both")
    message = events_pb2.Event(
        event_id=event.id,
        user_id=event.user,
        item_id=event.item,
        kind=kind,  # type: ignore[arg-type]
        time_us=0 if event.time is None else wire.microseconds(epoch_seconds(event.time)),
        session_id=event.session,
        weight=event.weight,
        fraction=event.fraction,
        watched_us=None if event.watched is None else wire.microseconds(event.watched),
        recommendation_id=event.recommendation,
    )
    if not message.event_id and event.time is None:
        message.event_id = uuid.uuid4().hex  # the server's would be of the time at which a try reaches it
    return message


def epoch_seconds(time: float | datetime) -> float:
    """Seconds since the Unix epoch.

    Raises:
        TypeError: it is neither a number nor a datetime.
        ValueError: the datetime has no time zone, the number is not finite, or it is none of seconds.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"time is {time!r}, of no time zone; say which, e.g. with tzinfo=datetime.UTC")
        return time.timestamp()
    if not _number(time):
        raise TypeError(f"time is seconds since 1970 or a datetime with a time zone, not {time!r}")
    if not isfinite(time):
        raise ValueError(f"time is {time}; it must be seconds since 1970")
    if time >= LATEST:
        unit = next(unit for above, unit in FINER if time < above)
        raise ValueError(f"time is {time:.15g}, which looks like {unit}: time is in seconds since 1970")
    return time


def _of(given: Mapping[str, Any]) -> Event:
    for name in given.keys() - FIELDS.keys():
        raise TypeError(f"an event has no field {name!r}; there are {', '.join(FIELDS)}")
    for name in (name for name, required in FIELDS.items() if required and name not in given):
        raise TypeError(f"the event has no {name!r}; it is required")
    return Event(**given)


def _check(event: Event) -> None:
    for name in TEXTS:
        value = getattr(event, name)
        if not isinstance(value, str):
            raise TypeError(f"an event's {name} is a str, not {value!r}")
    for name in NUMBERS:
        value = getattr(event, name)
        if value is not None and not _number(value):
            raise TypeError(f"an event's {name} is a number, not {value!r}")
        if value is not None and not isfinite(value):
            raise ValueError(f"an event's {name} is {value}; it must be a finite number")


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
