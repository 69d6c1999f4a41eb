"""Media, from the bytes that come in to what is made of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from matchcut.server.records.base import Floats, Pixels, TimeRange

LIMIT_REACHED = "LIMIT_REACHED"


class ByteSource(Protocol):
    """Where a container's bytes come from; what a decoder reads.

    `read(n)` blocks until there are bytes, returns 1 to n of them, b"" at the end, and raises a MatchcutError where
    the upload was cancelled, came too late or grew too large.
    """

    def read(self, n: int = -1, /) -> bytes: ...


class ShotMode(Enum):
    """How media is cut into segments."""

    EXACT = "exact"  # every frame is looked at
    COARSE = "coarse"  # only the used frames are looked at
    OFF = "off"  # segments of equal length


class Temporal(Enum):
    """How the frames of a query become vectors."""

    SEGMENTS = "segments"  # one for each segment, the mean of its frames
    GRU = "gru"  # one for all of it, the state of a GRU after its last frame


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a piece of media are used.

    rate_fps: frames per second of media time; above the media's own rate every frame is used.
    tolerance_us: how far a used frame may lie from the wanted time; 0 is exact (first frame at or after it).
    instants_us: wanted times beside those of the rate, ascending; each is served exactly, whatever the tolerance.
    """

    rate_fps: float = 1.0
    tolerance_us: int = 0
    shots: ShotMode = ShotMode.COARSE
    instants_us: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds on one piece of media. Exceeding one raises MediaLimitExceeded."""

    pixels: int = 16_777_216  # width x height of one coded picture
    bytes: int = 2_147_483_648
    buffered: int = 268_435_456  # of them in memory, where they cannot be used as they arrive
    frames: int = 100_000  # used, not decoded
    duration_us: int = 4 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Container:
    """Media as the bytes of a file or stream; `format` is its short name, "" where it is to be detected."""

    source: ByteSource
    format: str = ""


@dataclass(frozen=True, slots=True)
class EncodedPictures:
    """Media as JPEG or PNG files, each with its time in microseconds from wherever the sender counts."""

    stream: Iterator[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Media as packed pixels, each frame with its time as in EncodedPictures; `pixel_format` as FFmpeg names it."""

    stream: Iterator[tuple[int, bytes]]
    width: int
    height: int
    pixel_format: Literal["rgb24", "bgr24", "gray8", "i420", "nv12"]


@dataclass(frozen=True, slots=True)
class Media:
    """A piece of media and how it is to be read.

    limits: the server's; exceeding one is an error.
    wanted: the caller's, of which reaching one ends the reading with a warning; None where there are none.
    segments: given beforehand, in time order, from the first picture; they take the place of shot detection.
    temporal: of a query. resume: with a GRU, the token of the call that this one goes on from; b"": none.
    """

    form: Container | EncodedPictures | DecodedFrames
    sampling: Sampling
    limits: MediaLimits
    wanted: MediaLimits | None = None
    segments: tuple[TimeRange, ...] = ()
    temporal: Temporal = Temporal.SEGMENTS
    resume: bytes = b""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something odd in the media that did not stop its use; `reason` is a stable word in capitals."""

    reason: str
    message: str


@dataclass(slots=True)
class MediaReport:
    """What was found in a piece of media; the one mutable record: decoding fills it as it goes.

    frames_dropped: that came faster than they could be used, and are not among those seen.
    """

    bytes: int = 0
    frames_seen: int = 0
    frames_used: int = 0
    frames_reused: int = 0
    frames_blank: int = 0
    frames_dropped: int = 0
    duration_us: int = 0
    truncated: bool = False
    container: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    max_time_error_us: int = 0
    warnings: list[Warned] = field(default_factory=list)

    def warn(self, reason: str, message: str) -> None:
        """Adds a warning, each reason once."""
        if all(w.reason != reason for w in self.warnings):
            self.warnings.append(Warned(reason, message))

    @property
    def limited(self) -> bool:
        """Whether a limit of the caller's own ended the reading."""
        return any(w.reason == LIMIT_REACHED for w in self.warnings)

    def limit(self, what: str) -> None:
        """Notes that the caller's own limit of this ended the reading."""
        self.truncated = True
        self.warn(LIMIT_REACHED, f"the caller's limit of {what} ended the reading")


class Picture(Protocol):
    """A decoded picture that is converted only where somebody asks: what decoding yields, in the order of time.

    time_us: presentation time from the start of the media.
    due: the sampling wants this picture; others are there to be looked at.
    """

    @property
    def time_us(self) -> int: ...

    @property
    def due(self) -> bool: ...

    def rgb(self) -> Pixels:
        """(height, width, 3) uint8 at the encoder's size, upright."""
        ...

    def look(self) -> Pixels:
        """(48, 48, 3) uint8 YCbCr, area means over the whole picture as stored, not rotated; for shot detection."""
        ...


@dataclass(frozen=True, slots=True)
class InputSize:
    """The picture that an encoder wants.

    fit: "stretch" scales both sides on their own; "crop" keeps the displayed aspect (sample aspect ratio and rotation
    honoured), scales the shorter side and takes the middle.
    """

    width: int = 224
    height: int = 224
    fit: Literal["stretch", "crop"] = "stretch"


@dataclass(frozen=True, slots=True)
class Frame:
    """A used frame at the encoder's size.

    rgb: (height, width, 3) uint8, contiguous.
    time_us: presentation time from the start of the media.
    """

    time_us: int
    rgb: Pixels


@dataclass(frozen=True, slots=True)
class Cut:
    """A shot boundary: the shot before ends at `time_us`, the next one starts there."""

    time_us: int


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the encoder makes of a frame: (dimensions,) float32, of any length."""

    time_us: int
    vector: Floats
