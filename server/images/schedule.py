"""Times, limits and the report of pictures that come one by one."""

from __future__ import annotations

from dataclasses import dataclass

from matchcut.server.errors import InvalidInput, MediaLimitExceeded
from matchcut.server.records import MediaLimits, MediaReport, Sampling, ShotMode
from matchcut.server.sampling import Instants

__all__ = ["Schedule", "Slot", "check_limits"]


@dataclass(frozen=True, slots=True)
class Slot:
    """When a picture is shown, from the first one, and whether it is due."""

    time_us: int
    due: bool


class Schedule:
    """Says of each picture when it is shown and whether it is due.

    Args:
        limits: exceeding one is an error.
        wanted: the caller's own, lower ones (0: none); reaching one ends the reading.
        report: filled on the way.
    """

    def __init__(
        self, sampling: Sampling, limits: MediaLimits, wanted: MediaLimits | None, report: MediaReport
    ) -> None:
        self.every = sampling.shots is ShotMode.EXACT
        self._instants = Instants(sampling.rate_fps, also_us=sampling.instants_us)
        self._limits, self._report = limits, report
        self._most_us, self._most_due = (wanted.duration_us, wanted.frames) if wanted else (0, 0)
        self._first_us: int | None = None
        self._last_us = -1
        self._due = 0

    def admit(self, time_us: int, length: int) -> Slot | None:
        """Counts the next picture of so many bytes; None where a limit of the caller's own ends the reading with it.

        Args:
            time_us: by the caller's clock, which may have started anywhere.
        """
        if self._first_us is None:
            self._first_us = time_us
        since_us = time_us - self._first_us
        if since_us <= self._last_us:
            raise InvalidInput(
                f"times must grow from picture to picture; {time_us} us follows {self._first_us + self._last_us} us",
                reason="TIMES_MUST_GROW",
                field="chunk.time_us",
            )
        if self._most_us and since_us >= self._most_us:
            self._end("time", self._most_us)
            return None
        due = self._instants.take(since_us)
        if self._most_due and due and self._due == self._most_due:
            self._end("frames", since_us)
            return None
        gap_us, self._last_us = since_us - max(self._last_us, 0), since_us
        self._due += due
        self._report.bytes += length
        self._report.frames_seen += 1
        end_us = since_us + gap_us  # the last is taken to stay as long as the one before
        self._report.duration_us = min(end_us, self._most_us or end_us)
        check_limits(self._limits, length=self._report.bytes, since_us=since_us, used=self._due)
        return Slot(since_us, due)

    def _end(self, what: str, at_us: int) -> None:
        self._report.duration_us = at_us
        self._report.limit(what)


def check_limits(limits: MediaLimits, *, length: int, since_us: int, used: int) -> None:
    """Raises MediaLimitExceeded where media of so many bytes, so much time and so many used frames is too much."""
    if length <= limits.bytes and since_us <= limits.duration_us and used <= limits.frames:
        return
    exceeded = (
        ("MEDIA_TOO_MANY_BYTES", length > limits.bytes, f"{limits.bytes} bytes"),
        ("MEDIA_TOO_LONG", since_us > limits.duration_us, f"{limits.duration_us / 1e6:g} s"),
        ("MEDIA_TOO_MANY_FRAMES", used > limits.frames, f"{limits.frames} used frames"),
    )
    reason, most = next((reason, most) for reason, over, most in exceeded if over)
    raise MediaLimitExceeded(f"the media has more than {most}; send less", reason=reason)
