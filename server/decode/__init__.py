"""Decodes video that strangers send: bytes go in as they arrive, pictures come out, bounded in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from matchcut.server.convert import Converter
from matchcut.server.decode.container import open_container, video_stream
from matchcut.server.decode.decoding import Decoding
from matchcut.server.decode.lead import lead
from matchcut.server.decode.notes import Notes
from matchcut.server.decode.reader import Reader
from matchcut.server.records import ByteSource, InputSize, MediaLimits, MediaReport, Picture, Sampling

__all__ = ["pictures"]


def pictures(
    source: ByteSource,
    *,
    size: InputSize,
    sampling: Sampling,
    limits: MediaLimits,
    wanted: MediaLimits | None = None,
    report: MediaReport,
    format: str = "",
    check: Callable[[], None] = lambda: None,
) -> Iterator[Picture]:
    """Decodes a container while its bytes arrive and yields its pictures in the order of presentation.

    Times are relative to the first video frame, which is at 0. A wanted time (0, 1 / rate, 2 / rate, ...) is served
    by the first picture at or after it, to the resolution of the container's clock; a tolerance lets the nearest
    keyframe within it serve instead, once for all the wanted times that it is near to. The wanted times that the
    sampling names one by one are served by the first picture at or after each, without tolerance. With exact shots
    every picture is decoded and yielded, exactly sampled, `due` marking the sampled ones; otherwise only due pictures
    are yielded, and only what they need is decoded. Either way the due pictures are the same to the bit.

    Closing the iterator, or any error, closes the container at once. Pictures are to be converted in the thread that
    iterates; they stay valid after that, at the cost of the memory of a decoded frame each.

    Args:
        source: the container's bytes; read to its end, and not beyond `limits.bytes`.
        size: what `Picture.rgb()` gives.
        sampling: which pictures are due.
        limits: exceeding one is an error.
        wanted: the caller's own limits of frames and time, each lower than those or 0 for none; reaching one ends the
            pictures, which the report says.
        report: filled on the way; `frames_used` and `frames_reused` are left to the caller.
        format: the container's short name, which lets the first picture come sooner; "" to detect it.
        check: called for each packet; what it raises ends the work.

    Raises:
        UnreadableMedia: the bytes are empty, no media, of a format or codec that is not taken, without a video, or
            without one picture that can be decoded.
        MediaLimitExceeded: too many bytes, pixels, frames, or too long.
        InvalidInput: the sampling rate is not a positive number.
        MatchcutError: what the source or the check raised, as it is.
    """
    reader = Reader(source, limits, report)
    first = lead(reader.peek)
    reader.check()
    container = open_container(reader, first, format, limits)
    try:
        notes = Notes(limits, wanted, report, first)
        stream = video_stream(container, limits)
        notes.opened(container, stream)
        decoding = Decoding(
            container, stream, reader, converter=Converter(size), sampling=sampling, notes=notes, check=check
        )
        yield from decoding.pictures()
    finally:
        container.close()
