"""Media as the messages of one call: first a header, then chunks. Nothing here sends anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from matchcut.client.errors import InvalidInput
from matchcut.client.options import microseconds
from matchcut.client.sources import Meter, slices
from matchcut.v1 import media_pb2

__all__ = ["FramePacker", "Outgoing", "Packer", "PixelFormat", "clip_chunks", "pack_picture"]

Piece = TypeVar("Piece")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
PixelFormat: TypeAlias = Literal["rgb24", "bgr24", "gray8", "i420", "nv12"]

_FORMATS: dict[str, tuple[media_pb2.PixelFormat, int, int]] = {  # contract's value, array dimensions, rows per 2 lines
    "rgb24": (media_pb2.PIXEL_FORMAT_RGB24, 3, 2),
    "bgr24": (media_pb2.PIXEL_FORMAT_BGR24, 3, 2),
    "gray8": (media_pb2.PIXEL_FORMAT_GRAY8, 2, 2),
    "i420": (media_pb2.PIXEL_FORMAT_I420, 2, 3),
    "nv12": (media_pb2.PIXEL_FORMAT_NV12, 2, 3),
}


class HasMedia(Protocol):
    """An IngestHeader or RecommendLiveHeader."""

    media: media_pb2.MediaHeader


class Packs(Protocol[Piece_contra]):
    """Turns the pieces of one try of a call into its messages."""

    def start(self) -> Iterable[Message]:
        """What can be sent before there is a piece."""
        ...

    def pack(self, piece: Piece_contra, /) -> Iterable[Message]:
        """What one piece becomes."""
        ...

    def finish(self) -> None:
        """Called after the last piece; raises where something is missing."""
        ...


@dataclass(frozen=True, slots=True)
class Packer(Generic[Piece]):
    """Packs pieces whose header does not depend on them.

    request: the call's message type, with fields `header` and `chunk`.
    header: makes the header; may read a file to do so.
    chunks: makes the chunks of one piece.
    """

    request: Callable[..., Message]
    header: Callable[[], Message]
    chunks: Callable[[Piece], Iterable[media_pb2.MediaChunk]]

    def start(self) -> Iterator[Message]:
        yield self.request(header=self.header())

    def pack(self, piece: Piece) -> Iterator[Message]:
        for chunk in self.chunks(piece):
            yield self.request(chunk=chunk)

    def finish(self) -> None:
        """Nothing is missing: the server knows what to say of media without a piece."""


class FramePacker:
    """Packs (seconds, pixels) frames; the first one tells the header the size. It serves one call.

    Args:
        request: the call's message type, with fields `header` and `chunk`.
        header: everything but the frames' size.
        pixel_format: how the arrays lie in memory.

    Raises:
        ValueError: a frame of another type, shape or size than expected.
        InvalidInput: no frame at all, of which the server could not tell the size.
    """

    def __init__(self, request: Callable[..., Message], header: HasMedia, pixel_format: PixelFormat) -> None:
        if pixel_format not in _FORMATS:
            raise ValueError(f"pixel_format is one of {', '.join(_FORMATS)}, not {pixel_format!r}")
        self._request = request
        self._header = header
        self._name = pixel_format
        self._shape: tuple[int, ...] = ()

    def start(self) -> tuple[()]:
        return ()

    def pack(self, piece: tuple[float, Any]) -> Iterator[Message]:
        seconds, frame = piece
        pixels = _pixels(frame)
        if not self._shape:
            self._header.media.frames.CopyFrom(self._form(pixels))
            yield self._request(header=self._header)
        elif pixels.shape != self._shape:
            raise ValueError(f"all frames must be of one size: {self._shape} came first, then {pixels.shape}")
        packed = media_pb2.Frame(pixels=pixels.tobytes(), time_us=microseconds(seconds))
        yield self._request(chunk=media_pb2.MediaChunk(frame=packed))

    def finish(self) -> None:
        if not self._shape:
            said = "there is no frame; give at least one (seconds, array)"
            raise InvalidInput(said, code="INVALID_ARGUMENT", reason="EMPTY_MEDIA")

    def _form(self, pixels: memoryview) -> media_pb2.FrameForm:
        code, dimensions, rows = _FORMATS[self._name]
        shape = pixels.shape or ()
        if pixels.format != "B" or len(shape) != dimensions or (len(shape) == 3 and shape[2] != 3):
            raise ValueError(f"an array of shape {shape} and type {pixels.format!r} is no {self._name} frame of uint8")
        self._shape = shape
        return media_pb2.FrameForm(width=shape[1], height=shape[0] * 2 // rows, pixel_format=code)


def _pixels(frame: Any) -> memoryview:
    """The array's own memory, without numpy; what has no buffer of its own may have `__array__`."""
    try:
        return memoryview(frame)
    except TypeError:
        if not hasattr(frame, "__array__"):
            raise
        return memoryview(frame.__array__())


def clip_chunks(data: bytes | bytearray | memoryview) -> Iterator[media_pb2.MediaChunk]:
    """Bytes of a container, in chunks that the contract allows."""
    for piece in slices(data):
        yield media_pb2.MediaChunk(data=piece)


def pack_picture(piece: tuple[float, bytes]) -> tuple[media_pb2.MediaChunk]:
    """One (seconds, JPEG or PNG file)."""
    seconds, data = piece
    return (media_pb2.MediaChunk(picture=media_pb2.Picture(data=data, time_us=microseconds(seconds))),)


@dataclass(frozen=True, slots=True)
class Outgoing(Generic[Piece]):
    """Everything that one call sends.

    packer: the one that packs this call.
    pieces: the media from its beginning.
    meter: is told of each message that has left.
    end: the messages after the last piece, which say that it was the last.
    """

    packer: Packs[Piece]
    pieces: Callable[[], Iterable[Piece] | AsyncIterable[Piece]]
    meter: Meter = field(default_factory=Meter)
    end: tuple[Message, ...] = ()

    def messages(self, pieces: Iterable[Piece]) -> Generator[Message, None, None]:
        """The messages that ordinary pieces become, lazily."""
        yield from self.packer.start()
        for piece in pieces:
            yield from self.packer.pack(piece)
        self.packer.finish()
        yield from self.end

    async def messages_async(self, pieces: AsyncIterable[Piece]) -> AsyncGenerator[Message, None]:
        """The messages that asynchronous pieces become, lazily."""
        for message in self.packer.start():
            yield message
        async for piece in pieces:
            for message in self.packer.pack(piece):
                yield message
        self.packer.finish()
        for message in self.end:
            yield message
