"""The loop from packets to pictures of one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import av
from av.container import InputContainer

from matchcut.server.convert import Converter, FramePicture, Geometry
from matchcut.server.decode import codecs
from matchcut.server.decode.choosing import chooser
from matchcut.server.decode.notes import Notes
from matchcut.server.decode.planner import Planner, Step
from matchcut.server.decode.reader import Reader
from matchcut.server.decode.timeline import Timeline
from matchcut.server.errors import UnreadableMedia
from matchcut.server.records import Sampling, ShotMode
from matchcut.server.sampling import Instants

__all__ = ["Decoding"]

MOST_DEMUX_ERRORS = 16

Packet: TypeAlias = "av.Packet[av.VideoStream]"


class Decoding:
    """Decodes one stream of an open container, once.

    Args:
        container, stream: what to decode.
        reader: where the container's bytes come from.
        converter: for the pictures.
        sampling: which pictures are due; with exact shots every picture is decoded and yielded.
        notes: keeps the limits and the report.
        check: called for each packet, and again before it is decoded; what it raises comes through.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: av.VideoStream,
        reader: Reader,
        *,
        converter: Converter,
        sampling: Sampling,
        notes: Notes,
        check: Callable[[], None],
    ) -> None:
        self._check = check
        self._container, self._stream, self._reader = container, stream, reader
        self._converter, self._notes = converter, notes
        self._timeline = Timeline(stream.time_base, stream.average_rate)
        self._instants = Instants(sampling.rate_fps, self._timeline.slack_us, sampling.instants_us)
        self._every = sampling.shots is ShotMode.EXACT
        self._planner: Planner | None = None
        self._geometry: Geometry | None = None
        self._damaged = self._untold = self._cut_off = False
        context = stream.codec_context
        traits = None if self._every else codecs.traits(context.codec.canonical_name, context.extradata)
        if traits is not None:
            self._planner = Planner(
                traits, self._timeline, chooser(self._instants, sampling.tolerance_us, notes.report)
            )

    def pictures(self) -> Iterator[FramePicture]:
        """The pictures in the order of presentation.

        Raises:
            MatchcutError: the source's own, a limit, or not one picture could be decoded.
        """
        for frame in self._frames():
            if self._geometry is None:
                self._geometry = self._notes.describe(frame, self._stream.sample_aspect_ratio)
            time_us, due = self._place(frame)
            if self._notes.late(time_us) or (due and self._notes.enough(time_us)):
                return
            self._notes.seen(frame)
            if due:
                self._notes.used()
            if due or self._every:
                yield FramePicture(time_us, due, frame, self._geometry, self._converter)
        if not self._notes.ended:
            self._notes.finish(self._reader, self._stream, cut_off=self._cut_off)
        if not self._notes.report.limited:
            self._tell_damage()
        if self._geometry is None:
            raise UnreadableMedia(
                "not one picture of the video could be decoded; send the whole file, undamaged, with pictures of at "
                f"most {self._notes.limits.pixels} pixels",
                reason="TRUNCATED" if self._notes.report.truncated else "",
            )

    def _place(self, frame: av.VideoFrame) -> tuple[int, bool]:
        """When a frame is shown and whether it is due; -1 for the time of frames that nobody asked for."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        planner = self._planner
        if planner is not None and stamp is not None:
            if stamp in planner.due:
                planner.due.discard(stamp)
                planner.eager = False
                self._timeline.last_us = self._timeline.at(stamp)
                return self._timeline.last_us, True
            if planner.planning or (planner.settled_us >= 0 and self._timeline.at(stamp) <= planner.settled_us):
                return -1, False
        time_us = self._timeline.place(stamp)
        self._notes.reached(time_us + self._timeline.length(frame.duration))
        return time_us, self._instants.take(time_us)

    def _frames(self) -> Iterator[av.VideoFrame]:
        """What comes out of the decoder."""
        planner = self._planner
        for packet in self._packets():
            if planner is None:
                yield from self._decode(Step(packet))
                continue
            yield from self._run(planner.feed(packet))
            if self._damaged and planner.planning:
                # What was chosen may now lack what it refers to: from here on, what comes out decides.
                yield from self._run(planner.give_up())
            self._notes.reached(planner.end_us)
            if self._notes.late(planner.settled_us):
                break
        if planner is not None:
            yield from self._run(planner.end())
            self._notes.reached(planner.end_us)
        yield from self._decode(Step(None))

    def _run(self, steps: list[Step]) -> Iterator[av.VideoFrame]:
        for step in steps:
            yield from self._decode(step)

    def _packets(self) -> Iterator[Packet]:
        """The stream's packets; after damage the demuxer looks for the next ones, a few times."""
        for _ in range(MOST_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    self._reader.check()
                    self._check()
                    if packet.size:
                        self._cut_off = packet.is_corrupt
                        yield packet
                break
            except av.FFmpegError:
                self._reader.check()
                self._damage()
        self._reader.check()

    def _decode(self, step: Step) -> list[av.VideoFrame]:
        """One call of the decoder; a damaged packet gives nothing."""
        self._check()
        context = self._stream.codec_context
        if step.packet is not None and step.packet.is_corrupt:
            self._damage()
            return []
        try:
            context.skip_frame = step.skip
            frames = context.decode(step.packet)
            if step.packet is None:
                context.flush_buffers()
        except av.FFmpegError:
            self._damage()
            return []
        if step.packet is not None:
            self._tell_damage()
        return frames

    def _damage(self) -> None:
        self._damaged = self._untold = True

    def _tell_damage(self) -> None:
        """Told once it is not the very last packet: where the caller's own limit ends the bytes, that one is in two."""
        if self._untold:
            self._untold = False
            self._notes.report.warn("CORRUPT_PACKETS", "parts of the video are damaged and were left out")
