"""Protobuf events, and whom a list is for, to records; what is wrong is named by its field, never by its value."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.records import Event, EventKind, UserQuery
from matchcut.server.service import replies, requests
from matchcut.server.service.requests import ID_BYTES, Requests, bounded, few
from matchcut.v1 import events_pb2, recommender_pb2

__all__ = [
    "COUNTED",
    "EVENTS",
    "HISTORY",
    "EventRequests",
    "count_limit",
    "counted_items",
    "personal_options",
    "user_id",
]

EVENTS = 10_000
HISTORY = 1000
COUNTED = 1000
COUNTED_DEFAULT = 100
ASCII_SAFE = ID_BYTES // 4  # so many characters fit into ID_BYTES whatever they are
KINDS: dict[int, EventKind] = {number: kind for kind, number in replies.KINDS.items()}
INFINITE = float("inf")
LONGEST = 1 << 62  # microseconds


class Bounds(NamedTuple):
    """What a number of UserOptions may be, both ends included, and how that is said."""

    least: float
    most: float
    said: str


SHARE = Bounds(0, 1, "0 to 1")
WEIGHT = Bounds(0, 1000, "0 to 1000")
BOUNDS: dict[str, Bounds] = {
    "mmr_lambda": SHARE,
    "current_weight": SHARE,
    "freshness": WEIGHT,
    "freshness_half_life_us": Bounds(1, LONGEST, f"1 to {LONGEST}"),
    "popularity": WEIGHT,
    "cap": Bounds(0, INFINITE, "at least 0"),
    "exploration": SHARE,
}


class _Wrong(Exception):
    """A field of an event is wrong. name: within the event; told: what goes after the field's path."""

    def __init__(self, name: str, told: str) -> None:
        super().__init__(name)
        self.name = name
        self.told = told

    def at(self, path: str) -> InvalidInput:
        """The error for the caller, of the event at this path of the request."""
        field = f"{path}.{self.name}"
        return InvalidInput(f"{field} {self.told}", field=field)


class EventRequests:
    """Events, understood with the server's clock and bounds.

    Args:
        understand: for what a request says beside events.
        now_us: the time in microseconds since the Unix epoch.
    """

    def __init__(
        self, config: Config, understand: Requests, *, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._understand = understand
        self._ahead = config.event_ahead
        self._now_us = now_us

    def events(self, messages: Sequence[events_pb2.Event]) -> list[Event]:
        """All of a request's events, or none: the first that is wrong refuses it.

        It may take a tenth of a second for the most events there may be: not for the event loop.
        """
        if not messages:
            raise InvalidInput("events is empty; send at least one", field="events")
        few(messages, EVENTS, "events")
        return self._all(messages, "events")

    def live(self, message: events_pb2.Event, user: str) -> Event:
        """An event of a live list, which is of the user that the list is for."""
        if message.user_id and message.user_id != user:
            raise InvalidInput(
                "event.user_id is another than the header's; a live list is of one user", field="event.user_id"
            )
        message.user_id = user
        try:
            return self._event(message, self._now_us())
        except _Wrong as wrong:
            raise wrong.at("event") from None

    def asked(
        self, message: recommender_pb2.RecommendForUserRequest | recommender_pb2.RecommendForUserLiveHeader
    ) -> UserQuery:
        """Whom a list is for, and how it is to be made."""
        options = personal_options(message.user_options)
        if isinstance(message, recommender_pb2.RecommendForUserLiveHeader):
            return UserQuery(user_id(message.user_id), options)
        current = self._understand.query(message.current, "current") if message.HasField("current") else None
        if not message.history:
            if not message.user_id:
                raise InvalidInput("user_id is required, unless a history is given", field="user_id")
            return UserQuery(user_id(message.user_id), options, current)
        user, history = self._history(message)
        return UserQuery(user, options, current, history)

    def _history(self, message: recommender_pb2.RecommendForUserRequest) -> tuple[str, tuple[Event, ...]]:
        """The one user, "" where none is named, and what that user did."""
        user = bounded(message.user_id, ID_BYTES, "user_id")
        for at, event in enumerate(few(message.history, HISTORY, "history")):
            user = user or event.user_id
            if event.user_id not in ("", user):
                raise InvalidInput(
                    f"history[{at}].user_id is another than those before it; a history is of one user",
                    field=f"history[{at}].user_id",
                )
        return user, tuple(self._all(message.history, "history", anonymous=True))

    def _all(self, messages: Sequence[events_pb2.Event], path: str, *, anonymous: bool = False) -> list[Event]:
        now_us = self._now_us()
        made: list[Event] = []
        try:
            # As it grows one by one, its length tells which event is wrong.
            made.extend(self._event(message, now_us, anonymous=anonymous) for message in messages)
        except _Wrong as wrong:
            raise wrong.at(f"{path}[{len(made)}]") from None
        return made

    def _event(self, message: events_pb2.Event, now_us: int, *, anonymous: bool = False) -> Event:
        """One event. Its message is completed with the time that the server gives."""
        kind = KINDS.get(message.kind)
        if kind is None:
            raise _Wrong("kind", "is unspecified" if not message.kind else "is none that this server knows")
        time_us = message.time_us
        if not time_us:
            time_us = message.time_us = now_us
        elif time_us < 0:
            raise _Wrong("time_us", "is negative; it counts from the Unix epoch")
        elif time_us > now_us + self._ahead * 1e6:
            raise _Wrong(
                "time_us",
                f"is more than {self._ahead:g} s (--event-ahead) ahead of the server's clock; it counts microseconds",
            )
        weight = message.weight if message.HasField("weight") else 1.0
        if not 0 <= weight <= 1:
            raise _Wrong("weight", f"is {weight:g}; it must be 0 to 1")
        fraction, watched_us = _extent(message)
        return Event(
            event_id=_text(message, "event_id") or _digest(message),
            user_id=_text(message, "user_id", required=not anonymous),
            item_id=_text(message, "item_id", required=True),
            kind=kind,
            time_us=time_us,
            session_id=_text(message, "session_id"),
            weight=weight,
            fraction=fraction,
            watched_us=watched_us,
            recommendation_id=_text(message, "recommendation_id"),
        )


def _text(message: events_pb2.Event, name: str, *, required: bool = False) -> str:
    """One of the event's texts, of at most ID_BYTES."""
    text: str = getattr(message, name)
    if not text and required:
        raise _Wrong(name, "is required")
    if len(text) > ASCII_SAFE and len(text.encode()) > ID_BYTES:
        raise _Wrong(name, f"has {len(text.encode())} bytes; at most {ID_BYTES} are allowed")
    return text


def _extent(message: events_pb2.Event) -> tuple[float | None, int]:
    """How much was watched, as a share or as a time."""
    extent = message.WhichOneof("extent")
    if extent == "fraction":
        if not 0 <= message.fraction <= 1:
            raise _Wrong("fraction", f"is {message.fraction:g}; it must be 0 to 1")
        return message.fraction, 0
    if extent == "watched_us" and message.watched_us < 0:
        raise _Wrong("watched_us", "is negative")
    return None, message.watched_us


def _digest(message: events_pb2.Event) -> str:
    """The id of an event that came without: SHA-256 of its other fields, with the time that the server gave it."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def user_id(text: str) -> str:
    """A user's id, which must not be empty."""
    return bounded(text, ID_BYTES, "user_id", required=True)


def personal_options(message: recommender_pb2.UserOptions) -> dict[str, object]:
    """Those fields of PersonalOptions that the caller has set."""
    asked: dict[str, object] = {}
    for descriptor, value in message.ListFields():
        name, field = descriptor.name, f"user_options.{descriptor.name}"
        bounds = BOUNDS.get(name)
        if bounds is not None and not bounds.least <= value <= bounds.most:
            raise InvalidInput(f"{field} is {value:g}; it must be {bounds.said}", field=field)
        if name == "cap_attribute":
            bounded(value, ID_BYTES, field, required=True)
        asked[name] = value
    return asked


def counted_items(names: Sequence[str]) -> tuple[str, ...]:
    """The items to count for, each once."""
    return tuple(dict.fromkeys(requests.item_id(name, "item_ids") for name in few(names, COUNTED, "item_ids")))


def count_limit(limit: int) -> int:
    """How many items to count for where none are named; 0 stands for 100."""
    if not 0 <= limit <= COUNTED:
        raise InvalidInput(f"limit is {limit}; it must be 0 (for {COUNTED_DEFAULT}) to {COUNTED}", field="limit")
    return limit or COUNTED_DEFAULT
