"""The bytes of one container on their way into the demuxer: counted, bounded, and read ahead where needed."""

from __future__ import annotations

import os

from matchcut.server.errors import MediaLimitExceeded
from matchcut.server.records import ByteSource, MediaLimits, MediaReport

__all__ = ["Reader", "Whole"]

CHUNK = 1 << 16


class Reader:
    """What the demuxer reads from, front to back.

    An error of the source is kept, and the demuxer sees an end. Were it raised through libav, parts of libav would
    take it for the end all the same, and PyAV would raise it out of a later call of the same thread, in a request
    that has nothing to do with it. So `check()` after each call into libav.

    Args:
        source: where the bytes come from.
        limits: most bytes to take, and of them most in memory at once.
        report: whose `bytes` are counted.
    """

    def __init__(self, source: ByteSource, limits: MediaLimits, report: MediaReport) -> None:
        self.ended = False
        self._source = source
        self._limit = limits.bytes
        self._most_held = limits.buffered
        self.report = report
        self._ahead = bytearray()
        self._error: Exception | None = None

    def read(self, n: int = CHUNK, /) -> bytes:
        """1 to n bytes; b"" at the end or after an error."""
        if not self._ahead:
            self._ahead += self._pull(n)
        taken = bytes(self._ahead[:n])
        del self._ahead[:n]
        return taken

    def peek(self, n: int) -> bytes:
        """The next n bytes, which stay to be read; fewer only at the end."""
        while len(self._ahead) < n and not self.ended:
            self._ahead += self._pull(CHUNK)
        return bytes(self._ahead[:n])

    def check(self) -> None:
        """Raises what the source raised, or MediaLimitExceeded."""
        if self._error is not None:
            raise self._error

    def whole(self) -> Whole:
        """Takes everything that is left into memory, within its limits, to be read in any order."""
        while not self.ended:
            self._ahead += self._pull(CHUNK)
            if len(self._ahead) > self._most_held:
                raise MediaLimitExceeded(
                    "this container has its index at the end, so it cannot be decoded as it arrives, and is larger "
                    f"than the {self._most_held} bytes that are held in memory; move the index to the front "
                    "(ffmpeg -c copy -movflags +faststart), or raise --max-buffered",
                    reason="MEDIA_NOT_STREAMABLE",
                )
        self.check()
        data, self._ahead = self._ahead, bytearray()
        return Whole(data)

    def exhaust(self) -> None:
        """Takes and forgets what is left, so that it is counted and the sender can finish."""
        self._ahead.clear()
        while not self.ended:
            self._pull(CHUNK)
        self.check()

    def _pull(self, n: int) -> bytes:
        if self.ended:
            return b""
        try:
            chunk = self._source.read(n)
            self.report.bytes += len(chunk)
            if self.report.bytes > self._limit:
                raise MediaLimitExceeded(
                    f"the media has more than {self._limit} bytes; send a shorter or smaller encoded one",
                    reason="MEDIA_TOO_MANY_BYTES",
                )
        except Exception as error:
            self._error = error
            chunk = b""
        self.ended = not chunk
        return chunk


class Whole:
    """A container that has arrived as a whole; the demuxer may jump in it."""

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, n: int, /) -> bytes:
        """1 to n bytes; b"" at the end."""
        taken = bytes(self._data[self._at : self._at + n])
        self._at += len(taken)
        return taken

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves as files do and returns the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at
