"""Media on its way in: timed, bounded by the caller's wish, hashed, and read to its end."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace

from matchcut.server.clock import Clock
from matchcut.server.records import ByteSource, Container, DecodedFrames, EncodedPictures, Media, MediaReport

CHUNK = 1 << 18


class Intake:
    """One piece of media as it arrives. `media` is what the stages read; reading it goes through here.

    Args:
        media: as the caller sends it.
        clock: the time spent waiting for bytes counts as "receive".
        report: told where the caller's own byte limit ended the reading.
    """

    def __init__(self, media: Media, clock: Clock, report: MediaReport) -> None:
        self._clock = clock
        self._report = report
        self._digest = hashlib.sha256()
        self._left = media.wanted.bytes if media.wanted and media.wanted.bytes else None
        self._rest: ByteSource | Iterator[tuple[int, bytes]]
        form = media.form
        if isinstance(form, Container):
            self._rest = form.source
            self.media = replace(media, form=replace(form, source=self))
        elif isinstance(form, EncodedPictures | DecodedFrames):
            self._rest = form.stream
            self.media = replace(media, form=replace(form, stream=self._pictures(form.stream)))

    def read(self, n: int = -1, /) -> bytes:
        """1 to n bytes of the container; b"" at the end, or where the caller wanted no more."""
        assert not isinstance(self._rest, Iterator)
        if self._left is not None:
            n = self._left if n < 0 else min(n, self._left)
            if n == 0:
                self._report.warn("LIMIT_REACHED", "the caller's limit of bytes ended the reading")
                self._report.truncated = True
                return b""
        with self._clock("receive"):
            data = self._rest.read(n)
        self._digest.update(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    def spool(self) -> None:
        """Reads a container to its end into memory; the stages then read it from there."""
        form = self.media.form
        assert isinstance(form, Container)
        whole = io.BytesIO()
        while data := self.read(CHUNK):
            whole.write(data)
        whole.seek(0)
        self.media = replace(self.media, form=replace(form, source=whole))

    def digest(self) -> bytes:
        """SHA-256 of all that was sent: of a container's bytes, else of every time and its bytes. Reads to the end."""
        if isinstance(self._rest, Iterator):
            for _ in self._pictures(self._rest):
                pass
        else:
            while self.read(CHUNK):
                pass
        return self._digest.digest()

    def _pictures(self, stream: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for time_us, data in self._clock.over("receive", stream):
            self._digest.update(time_us.to_bytes(8, "little", signed=True))
            self._digest.update(data)
            yield time_us, data
