"""Media of any form to the frames that are encoded and the cuts between them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

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
)
from matchcut.server.shots import watch


def frames_and_cuts(
    media: Media, size: InputSize, report: MediaReport, clock: Clock
) -> Generator[Frame | Cut, None, None]:
    """Decodes the media, finds its cuts and converts the frames that are wanted, in the order of time.

    Given segments take the place of shot detection. Reaching a limit of the caller's own ends it with a warning.

    Raises:
        MatchcutError: the media is unreadable or exceeds the server's limits.
    """
    pictures = timed(clock.over("decode", pictures_of(media, size, report)), clock)
    mode = ShotMode.OFF if media.segments else media.sampling.shots
    events = clock.over("segment", watch(pictures, mode))
    return until(media.wanted, events, report) if media.wanted else events


def pictures_of(media: Media, size: InputSize, report: MediaReport) -> Iterator[Picture]:
    """The media's pictures, decoded as they arrive."""
    form, sampling, limits = media.form, media.sampling, media.limits
    if isinstance(form, Container):
        return decode.pictures(
            form.source, size=size, sampling=sampling, limits=limits, report=report, format=form.format
        )
    if isinstance(form, EncodedPictures):
        return images.from_pictures(form.stream, size=size, sampling=sampling, limits=limits, report=report)
    return images.from_frames(
        form.stream,
        width=form.width,
        height=form.height,
        pixel_format=form.pixel_format,
        size=size,
        sampling=sampling,
        limits=limits,
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
    wanted: MediaLimits, events: Generator[Frame | Cut, None, None], report: MediaReport
) -> Generator[Frame | Cut, None, None]:
    """The events up to the caller's own limits of frames and time (0: none)."""
    frames = 0
    with closing(events):
        for event in events:
            if wanted.duration_us and event.time_us >= wanted.duration_us:
                reached = "time"
            elif wanted.frames and frames == wanted.frames and isinstance(event, Frame):
                reached = "frames"
            else:
                frames += isinstance(event, Frame)
                yield event
                continue
            report.truncated = True
            report.duration_us = min(report.duration_us, event.time_us) or event.time_us
            report.warn("LIMIT_REACHED", f"the caller's limit of {reached} ended the reading")
            return
