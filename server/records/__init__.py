"""The nouns of matchcut as frozen records: what the stages hand to each other.

Times are integer microseconds (`_us`). Arrays inside records are not to be written to.
"""

from matchcut.server.records.base import EncoderIdentity, Floats, Pixels, TimeRange
from matchcut.server.records.catalog import Item, Outcome, Segment, TagFilter
from matchcut.server.records.media import (
    ByteSource,
    Container,
    Cut,
    DecodedFrames,
    Embedding,
    EncodedPictures,
    Frame,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Picture,
    Sampling,
    ShotMode,
    Temporal,
    Warned,
)
from matchcut.server.records.ranking import (
    Ingested,
    ItemsQuery,
    Match,
    Query,
    Ranking,
    RankOptions,
    StageTime,
    StageTimes,
    VectorQuery,
)

__all__ = [
    "ByteSource",
    "Container",
    "Cut",
    "DecodedFrames",
    "Embedding",
    "EncodedPictures",
    "EncoderIdentity",
    "Floats",
    "Frame",
    "Ingested",
    "InputSize",
    "Item",
    "ItemsQuery",
    "Match",
    "Media",
    "MediaLimits",
    "MediaReport",
    "Outcome",
    "Picture",
    "Pixels",
    "Query",
    "RankOptions",
    "Ranking",
    "Sampling",
    "Segment",
    "ShotMode",
    "StageTime",
    "StageTimes",
    "TagFilter",
    "Temporal",
    "TimeRange",
    "VectorQuery",
    "Warned",
]
