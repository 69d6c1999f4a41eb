"""What the server answers, as frozen dataclasses. Times are float seconds; ranges are None where unknown."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2


def _seconds(microseconds: int) -> float:
    return microseconds / 1_000_000


class TimeRange(NamedTuple):
    """Media time start <= t < end, in seconds."""

    start: float
    end: float

    @classmethod
    def of(cls, proto: common_pb2.TimeRange) -> TimeRange | None:
        """None where both ends are 0, which means unknown."""
        if not proto.start_us and not proto.end_us:
            return None
        return cls(_seconds(proto.start_us), _seconds(proto.end_us))


@dataclass(frozen=True, slots=True)
class Encoder:
    """Which encoder made a vector; `digest` decides whether two vectors may be compared."""

    name: str
    version: str
    digest: str
    dimensions: int

    @classmethod
    def of(cls, proto: common_pb2.Encoder) -> Encoder:
        return cls(proto.name, proto.version, proto.digest, proto.dimensions)


@dataclass(frozen=True, slots=True)
class Stage:
    """Time of one stage itself, in seconds of wall and of the request's thread, and what the stage counted."""

    name: str
    wall: float
    cpu: float
    variant: str
    counts: Mapping[str, int]

    @classmethod
    def of(cls, proto: common_pb2.Stage) -> Stage:
        return cls(proto.name, _seconds(proto.wall_us), _seconds(proto.cpu_us), proto.variant, dict(proto.counts))


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where the server's time went; `total` in seconds from the request's first byte to the reply."""

    stages: tuple[Stage, ...]
    total: float

    @classmethod
    def of(cls, proto: common_pb2.StageTimes) -> StageTimes:
        return cls(tuple(map(Stage.of, proto.stages)), _seconds(proto.total_us))


class MediaWarning(NamedTuple):
    """Something odd in the media that did not stop its use."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class MediaReport:
    """What the server found in the media and how much of it was used; times in seconds, sizes in pixels."""

    bytes: int
    frames_seen: int
    frames_used: int
    frames_reused: int
    frames_blank: int
    frames_dropped: int
    duration: float
    truncated: bool
    container: str
    codec: str
    width: int
    height: int
    max_time_error: float
    warnings: tuple[MediaWarning, ...]

    @classmethod
    def of(cls, proto: media_pb2.MediaReport) -> MediaReport:
        return cls(
            bytes=proto.bytes,
            frames_seen=proto.frames_seen,
            frames_used=proto.frames_used,
            frames_reused=proto.frames_reused,
            frames_blank=proto.frames_blank,
            frames_dropped=proto.frames_dropped,
            duration=_seconds(proto.duration_us),
            truncated=proto.truncated,
            container=proto.container,
            codec=proto.codec,
            width=proto.width,
            height=proto.height,
            max_time_error=_seconds(proto.max_time_error_us),
            warnings=tuple(MediaWarning(w.reason, w.message) for w in proto.warnings),
        )


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be recommended; `duration` in seconds, 0 where unknown."""

    id: str
    title: str
    uri: str
    tags: tuple[str, ...]
    attributes: Mapping[str, str]
    duration: float

    @classmethod
    def of(cls, proto: catalog_pb2.Item) -> Item:
        return cls(
            id=proto.item_id,
            title=proto.title,
            uri=proto.uri,
            tags=tuple(proto.tags),
            attributes=dict(proto.attributes),
            duration=_seconds(proto.duration_us),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an item in time.

    vector: array of float32 and unit length, which numpy.asarray takes without a copy; empty unless asked for.
    """

    range: TimeRange | None
    vector: array[float]

    @classmethod
    def of(cls, proto: catalog_pb2.Segment) -> Segment:
        return cls(TimeRange.of(proto.range), array("f", proto.vector))


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item, whole: its segments are in time order.

    from_vectors: it came as vectors, so that there is no media that another encoder could be given.
    """

    item: Item
    segments: tuple[Segment, ...]
    encoder: Encoder
    times: StageTimes
    from_vectors: bool

    @classmethod
    def of(cls, proto: catalog_pb2.GetItemResponse) -> StoredItem:
        return cls(
            item=Item.of(proto.item),
            segments=tuple(map(Segment.of, proto.segments)),
            encoder=Encoder.of(proto.encoder),
            times=StageTimes.of(proto.times),
            from_vectors=proto.from_vectors,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the items in the order of their ids.

    next: token of the next page; "" on the last one.
    total: how many items the tenant has in all, filters not applied.
    next_encoder: is to take over from `encoder`; None: nothing is. ready: how many items have its vectors.
    """

    items: tuple[Item, ...]
    next: str
    total: int
    encoder: Encoder
    times: StageTimes
    next_encoder: Encoder | None
    ready: int

    @classmethod
    def of(cls, proto: catalog_pb2.ListItemsResponse) -> Page:
        return cls(
            items=tuple(map(Item.of, proto.items)),
            next=proto.next_page_token,
            total=proto.total_size,
            encoder=Encoder.of(proto.encoder),
            times=StageTimes.of(proto.times),
            next_encoder=Encoder.of(proto.next_encoder) if proto.HasField("next_encoder") else None,
            ready=proto.ready_size,
        )


@dataclass(frozen=True, slots=True)
class Switched:
    """How a change of the encoder stands: of `total` items of all tenants, `ready` have vectors of `encoder`.

    lacking: (tenant, item id) of some that have not, at most 100. done: False only for a dry run.
    """

    encoder: Encoder
    total: int
    ready: int
    lacking: tuple[tuple[str, str], ...]
    done: bool
    times: StageTimes

    @classmethod
    def of(cls, proto: catalog_pb2.SwitchEncoderResponse) -> Switched:
        return cls(
            encoder=Encoder.of(proto.encoder),
            total=proto.total_size,
            ready=proto.ready_size,
            lacking=tuple((one.tenant, one.item_id) for one in proto.lacking),
            done=proto.switched,
            times=StageTimes.of(proto.times),
        )


class Outcome(Enum):
    """What an ingest did."""

    CREATED = catalog_pb2.INGEST_OUTCOME_CREATED
    REPLACED = catalog_pb2.INGEST_OUTCOME_REPLACED
    UNCHANGED = catalog_pb2.INGEST_OUTCOME_UNCHANGED
    UPDATED = catalog_pb2.INGEST_OUTCOME_UPDATED
    UNKNOWN = catalog_pb2.INGEST_OUTCOME_UNSPECIFIED

    @classmethod
    def _missing_(cls, value: object) -> Outcome:
        """A newer server may say what this client does not know."""
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest kept; `report` is None for vectors and unchanged items."""

    item: Item
    outcome: Outcome
    segment_count: int
    encoder: Encoder
    times: StageTimes
    report: MediaReport | None

    @classmethod
    def of(cls, proto: catalog_pb2.IngestResponse) -> Ingested:
        return cls(
            item=Item.of(proto.item),
            outcome=Outcome(proto.outcome),
            segment_count=proto.segment_count,
            encoder=Encoder.of(proto.encoder),
            times=StageTimes.of(proto.times),
            report=MediaReport.of(proto.report) if proto.HasField("report") else None,
        )


@dataclass(frozen=True, slots=True)
class Match:
    """One ranked item, by its best segment.

    score: cosine of the two segments that match best, from -1 to 1.
    item_range, query_range: where in the item and in the query.
    query_item_id: which of the items asked about it goes with; "" for other queries.
    """

    item: Item
    score: float
    item_range: TimeRange | None
    query_range: TimeRange | None
    query_item_id: str

    @classmethod
    def of(cls, proto: recommender_pb2.Match) -> Match:
        return cls(
            item=Item.of(proto.item),
            score=proto.score,
            item_range=TimeRange.of(proto.item_range),
            query_range=TimeRange.of(proto.query_range),
            query_item_id=proto.query_item_id,
        )


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranked list, best first; iterating over it gives its matches.

    revision: 1 for the first list of a call, then one more each time; final: the last one.
    report: None unless the query was media. resume: of a query with temporal="gru", goes into the live call that is to
    go on from here; else empty.
    """

    matches: tuple[Match, ...]
    revision: int
    final: bool
    encoder: Encoder
    times: StageTimes
    report: MediaReport | None
    resume: bytes

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    @classmethod
    def of(cls, proto: recommender_pb2.RecommendResponse) -> Ranking:
        return cls(
            matches=tuple(map(Match.of, proto.matches)),
            revision=proto.revision,
            final=proto.final,
            encoder=Encoder.of(proto.encoder),
            times=StageTimes.of(proto.times),
            report=MediaReport.of(proto.report) if proto.HasField("report") else None,
            resume=proto.resume,
        )
