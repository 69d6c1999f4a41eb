"""Media on its way in: timed, bounded by the caller's wish, hashed, and read to its end."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from matchcut.server.clock import Clock
from matchcut.server.errors import MediaLimitExceeded
from matchcut.server.records import ByteSource, Container, Media, MediaReport

CHUNK = 1 << 18


class Intake:
    """One piece of media as it arrives. `media` is what the stages read; reading it goes through here.

    Args:
        media: as the caller sends it.
        clock: the time spent waiting for bytes counts as "receive".
        report: told where the caller's own byte limit ended the reading.
        hashed: whether digest() will be asked for.
    """

    def __init__(self, media: Media, clock: Clock, report: MediaReport, *, hashed: bool = False) -> None:
        self._clock = clock
        self._report = report
        self._digest = hashlib.sha256() if hashed else None
        self._limits = media.limits
        self._wanted = media.wanted.bytes if media.wanted else 0
        self._taken = 0
        self.whole = True  # False once the caller's own limit has ended the reading
        form = media.form
        if isinstance(form, Container):
            self._source: ByteSource = form.source
            self._rest: Iterator[object] = iter(lambda: self.read(CHUNK), b"")
            self.media = replace(media, form=replace(form, source=self))
        else:
            self._rest = pictures = self._pictures(form.stream)
            self.media = replace(media, form=replace(form, stream=pictures))

    def read(self, n: int = -1, /) -> bytes:
        """1 to n bytes of the container; b"" at the end, or where the caller wanted no more."""
        left = self._wanted - self._taken
        if self._wanted and left > 0:
            n = left if n < 0 else min(n, left)
        with self._clock("receive"):
            data = self._source.read(n)
        if self._wanted and left <= 0 and data:
            self.whole = False
            self._report.limit("bytes")
            return b""
        self._count(data)
        return data

    def spool(self) -> bool:
        """Reads a container into memory, as far as the server's limit allows; True if that is all of it.

        The stages then read what is in memory, and after it the rest.
        """
        form = self.media.form
        assert isinstance(form, Container)
        held = io.BytesIO()
        while held.tell() < self._limits.buffered and (data := self.read(CHUNK)):
            held.write(data)
        complete = held.tell() < self._limits.buffered
        held.seek(0)
        self.media = replace(self.media, form=replace(form, source=OneAfterAnother(held, self)))
        return complete

    def digest(self) -> bytes:
        """SHA-256 of all that was sent: of a container's bytes, else of every time and its bytes. Reads to the end."""
        assert self._digest is not None
        deque(self._rest, maxlen=0)
        return self._digest.digest()

    def _pictures(self, stream: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for time_us, data in self._clock.over("receive", stream):
            if self._digest is not None:
                self._digest.update(time_us.to_bytes(8, "little", signed=True))
            self._count(data)
            yield time_us, data

    def _count(self, data: bytes) -> None:
        self._taken += len(data)
        if self._taken > self._limits.bytes:
            raise MediaLimitExceeded(
                f"the media has more than the {self._limits.bytes} bytes that are taken; send it in parts",
                reason="MEDIA_TOO_MANY_BYTES",
            )
        if self._digest is not None:
            self._digest.update(data)


class OneAfterAnother:
    """Two byte sources as one."""

    def __init__(self, first: ByteSource, then: ByteSource) -> None:
        self._first = first
        self._then = then

    def read(self, n: int = -1, /) -> bytes:
        """1 to n bytes; b"" at the end of both."""
        return self._first.read(n) or self._then.read(n)
