"""Opens a container that a stranger sent: only known formats, nothing beside the bytes, no picture too large."""

from __future__ import annotations

from typing import NoReturn

import av
from av.container import InputContainer
from av.stream import Discard, Disposition

from matchcut.server.convert import check_pixels
from matchcut.server.decode.lead import Lead
from matchcut.server.decode.reader import Reader, Whole
from matchcut.server.errors import UnreadableMedia
from matchcut.server.records import MediaLimits

__all__ = ["FORMATS", "open_container", "video_stream"]

FORMATS = {
    **dict.fromkeys(("mp4", "mov", "m4v", "3gp", "3g2", "quicktime"), "mov"),
    **dict.fromkeys(("matroska", "mkv", "webm"), "matroska"),
    **dict.fromkeys(("mpegts", "ts", "m2ts"), "mpegts"),
    **dict.fromkeys(("mpeg", "mpg", "ps"), "mpeg"),
    **dict.fromkeys(("avi", "flv", "ogg", "h264", "hevc")),
}
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,ogg,h264,hevc"
STILLS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
# How far ahead the demuxer may read to learn about streams; its own default of 5 MB delays live media by seconds.
PROBE = {"mov": 1 << 15, "matroska": 1 << 15, "flv": 1 << 15, "mpegts": 1 << 18}


def refuse(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    """No container has a reason to open another file or address."""
    raise UnreadableMedia(f"the media refers to another file ({url[:80]!r}); send one that contains everything")


def demuxer(name: str) -> str | None:
    """FFmpeg's name of the format that a client names; None where it names none.

    Raises:
        UnreadableMedia: the format is not among those that are taken.
    """
    if not name:
        return None
    word = name.lower().lstrip(".")
    if word not in FORMATS:
        raise UnreadableMedia(
            f"the container format {name[:40]!r} is not taken; send one of {', '.join(sorted(FORMATS))}",
            reason="UNSUPPORTED_FORMAT",
            field="media.container.format",
        )
    return FORMATS[word] or word


def open_container(reader: Reader, lead: Lead, name: str, limits: MediaLimits) -> InputContainer:
    """Opens what `reader` gives, as the named format or, without a name, as the one that is found.

    Raises:
        UnreadableMedia: the bytes are not media of a format that is taken.
        MatchcutError: what the source raised.
    """
    format_name = demuxer(name)
    source: Reader | Whole = reader
    if lead.index_last:
        # The index says where each picture lies, and it comes last: there is nothing to decode until it is here.
        # Memory, within the byte limit, and not a temporary file, so that nothing of the media ever touches a disk.
        source = reader.whole()
    # The whitelist names a protocol that does not exist: nothing is opened by address, not even the standard input.
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "none", "max_pixels": str(limits.pixels)}
    probe = PROBE.get(format_name or ("mov" if lead.fragmented else ""))
    if probe is not None and not lead.index_last:
        options |= {"probesize": str(probe), "analyzeduration": "0"}
    try:
        container = av.open(source, mode="r", format=format_name, options=options, io_open=refuse)
    except (av.FFmpegError, ValueError) as error:
        reader.check()
        raise unreadable(lead, reader.report.bytes) from error
    try:
        reader.check()
    except Exception:
        container.close()
        raise
    return container


def unreadable(lead: Lead, arrived: int) -> UnreadableMedia:
    """The error for bytes that no demuxer takes."""
    if not arrived:
        return UnreadableMedia("the media is empty; send the bytes of a video file", reason="EMPTY_MEDIA")
    if lead.promised > arrived:
        return UnreadableMedia(
            f"the media ends after {arrived} of {lead.promised} bytes, before its index; send all of it, or write "
            "the index first (faststart)",
            reason="TRUNCATED",
        )
    return UnreadableMedia(
        "the bytes are not a video file that can be read; send MP4, MOV, Matroska, WebM, MPEG-TS, MPEG-PS, AVI, FLV, "
        "OGG, or raw H.264 or HEVC"
    )


def video_stream(container: InputContainer, limits: MediaLimits) -> av.VideoStream:
    """The stream to decode, ready for it: moving pictures, the default one, the largest; others are discarded.

    Raises:
        UnreadableMedia: there is none, or nothing here decodes it.
        MediaLimitExceeded: its pictures are too large.
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & STILLS]
    if not moving:
        raise UnreadableMedia("the media holds no moving pictures; send a video", reason="NO_VIDEO")
    decodable = [stream for stream in moving if stream.codec_context is not None]
    if not decodable:
        raise UnreadableMedia(
            "the media's video codec is unknown here; send H.264, HEVC, VP9 or AV1", reason="UNSUPPORTED_CODEC"
        )
    chosen = max(decodable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    check_pixels(chosen.width, chosen.height, limits)
    context = chosen.codec_context
    context.thread_count = 1  # streams run side by side; threads within one would only fight for the same cores
    context.options = {"max_pixels": str(limits.pixels)}
    return chosen
