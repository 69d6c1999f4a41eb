"""Protobuf requests to records, with every bound checked and the field named that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.records import (
    EncoderIdentity,
    Item,
    ItemsQuery,
    Media,
    Query,
    RankOptions,
    Segment,
    TagFilter,
    VectorQuery,
)
from matchcut.server.service.media import Intent, MediaRequests, payload, time_range
from matchcut.v1 import catalog_pb2, common_pb2, recommender_pb2

ID_BYTES = 256
TITLE_BYTES = 1024
URI_BYTES = 2048
TAGS = 64
TAG_BYTES = 128
ATTRIBUTES = 64
ATTRIBUTES_BYTES = 16 << 10
SEGMENTS = 4096
LIMIT = 1000
EXCLUDED = 10_000
QUERY_ITEMS = 64
PAGE = 1000


def bounded(text: str, most: int, field: str, *, required: bool = False) -> str:
    """The text, which must not be longer than so many bytes in UTF-8 (or empty)."""
    size = len(text.encode())
    if size > most:
        raise InvalidInput(f"{field} has {size} bytes; at most {most} are allowed", field=field)
    if required and not text:
        raise InvalidInput(f"{field} is required", field=field)
    return text


def few(values: Sequence[Any], most: int, field: str) -> Sequence[Any]:
    """The values, which must not be more than so many."""
    if len(values) > most:
        raise InvalidInput(f"{field} has {len(values)} entries; at most {most} are allowed", field=field)
    return values


def tenant(text: str) -> str:
    """A tenant's name; "" is the default one."""
    return bounded(text, ID_BYTES, "tenant")


def item_id(text: str, field: str = "item_id") -> str:
    """An item's id, which must not be empty."""
    return bounded(text, ID_BYTES, field, required=True)


def item(message: catalog_pb2.Item, field: str = "item") -> Item:
    """An item as a caller describes it."""
    tags = [bounded(tag, TAG_BYTES, f"{field}.tags", required=True) for tag in few(message.tags, TAGS, f"{field}.tags")]
    attributes = dict(message.attributes)
    few(attributes, ATTRIBUTES, f"{field}.attributes")  # type: ignore[arg-type]
    size = sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
    if size > ATTRIBUTES_BYTES:
        raise InvalidInput(
            f"{field}.attributes have {size} bytes; at most {ATTRIBUTES_BYTES} are allowed", field=f"{field}.attributes"
        )
    if message.duration_us < 0:
        raise InvalidInput(f"{field}.duration_us is negative", field=f"{field}.duration_us")
    return Item(
        item_id=item_id(message.item_id, f"{field}.item_id"),
        title=bounded(message.title, TITLE_BYTES, f"{field}.title"),
        uri=bounded(message.uri, URI_BYTES, f"{field}.uri"),
        tags=tuple(sorted(set(tags))),
        attributes=attributes,
        duration_us=message.duration_us,
    )


def tag_filter(message: catalog_pb2.TagFilter, field: str) -> TagFilter:
    """A condition on tags."""
    return TagFilter(
        frozenset(few(message.all_of, TAGS, f"{field}.all_of")),
        frozenset(few(message.any_of, TAGS, f"{field}.any_of")),
        frozenset(few(message.none_of, TAGS, f"{field}.none_of")),
    )


def encoder(message: common_pb2.Encoder) -> EncoderIdentity | None:
    """The encoder that a caller names; None where it names none."""
    for field in ("name", "version", "digest"):
        bounded(getattr(message, field), ID_BYTES, f"encoder.{field}")
    if message.dimensions < 0:
        raise InvalidInput(f"encoder.dimensions is {message.dimensions}", field="encoder.dimensions")
    if not (message.name or message.digest):
        return None
    return EncoderIdentity(message.name, message.version, message.digest, message.dimensions)


def segments(messages: Sequence[catalog_pb2.Segment]) -> list[Segment]:
    """An item's segments with vectors, in time order, at least one."""
    if not messages:
        raise InvalidInput("segments is empty; send at least one with a vector", field="segments")
    found: list[Segment] = []
    for at, message in enumerate(few(messages, SEGMENTS, "segments")):
        span = time_range(message.range, f"segments[{at}].range")
        if found and span.start_us < found[-1].range.start_us:
            raise InvalidInput(f"segments[{at}] begins before the one ahead of it", field=f"segments[{at}].range")
        if not message.vector:
            raise InvalidInput(f"segments[{at}].vector is empty", field=f"segments[{at}].vector")
        found.append(Segment(span, np.array(message.vector, np.float32)))
    return found


def rank_options(message: recommender_pb2.RankOptions) -> RankOptions:
    """How to rank; 0 and empty stand for the defaults."""
    if not 0 <= message.limit <= LIMIT:
        raise InvalidInput(f"options.limit is {message.limit}; it must be 0 (for 10) to {LIMIT}", field="options.limit")
    if message.frames_per_update < 0:
        raise InvalidInput("options.frames_per_update is negative", field="options.frames_per_update")
    minimum = message.minimum_score if message.HasField("minimum_score") else None
    if minimum is not None and minimum != minimum:
        raise InvalidInput("options.minimum_score is NaN", field="options.minimum_score")
    return RankOptions(
        limit=message.limit or 10,
        exclude=frozenset(few(message.exclude_item_ids, EXCLUDED, "options.exclude_item_ids")),
        tags=tag_filter(message.tags, "options.tags"),
        minimum_score=minimum,
        frames_per_update=message.frames_per_update or 8,
    )


class Requests:
    """Requests that need the server's own settings to be understood."""

    def __init__(self, config: Config) -> None:
        self.media = MediaRequests(config)

    def query(self, message: recommender_pb2.Query, field: str = "query") -> Query:
        """A query that is complete; field: its path in the request."""
        source = message.WhichOneof("source")
        if source == "items":
            path = f"{field}.items.item_ids"
            ids = few(message.items.item_ids, QUERY_ITEMS, path)
            if not ids:
                raise InvalidInput(f"{path} is empty; name at least one", field=path)
            unique = dict.fromkeys(item_id(name, path) for name in ids)
            return ItemsQuery(tuple(unique), message.items.include_themselves)
        if source == "vector":
            if not message.vector.values:
                raise InvalidInput(f"{field}.vector.values is empty", field=f"{field}.vector.values")
            return VectorQuery(np.array(message.vector.values, np.float32), encoder(message.vector.encoder))
        if source == "clip":
            return self._clip(message.clip)
        raise InvalidInput(f"{field}.source is not set: send items, a vector or a clip", field=field)

    def _clip(self, message: recommender_pb2.ClipQuery) -> Media:
        kind = self.media.kind(message.media)
        pieces: Iterator[Any] = (payload(chunk, kind)[0] for chunk in message.chunks)
        temporal = self.media.temporal(message)
        return replace(self.media.media(message.media, list(pieces), Intent.QUERY), temporal=temporal)


def page_size(message: catalog_pb2.ListItemsRequest) -> int:
    """Items in one page; 0 stands for 100."""
    if not 0 <= message.page_size <= PAGE:
        raise InvalidInput(f"page_size is {message.page_size}; it must be 0 (for 100) to {PAGE}", field="page_size")
    return message.page_size or 100
