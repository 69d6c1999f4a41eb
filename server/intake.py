"""Media on its way in: timed, bounded by the caller's wish, hashed, and read to its end."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from matchcut.server.clock import Clock
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
        self._left = media.wanted.bytes if media.wanted and media.wanted.bytes else None
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
        if self._left is not None:
            n = self._left if n < 0 else min(n, self._left)
            if n == 0:
                self._report.warn("LIMIT_REACHED", "the caller's limit of bytes ended the reading")
                self._report.truncated = True
                return b""
        with self._clock("receive"):
            data = self._source.read(n)
        if self._digest is not None:
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
        assert self._digest is not None
        deque(self._rest, maxlen=0)
        return self._digest.digest()

    def _pictures(self, stream: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for time_us, data in self._clock.over("receive", stream):
            if self._digest is not None:
                self._digest.update(time_us.to_bytes(8, "little", signed=True))
                self._digest.update(data)
            yield time_us, data
