"""What the server answers about users, as frozen dataclasses, and the events that it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from matchcut.client.results import Encoder, Item, MediaReport, StageTimes
from matchcut.v1 import events_pb2, recommender_pb2

__all__ = [
    "Event",
    "EventCounts",
    "EventKind",
    "ItemCount",
    "Reason",
    "Receipt",
    "Recorded",
    "SessionModel",
    "UserMatch",
    "UserRanking",
    "Variant",
]

EventKind: TypeAlias = Literal["impression", "click", "watch", "like", "dislike", "skip", "save", "share", "purchase"]
_PREFIX = "EVENT_KIND_"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did with an item.

    kind: one of EventKind. time: in seconds since the Unix epoch, or a datetime with a time zone; None: now,
    by the server's clock.
    session: the user's visit. weight: how much it counts, 0 to 1; None: 1.
    fraction, watched: of a "watch", as a share of the item or in seconds; at most one of them.
    recommendation: `recommendation_id` of the list that showed the item.
    id: unique within the tenant; an event of an id that the server knows changes nothing. Where it is "", the server
    makes one of the other fields, so that the same event told twice is kept once; if there is no time either, the
    client makes one, so that a call can be sent again.
    """

    user: str
    item: str
    kind: EventKind
    time: float | datetime | None = None
    session: str = ""
    weight: float | None = None
    fraction: float | None = None
    watched: float | None = None
    recommendation: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of events: how many are new, were there already, are of items that the catalogue does not have yet.

    seconds: that the server took. expired: how many are older than the server keeps events, and were not kept.
    """

    recorded: int = 0
    duplicates: int = 0
    unknown_items: int = 0
    seconds: float = 0.0
    expired: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(
            self.recorded + other.recorded,
            self.duplicates + other.duplicates,
            self.unknown_items + other.unknown_items,
            self.seconds + other.seconds,
            self.expired + other.expired,
        )

    @classmethod
    def of(cls, proto: events_pb2.RecordEventsResponse) -> Recorded:
        seconds = proto.times.total_us / 1e6
        return cls(proto.recorded, proto.duplicates, proto.unknown_items, seconds, proto.expired)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted of a user: events, and lists that were shown. It names nobody.

    time: in seconds since the Unix epoch. digest: under which the server keeps the same receipt.
    """

    events: int
    exposures: int
    time: float
    digest: str

    @classmethod
    def of(cls, proto: events_pb2.ForgetUserResponse) -> Receipt:
        return cls(proto.events, proto.exposures, proto.time_us / 1e6, proto.digest)


@dataclass(frozen=True, slots=True)
class ItemCount:
    """How many users did anything with an item, and how many each kind of thing; kinds that nobody did are absent."""

    item: str
    users: int
    kinds: Mapping[str, int]

    @classmethod
    def of(cls, proto: events_pb2.ItemCount) -> ItemCount:
        return cls(proto.item_id, proto.users, {_word(one.kind): one.users for one in proto.kinds})


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many users did what; iterating over it gives the items. A number below `threshold` is told as 0."""

    items: tuple[ItemCount, ...]
    threshold: int
    times: StageTimes

    def __iter__(self) -> Iterator[ItemCount]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, proto: events_pb2.CountEventsResponse) -> EventCounts:
        return cls(tuple(map(ItemCount.of, proto.items)), proto.threshold, StageTimes.of(proto.times))


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item is in a user's list.

    nearest: id of the item of the user's history that is most like it, "" where there is none; similarity: their
    cosine. shares: of "history", "current", "freshness" and "popularity" in the score, 1 in all.
    """

    nearest: str
    similarity: float
    shares: Mapping[str, float]

    @classmethod
    def of(cls, proto: recommender_pb2.Reason) -> Reason:
        shares = {one.signal: one.share for one in proto.shares}
        return cls(proto.nearest_item_id, proto.similarity, shares)


@dataclass(frozen=True, slots=True)
class UserMatch:
    """One item of a user's list.

    score: what it is ranked by before diversity, comparable within its list only. propensity: the chance, 0 to 1, with
    which it came to its position, given those above it.
    """

    item: Item
    score: float
    reason: Reason
    propensity: float

    @classmethod
    def of(cls, proto: recommender_pb2.UserMatch) -> UserMatch:
        return cls(Item.of(proto.item), proto.score, Reason.of(proto.reason), proto.propensity)


@dataclass(frozen=True, slots=True)
class Variant:
    """The variant of an experiment that a user is in."""

    experiment: str
    name: str


@dataclass(frozen=True, slots=True)
class SessionModel:
    """Which session model made a user's state; `digest` decides whether two are the same."""

    name: str
    version: str
    digest: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class UserRanking:
    """A list for a user, best first; iterating over it gives its matches.

    recommendation_id: goes into Event.recommendation of what the user does with the items. variant: None where no
    experiment runs. cold: nothing was known of the user. events: that the user's state is made of. revision: 1 for the
    first list of a call, then one more each time; final: the last one. report: None where no media came.
    event_id: of the event that a live list answers; "": none.
    """

    matches: tuple[UserMatch, ...]
    recommendation_id: str
    variant: Variant | None
    model: SessionModel
    encoder: Encoder
    cold: bool
    events: int
    revision: int
    final: bool
    times: StageTimes
    report: MediaReport | None
    event_id: str

    def __iter__(self) -> Iterator[UserMatch]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    @classmethod
    def of(cls, proto: recommender_pb2.RecommendForUserResponse) -> UserRanking:
        model, variant = proto.model, proto.variant
        return cls(
            matches=tuple(map(UserMatch.of, proto.matches)),
            recommendation_id=proto.recommendation_id,
            variant=Variant(variant.experiment, variant.name) if proto.HasField("variant") else None,
            model=SessionModel(model.name, model.version, model.digest, model.dimensions),
            encoder=Encoder.of(proto.encoder),
            cold=proto.cold,
            events=proto.events,
            revision=proto.revision,
            final=proto.final,
            times=StageTimes.of(proto.times),
            report=MediaReport.of(proto.report) if proto.HasField("report") else None,
            event_id=proto.event_id,
        )


def _word(kind: int) -> str:
    """The kind's word; "unknown" for one that this client does not know."""
    known = events_pb2.EventKind.DESCRIPTOR.values_by_number.get(kind)
    return "unknown" if known is None else known.name.removeprefix(_PREFIX).lower()
