"""What is noted about a piece of media while it is decoded, and the limits that are kept on the way."""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer

from matchcut.server.convert import Geometry, check_pixels
from matchcut.server.decode.lead import Lead
from matchcut.server.decode.reader import Reader
from matchcut.server.errors import MediaLimitExceeded
from matchcut.server.records import MediaLimits, MediaReport

__all__ = ["Notes"]

DENSEST_FPS = 1000
GRACE_FRAMES = 10_000


class Notes:
    """Fills the report and keeps the limits.

    Args:
        limits: exceeding one raises MediaLimitExceeded.
        wanted: the caller's own, lower ones (0: none), of which reaching one ends the reading.
        report: filled.
        lead: what the first bytes of the container told.
    """

    def __init__(self, limits: MediaLimits, wanted: MediaLimits | None, report: MediaReport, lead: Lead) -> None:
        self.report = report
        self.ended = False  # by a limit of the caller's own
        self.limits, self._lead = limits, lead
        self._most_us, self._most_used = (wanted.duration_us, wanted.frames) if wanted else (0, 0)
        self._used = 0

    def opened(self, container: InputContainer, stream: av.VideoStream) -> None:
        """Notes what the container says about itself."""
        names = container.format.name.split(",")
        self.report.container = "mp4" if "mp4" in names else names[0]
        self.report.codec = stream.codec_context.codec.canonical_name
        if any(track.codec_context is None for track in container.streams.audio):
            self.report.warn("BROKEN_AUDIO", "a sound track is damaged or of an unknown kind; it was not needed")

    def describe(self, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Geometry:
        """Notes the displayed size by the first frame; returns how frames become upright."""
        geometry = Geometry.of(frame.rotation, pixel_aspect)
        self.report.width, self.report.height = geometry.displayed(frame.width, frame.height)
        return geometry

    def reached(self, end_us: int) -> None:
        """Media time up to here is known; raises MediaLimitExceeded beyond the limit."""
        end_us = min(end_us, self._most_us or end_us)
        self.report.duration_us = max(self.report.duration_us, end_us)
        if end_us > self.limits.duration_us:
            raise MediaLimitExceeded(
                f"the video is longer than {self.limits.duration_us / 1e6:g} s; send a shorter one",
                reason="MEDIA_TOO_LONG",
            )

    def late(self, time_us: int) -> bool:
        """Whether the caller wants nothing of this time or later."""
        if not 0 < self._most_us <= time_us:
            return False
        self._end("time", self._most_us)
        return True

    def enough(self, time_us: int) -> bool:
        """Whether the caller wants no more frames than were used; the next one would be at this time."""
        if not 0 < self._most_used <= self._used:
            return False
        self._end("frames", time_us)
        return True

    def seen(self, frame: av.VideoFrame) -> None:
        """One more frame was decoded; raises MediaLimitExceeded where frames come without time going on."""
        check_pixels(frame.width, frame.height, self.limits)
        self.report.frames_seen += 1
        if self.report.frames_seen > GRACE_FRAMES + self.report.duration_us * DENSEST_FPS // 1_000_000:
            raise MediaLimitExceeded(
                f"the video has more than {DENSEST_FPS} frames per second; send it with sane time stamps",
                reason="MEDIA_TOO_MANY_FRAMES",
            )

    def used(self) -> None:
        """One more frame is due; raises MediaLimitExceeded beyond the limit."""
        self._used += 1
        if self._used > self.limits.frames:
            raise MediaLimitExceeded(
                f"more than {self.limits.frames} frames would be used; lower the rate or send a shorter clip",
                reason="MEDIA_TOO_MANY_FRAMES",
            )

    def finish(self, reader: Reader, stream: av.VideoStream, *, cut_off: bool) -> None:
        """Takes what is left of the bytes and compares what came with what the container promised.

        A demuxer takes the middle of an MP4 for its end without a word, so its index is asked where the last picture
        should lie. Where the caller wanted no more bytes than came, nothing is amiss.
        """
        reader.exhaust()
        promised = self._lead.promised
        entries = stream.index_entries
        if self.report.container == "mp4" and len(entries):
            promised = max(promised, entries[-1].pos + entries[-1].size)
        if not self.report.limited and (cut_off or promised > self.report.bytes):
            self.report.truncated = True
            self.report.warn("TRUNCATED", "the video ends before its container says; what came was used")

    def _end(self, what: str, at_us: int) -> None:
        self.ended = True
        self.report.duration_us = at_us
        self.report.limit(what)
