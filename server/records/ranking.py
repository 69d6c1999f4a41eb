"""Queries and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from matchcut.server.records.base import EncoderIdentity, Floats, TimeRange
from matchcut.server.records.catalog import Item, Outcome, TagFilter
from matchcut.server.records.media import Media, MediaReport


@dataclass(frozen=True, slots=True)
class ItemsQuery:
    """Compare with every segment of these items of the same tenant."""

    item_ids: tuple[str, ...]
    include_themselves: bool = False


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """Compare with one vector, (dimensions,) float32; `encoder` None: the server's."""

    values: Floats
    encoder: EncoderIdentity | None = None


Query = ItemsQuery | VectorQuery | Media


@dataclass(frozen=True, slots=True)
class RankOptions:
    """How to rank and what may be ranked. Scores are cosines.

    frames_per_update: rank again after this many more used frames, the first one always; 0: only at the end.
    """

    limit: int = 10
    exclude: frozenset[str] = frozenset()
    tags: TagFilter = field(default_factory=TagFilter)
    minimum_score: float | None = None
    frames_per_update: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """One ranked item: its best segment against the best of the query's."""

    item: Item
    score: float
    item_range: TimeRange
    query_range: TimeRange
    query_item_id: str = ""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Self time of one stage; `variant` says which implementation ran, `counts` what it counted."""

    name: str
    wall_us: int
    cpu_us: int
    variant: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where a request's time went."""

    stages: tuple[StageTime, ...]
    total_us: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranked list, best first, ties in the order of ingest; the last of a request has `final`.

    resume: a token with which another call goes on from here; b"" where there is no state to go on from.
    """

    matches: tuple[Match, ...]
    revision: int
    final: bool
    encoder: EncoderIdentity
    times: StageTimes
    report: MediaReport | None = None
    resume: bytes = b""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest kept."""

    item: Item
    outcome: Outcome
    segment_count: int
    encoder: EncoderIdentity
    times: StageTimes
    report: MediaReport | None = None
