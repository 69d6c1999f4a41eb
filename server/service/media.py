"""Protobuf media to records: headers, chunks, and the sources that the stages read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from typing import Any, Literal

from matchcut.server.config import Config
from matchcut.server.errors import InvalidInput
from matchcut.server.feed import ByteFeed
from matchcut.server.records import (
    Container,
    DecodedFrames,
    EncodedPictures,
    Media,
    MediaLimits,
    Sampling,
    ShotMode,
    Temporal,
    TimeRange,
)
from matchcut.v1 import common_pb2, media_pb2, recommender_pb2

Kind = Literal["data", "picture", "frame"]
CHUNK_BYTES = 1 << 20
PICTURE_BYTES = 16 << 20
SIDE = 16384
SEGMENTS = 4096
RESUME_BYTES = 1 << 20
SLOWEST, RATE = 0.001, 1000.0  # frames per second
OVERHEAD = 256  # bytes that a piece weighs beside its payload
KINDS: dict[str | None, Kind] = {None: "data", "container": "data", "pictures": "picture", "frames": "frame"}
PIXEL_FORMATS: dict[int, Literal["rgb24", "bgr24", "gray8", "i420", "nv12"]] = {
    media_pb2.PIXEL_FORMAT_UNSPECIFIED: "rgb24",
    media_pb2.PIXEL_FORMAT_RGB24: "rgb24",
    media_pb2.PIXEL_FORMAT_BGR24: "bgr24",
    media_pb2.PIXEL_FORMAT_GRAY8: "gray8",
    media_pb2.PIXEL_FORMAT_I420: "i420",
    media_pb2.PIXEL_FORMAT_NV12: "nv12",
}
SHOT_MODES = {
    media_pb2.SHOT_MODE_EXACT: ShotMode.EXACT,
    media_pb2.SHOT_MODE_COARSE: ShotMode.COARSE,
    media_pb2.SHOT_MODE_OFF: ShotMode.OFF,
}


class Intent(Enum):
    """What the media is for; it decides the defaults."""

    INGEST = "ingest"
    QUERY = "query"


def time_range(message: common_pb2.TimeRange, field: str) -> TimeRange:
    """A stretch of time that does not end before it begins."""
    if not 0 <= message.start_us <= message.end_us:
        raise InvalidInput(f"{field} must have 0 <= start_us <= end_us", field=field)
    return TimeRange(message.start_us, message.end_us)


def payload(chunk: media_pb2.MediaChunk, kind: Kind) -> tuple[Any, int]:
    """What a chunk carries, bytes or (time_us, bytes), and its weight in memory, in bytes.

    Raises:
        InvalidInput: the chunk is empty, of another kind than the header announced, or too large.
    """
    if chunk.WhichOneof("payload") != kind:
        sent = chunk.WhichOneof("payload") or "nothing"
        raise InvalidInput(f"the header announces chunks of {kind!r}, this one carries {sent}", field="chunk")
    if kind == "data":
        if len(chunk.data) > CHUNK_BYTES:
            raise InvalidInput(f"chunk.data has {len(chunk.data)} bytes; at most 1 MiB is allowed", field="chunk.data")
        return chunk.data, len(chunk.data) + OVERHEAD
    if kind == "picture":
        picture = chunk.picture
        if not 0 < len(picture.data) <= PICTURE_BYTES:
            raise InvalidInput(
                f"chunk.picture.data has {len(picture.data)} bytes; 1 byte to 16 MiB are allowed",
                field="chunk.picture.data",
            )
        return (picture.time_us, picture.data), len(picture.data) + OVERHEAD
    return (chunk.frame.time_us, chunk.frame.pixels), len(chunk.frame.pixels) + OVERHEAD


class MediaRequests:
    """Media headers, understood with the server's defaults and limits."""

    def __init__(self, config: Config) -> None:
        self._rates = {Intent.INGEST: config.rate, Intent.QUERY: config.query_rate}
        self._shots = {Intent.INGEST: ShotMode.EXACT, Intent.QUERY: ShotMode.COARSE}
        self._run = config.batch
        self._limits = MediaLimits(
            pixels=config.max_pixels,
            bytes=config.max_bytes,
            buffered=config.max_buffered,
            frames=config.max_frames,
            duration_us=round(config.max_seconds * 1e6),
        )

    @staticmethod
    def kind(header: media_pb2.MediaHeader) -> Kind:
        """Which chunks the header announces."""
        return KINDS[header.WhichOneof("form")]

    def media(self, header: media_pb2.MediaHeader, pieces: Iterable[Any], intent: Intent) -> Media:
        """The media that the header describes and the pieces make up."""
        kind = self.kind(header)
        form: Container | EncodedPictures | DecodedFrames
        if kind == "data":
            form = Container(ByteFeed(pieces), header.container.format)
        elif kind == "picture":
            form = EncodedPictures(iter(pieces))
        else:
            form = self._frames(header.frames, iter(pieces))
        return Media(form, self._sampling(header.sampling, intent), self._limits, wanted(header), given(header))

    @staticmethod
    def temporal(message: recommender_pb2.ClipQuery | recommender_pb2.RecommendLiveHeader) -> Temporal:
        """How the frames of a query become vectors."""
        gru = message.temporal == recommender_pb2.TEMPORAL_GRU
        if gru and message.media.segments:
            raise InvalidInput("a GRU makes one vector of all frames; leave media.segments empty", field="temporal")
        return Temporal.GRU if gru else Temporal.SEGMENTS

    def live(self, header: recommender_pb2.RecommendLiveHeader, pieces: Iterable[Any]) -> Media:
        """The media of a live query."""
        if len(header.resume) > RESUME_BYTES:
            raise InvalidInput(f"resume has {len(header.resume)} bytes; at most {RESUME_BYTES}", field="resume")
        temporal = self.temporal(header)
        if header.resume and temporal is not Temporal.GRU:
            raise InvalidInput("only a GRU's state can be resumed; set temporal to TEMPORAL_GRU", field="resume")
        return replace(self.media(header.media, pieces, Intent.QUERY), temporal=temporal, resume=header.resume)

    def latest(self, header: recommender_pb2.RecommendLiveHeader) -> int:
        """How many pieces of a live query may wait before the oldest is dropped; 0: as many as come."""
        if header.latest_only and self.kind(header.media) == "data":
            raise InvalidInput(
                "latest_only is for pictures and frames; of a container none can be left out", field="latest_only"
            )
        return self._run if header.latest_only else 0

    def _sampling(self, message: media_pb2.Sampling, intent: Intent) -> Sampling:
        rate = message.frames_per_second
        if rate and not SLOWEST <= rate <= RATE:
            raise InvalidInput(
                f"sampling.frames_per_second is {rate}; it must be 0 (for {self._rates[intent]:g}) or {SLOWEST:g} "
                f"to {RATE:g}",
                field="media.sampling.frames_per_second",
            )
        if message.tolerance_us < 0:
            raise InvalidInput("sampling.tolerance_us is negative", field="media.sampling.tolerance_us")
        shots = SHOT_MODES.get(message.shots, self._shots[intent])
        return Sampling(rate or self._rates[intent], message.tolerance_us, shots)

    def _frames(self, message: media_pb2.FrameForm, stream: Iterator[tuple[int, bytes]]) -> DecodedFrames:
        for name, side in (("width", message.width), ("height", message.height)):
            if not 1 <= side <= SIDE:
                raise InvalidInput(f"frames.{name} is {side}; it must be 1 to {SIDE}", field=f"media.frames.{name}")
        pixel_format = PIXEL_FORMATS.get(message.pixel_format)
        if pixel_format is None:
            raise InvalidInput(
                f"frames.pixel_format {message.pixel_format} is unknown", field="media.frames.pixel_format"
            )
        if pixel_format in ("i420", "nv12") and (message.width % 2 or message.height % 2):
            raise InvalidInput(
                f"frames of {pixel_format} need an even width and height", field="media.frames.pixel_format"
            )
        return DecodedFrames(stream, message.width, message.height, pixel_format)


def wanted(header: media_pb2.MediaHeader) -> MediaLimits | None:
    """The caller's own limits; None where there are none."""
    limits = header.limits
    for name in ("bytes", "frames", "duration_us"):
        if getattr(limits, name) < 0:
            raise InvalidInput(f"limits.{name} is negative", field=f"media.limits.{name}")
    if not (limits.bytes or limits.frames or limits.duration_us):
        return None
    return MediaLimits(pixels=0, bytes=limits.bytes, frames=limits.frames, duration_us=limits.duration_us)


def given(header: media_pb2.MediaHeader) -> tuple[TimeRange, ...]:
    """The segments known beforehand, in time order, none empty, none within another."""
    if len(header.segments) > SEGMENTS:
        raise InvalidInput(
            f"media.segments has {len(header.segments)} entries; at most {SEGMENTS}", field="media.segments"
        )
    found: list[TimeRange] = []
    for at, message in enumerate(header.segments):
        span = time_range(message, f"media.segments[{at}]")
        if span.start_us == span.end_us:
            raise InvalidInput(f"media.segments[{at}] is empty", field=f"media.segments[{at}]")
        if found and span.start_us < found[-1].end_us:
            raise InvalidInput(
                f"media.segments[{at}] begins before the one ahead of it ends", field=f"media.segments[{at}]"
            )
        found.append(span)
    return tuple(found)
