"""Media of any form to the frames that are encoded and the cuts between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

from matchcut.server import decode, images
from matchcut.server.clock import Clock
from matchcut.server.records import (
    Container,
    Cut,
    EncodedPictures,
    Frame,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Picture,
    Pixels,
    ShotMode,
    TimeRange,
)
from matchcut.server.shots import watch


def frames_and_cuts(
    media: Media,
    size: InputSize,
    report: MediaReport,
    clock: Clock,
    *,
    check: Callable[[], None] = lambda: None,
) -> Generator[Frame | Cut, None, None]:
    """Decodes the media, finds its cuts and converts the frames that are wanted, in the order of time.

    Given segments take the place of shot detection, and each has a frame if the media has one there. Reaching a limit
    of the caller's own ends it with a warning.

    Args:
        check: called again and again while there is work; what it raises ends the work.

    Raises:
        MatchcutError: the media is unreadable or exceeds the server's limits.
    """
    wanted = lower(media.wanted, media.limits)
    mode = media.sampling.shots
    if media.segments:
        mode = ShotMode.OFF
        starts_us = tuple(segment.start_us for segment in media.segments)
        media = replace(media, sampling=replace(media.sampling, shots=mode, instants_us=starts_us))
    decoded = pictures_of(replace(media, wanted=wanted), size, report, check)
    events = clock.over("segment", watch(timed(clock.over("decode", decoded), clock), mode))
    if wanted and wanted.frames:
        events = until(wanted.frames, events, report)
    return accounted(media.segments, events, report) if media.segments else events


def lower(wanted: MediaLimits | None, limits: MediaLimits) -> MediaLimits | None:
    """The caller's own limits of frames and time, 0 where they are not lower than the server's."""
    if wanted is None:
        return None
    frames, duration_us = wanted.frames, wanted.duration_us
    return replace(
        wanted,
        frames=frames if frames <= limits.frames else 0,
        duration_us=duration_us if duration_us <= limits.duration_us else 0,
    )


def pictures_of(media: Media, size: InputSize, report: MediaReport, check: Callable[[], None]) -> Iterator[Picture]:
    """The media's pictures, decoded as they arrive."""
    form, sampling, limits, wanted = media.form, media.sampling, media.limits, media.wanted
    if isinstance(form, Container):
        return decode.pictures(
            form.source,
            size=size,
            sampling=sampling,
            limits=limits,
            wanted=wanted,
            report=report,
            format=form.format,
            check=check,
        )
    if isinstance(form, EncodedPictures):
        return images.from_pictures(
            form.stream, size=size, sampling=sampling, limits=limits, wanted=wanted, report=report
        )
    return images.from_frames(
        form.stream,
        width=form.width,
        height=form.height,
        pixel_format=form.pixel_format,
        size=size,
        sampling=sampling,
        limits=limits,
        wanted=wanted,
        report=report,
    )


class TimedPicture:
    """A picture whose conversions count as the stages that they belong to."""

    __slots__ = ("_clock", "_picture", "due", "time_us")

    def __init__(self, picture: Picture, clock: Clock) -> None:
        self._picture = picture
        self._clock = clock
        self.time_us = picture.time_us
        self.due = picture.due

    def rgb(self) -> Pixels:
        """See Picture."""
        with self._clock("preprocess"):
            return self._picture.rgb()

    def look(self) -> Pixels:
        """See Picture."""
        with self._clock("segment"):
            return self._picture.look()


def timed(pictures: Generator[Picture, None, None], clock: Clock) -> Iterator[Picture]:
    """The same pictures, their conversions timed. Closing it closes them."""
    with closing(pictures):
        for picture in pictures:
            yield TimedPicture(picture, clock)


def until(
    most: int, events: Generator[Frame | Cut, None, None], report: MediaReport
) -> Generator[Frame | Cut, None, None]:
    """The events before the frame that would be one more than the caller wants."""
    frames = 0
    with closing(events):
        for event in events:
            if isinstance(event, Frame):
                if frames == most:
                    report.duration_us = min(report.duration_us, event.time_us) or event.time_us
                    report.limit("frames")
                    return
                frames += 1
            yield event


def accounted(
    segments: tuple[TimeRange, ...], events: Generator[Frame | Cut, None, None], report: MediaReport
) -> Generator[Frame | Cut, None, None]:
    """The same events; warns of given segments in which no frame came."""
    starts_us = [segment.start_us for segment in segments]
    filled: set[int] = set()
    with closing(events):
        for event in events:
            at = bisect_right(starts_us, event.time_us) - 1
            if at >= 0 and event.time_us < segments[at].end_us:
                filled.add(at)
            yield event
    empty = [segment for at, segment in enumerate(segments) if at not in filled]
    if empty:
        report.warn(
            "SEGMENT_WITHOUT_FRAME",
            f"in {len(empty)} of the given segments lies no frame, first in {empty[0].start_us / 1e6:g} to "
            f"{empty[0].end_us / 1e6:g} s; they were left out",
        )
