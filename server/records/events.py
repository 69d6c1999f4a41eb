"""What users did, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class EventKind(Enum):
    """What a user did with an item."""

    IMPRESSION = "impression"  # it was shown
    CLICK = "click"
    WATCH = "watch"
    LIKE = "like"
    DISLIKE = "dislike"
    SKIP = "skip"
    SAVE = "save"
    SHARE = "share"
    PURCHASE = "purchase"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did with an item of the tenant's, as the caller tells it.

    event_id: unique within the tenant; an event of an id that is there already changes nothing. time_us: microseconds
    since the Unix epoch. session_id: "" where there is none. weight: 0 to 1, how much it counts. fraction: of the item
    that was watched, 0 to 1, or None. watched_us: how long it was watched; only looked at where fraction is None.
    recommendation_id: of the reply that showed the item; "": of none.
    """

    event_id: str
    user_id: str
    item_id: str
    kind: EventKind
    time_us: int
    session_id: str = ""
    weight: float = 1.0
    fraction: float | None = None
    watched_us: int = 0
    recommendation_id: str = ""


class UserKey(NamedTuple):
    """A user where data is at rest: `digest` is made with the tenant's salt and names nobody without it."""

    tenant: str
    digest: bytes  # 16 bytes


@dataclass(frozen=True, slots=True)
class Logged:
    """What is kept of an event. A user's events are in the order of (time_us, digest), whatever order they came in.

    digest: 16 bytes made of the event's id with the tenant's salt. strength: -1 to 1, how much it speaks for the item
    (below 0: against it; 0: not at all); see strengths.strength.
    """

    time_us: int
    digest: bytes
    item_id: str
    kind: EventKind
    strength: float

    @property
    def order(self) -> tuple[int, bytes]:
        return self.time_us, self.digest


@dataclass(frozen=True, slots=True)
class Shown:
    """One item of a list that was shown. propensity: the chance, 0 to 1, with which it came to its position, given
    those above it; position: from 0."""

    item_id: str
    position: int
    score: float
    propensity: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """A list that was recommended to a user. model: digest of the session model that ranked."""

    recommendation_id: str
    time_us: int
    experiment: str
    variant: str
    model: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """How many users did what with an item; a number below the threshold of anonymity is 0 here.

    users: how many did anything at all with it.
    """

    item_id: str
    users: int
    kinds: dict[EventKind, int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted of a user, and when; digest: SHA-256 in hexadecimal that proves this receipt is the server's."""

    events: int
    exposures: int
    time_us: int
    digest: str
