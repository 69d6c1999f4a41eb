"""The keywords that several calls share, declared once. Those left out mean the server's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, TypedDict

from matchcut.client.results import Encoder
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2

__all__ = [
    "AheadOptions",
    "CallOptions",
    "EventOptions",
    "IngestOptions",
    "ItemOptions",
    "ListOptions",
    "LiveOptions",
    "MediaOptions",
    "QueryOptions",
    "RankOptions",
    "Shots",
    "TagOptions",
    "TemporalMode",
    "UserLiveOptions",
    "UserOptions",
    "UserQueryOptions",
    "VectorOptions",
]

Shots: TypeAlias = Literal["exact", "coarse", "off"]
TemporalMode: TypeAlias = Literal["segments", "gru"]

_SHOTS: dict[str, media_pb2.ShotMode] = {
    "exact": media_pb2.SHOT_MODE_EXACT,
    "coarse": media_pb2.SHOT_MODE_COARSE,
    "off": media_pb2.SHOT_MODE_OFF,
}
_TEMPORAL: dict[str, recommender_pb2.Temporal] = {
    "segments": recommender_pb2.TEMPORAL_SEGMENTS,
    "gru": recommender_pb2.TEMPORAL_GRU,
}
_MOST = 2**31 - 1


class ItemOptions(TypedDict, total=False):
    """What is known of an item: words to filter by in `tags`, anything to get back in `attributes`."""

    title: str
    uri: str
    tags: Iterable[str]
    attributes: Mapping[str, str]


class MediaOptions(TypedDict, total=False):
    """How media is read.

    rate: frames used per second of media; above the media's own every frame is.
    tolerance: seconds by which a used frame may miss the wanted time; more is faster.
    shots: "exact" looks at every frame for cuts, "coarse" at used ones, "off" makes segments of equal length.
    segments: (start, end) in seconds, in place of shot detection.
    max_bytes, max_frames (used ones), max_duration (seconds): where to stop reading.
    """

    rate: float
    tolerance: float
    shots: Shots
    segments: Iterable[tuple[float, float]]
    max_bytes: int
    max_frames: int
    max_duration: float


class TagOptions(TypedDict, total=False):
    """Only items that have each tag in `all_of`, one of `any_of` and none of `none_of`; an empty list asks nothing."""

    all_of: Iterable[str]
    any_of: Iterable[str]
    none_of: Iterable[str]


class RankOptions(TagOptions, total=False):
    """How to rank, and what: at most `limit` items that score `minimum_score` (a cosine), none of `exclude` (ids)."""

    limit: int
    exclude: Iterable[str]
    minimum_score: float | None


class CallOptions(TypedDict, total=False):
    """`timeout` in seconds in place of the client's; None: no bound."""

    timeout: float | None


class AheadOptions(TypedDict, total=False):
    """`for_next_encoder`: for the server's next encoder, kept aside until it takes over; the item has to be there."""

    for_next_encoder: bool


class IngestOptions(ItemOptions, MediaOptions, AheadOptions, CallOptions, total=False):
    """Of an ingest from media. With for_next_encoder it is read as it was for the item, whatever MediaOptions say."""


class VectorOptions(ItemOptions, AheadOptions, CallOptions, total=False):
    """Of an ingest from vectors."""


class ListOptions(TagOptions, CallOptions, total=False):
    """Of a listing; `lacking_next_encoder`: only items that have no vectors of the server's next encoder yet."""

    lacking_next_encoder: bool


class QueryOptions(RankOptions, MediaOptions, CallOptions, total=False):
    """Of one ranking; MediaOptions and `temporal` are for clips.

    temporal: "segments" compares each segment, the mean of its frames; "gru" one vector, the state after the last.
    """

    temporal: TemporalMode


class LiveOptions(QueryOptions, total=False):
    """Of rankings that go on: again after `frames_per_update` more used frames. `timeout` is for the whole call.

    latest_only: of pictures and frames that come too fast the oldest are dropped, so that rankings follow what is now.
    resume: with "gru", the `resume` of a ranking of a call that was broken off, to go on from there.
    """

    frames_per_update: int
    latest_only: bool
    resume: bytes


class EventOptions(TypedDict, total=False):
    """More of an event; see Event."""

    time: float | datetime | None
    session: str
    weight: float | None
    fraction: float | None
    watched: float | None
    recommendation: str
    id: str


class UserOptions(TypedDict, total=False):
    """How a user's list is made.

    include_seen: items that the user did anything with may come back.
    mmr_lambda: 0 to 1; 1 ranks by relevance alone, less makes the list more diverse.
    current_weight: 0 to 1; how much the current interest counts against the history.
    freshness, popularity: 0 to 1000; how much they count against relevance, which counts 1.
    freshness_half_life: seconds after which an item is half as new.
    cap: most items with one value of the attribute `cap_attribute`; 0: any number.
    exploration: 0 to 1, the chance that a position is filled at random from the candidates.
    """

    include_seen: bool
    mmr_lambda: float
    current_weight: float
    freshness: float
    freshness_half_life: float
    popularity: float
    cap: int
    cap_attribute: str
    exploration: float


class UserQueryOptions(UserOptions, RankOptions, MediaOptions, CallOptions, total=False):
    """Of one list for a user; MediaOptions and `temporal` are for a clip of current interest."""

    temporal: TemporalMode


class UserLiveOptions(UserOptions, RankOptions, MediaOptions, CallOptions, total=False):
    """Of a user's live list; MediaOptions, `frames_per_update` are for live media. `timeout` is for the whole call."""

    frames_per_update: int


def known(options: Mapping[str, Any], kind: Any) -> None:
    """Raises TypeError for a keyword that `kind`, a TypedDict, has not."""
    for name in options.keys() - kind.__optional_keys__:
        near = get_close_matches(name, kind.__optional_keys__, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"unexpected keyword {name!r}{meant}; there are {', '.join(sorted(kind.__optional_keys__))}")


def microseconds(seconds: float) -> int:
    """The contract's unit of time."""
    return round(seconds * 1_000_000)


def item(item_id: str, options: Mapping[str, Any]) -> catalog_pb2.Item:
    """The ItemOptions among `options`."""
    return catalog_pb2.Item(
        item_id=item_id,
        title=options.get("title", ""),
        uri=options.get("uri", ""),
        tags=words("tags", options.get("tags", ())),
        attributes=options.get("attributes", {}),
    )


def media(options: Mapping[str, Any], **form: Any) -> media_pb2.MediaHeader:
    """The MediaOptions among `options`, with the form that the media comes in."""
    shots = options.get("shots")
    if shots is not None and shots not in _SHOTS:
        raise ValueError(f'shots is "exact", "coarse" or "off", not {shots!r}')
    return media_pb2.MediaHeader(
        **form,
        sampling=media_pb2.Sampling(
            frames_per_second=options.get("rate", 0.0),
            tolerance_us=microseconds(options.get("tolerance", 0.0)),
            shots=_SHOTS[shots] if shots else media_pb2.SHOT_MODE_UNSPECIFIED,
        ),
        limits=media_pb2.MediaLimits(
            bytes=options.get("max_bytes", 0),
            frames=options.get("max_frames", 0),
            duration_us=microseconds(options.get("max_duration", 0.0)),
        ),
        segments=[time_range(*ends) for ends in options.get("segments", ())],
    )


def temporal(options: Mapping[str, Any]) -> recommender_pb2.Temporal:
    """The `temporal` among `options`."""
    mode = options.get("temporal")
    if mode is not None and mode not in _TEMPORAL:
        raise ValueError(f'temporal is "segments" or "gru", not {mode!r}')
    return _TEMPORAL[mode] if mode else recommender_pb2.TEMPORAL_UNSPECIFIED


def rank(options: Mapping[str, Any]) -> recommender_pb2.RankOptions:
    """The RankOptions among `options`, and frames_per_update."""
    return recommender_pb2.RankOptions(
        limit=options.get("limit", 0),
        exclude_item_ids=words("exclude", options.get("exclude", ())),
        tags=tag_filter(options),
        minimum_score=options.get("minimum_score"),
        frames_per_update=min(options.get("frames_per_update", 0), _MOST),
    )


def user(options: Mapping[str, Any]) -> recommender_pb2.UserOptions:
    """The UserOptions among `options`; those that are None, as those left out, are the server's."""
    set_ = {name: options[name] for name in UserOptions.__optional_keys__ if options.get(name) is not None}
    half_life = set_.pop("freshness_half_life", None)
    if half_life is not None:
        set_["freshness_half_life_us"] = microseconds(half_life)
    return recommender_pb2.UserOptions(**set_)


def tag_filter(options: Mapping[str, Any]) -> catalog_pb2.TagFilter:
    """all_of, any_of and none_of among `options`."""
    return catalog_pb2.TagFilter(
        all_of=words("all_of", options.get("all_of", ())),
        any_of=words("any_of", options.get("any_of", ())),
        none_of=words("none_of", options.get("none_of", ())),
    )


def time_range(start: float, end: float) -> common_pb2.TimeRange:
    """From seconds."""
    return common_pb2.TimeRange(start_us=microseconds(start), end_us=microseconds(end))


def encoder(encoder: Encoder | None) -> common_pb2.Encoder | None:
    """None stays None: the encoder that the server runs."""
    if encoder is None:
        return None
    return common_pb2.Encoder(
        name=encoder.name, version=encoder.version, digest=encoder.digest, dimensions=encoder.dimensions
    )


def words(name: str, words: Iterable[str]) -> Iterable[str]:
    """`words` itself; TypeError for a lone string, which would be taken letter by letter."""
    if isinstance(words, str):
        raise TypeError(f"{name} is a list of strings; for one, write [{words!r}]")
    return words
