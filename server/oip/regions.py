"""POSIX shared memory that callers register, so that tensors need not travel in messages.

The regions are read and written by system calls, not mapped: whoever made a region may shrink or change it at any
time, which a mapping would answer with SIGBUS, and a copy of 600 KB costs less than a tenth of sending it. Linux keeps
such memory under /dev/shm (shm_overview(7)); a key never names anything else.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matchcut.server.errors import AlreadyThere, InvalidInput, NotAllowed, NotFound, Overloaded, Unsupported

__all__ = ["Place", "Region", "Regions"]

FOLDER = Path("/dev/shm")
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: `size` bytes from `offset` on in a region."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Region:
    """A registered region: `size` bytes from `offset` on in what `key` names. file: an open descriptor."""

    name: str
    key: str
    offset: int
    size: int
    file: int


class Regions:
    """The registered regions. Safe to be used by several threads at once.

    Args:
        most: that may be registered at once; 0: none, and every use is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._regions: dict[str, Region] = {}

    @property
    def allowed(self) -> bool:
        """Whether any may be registered."""
        return self._most > 0

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Opens what the key names.

        Raises:
            NotAllowed: the server was started without shared memory.
            AlreadyThere: the name is taken.
            InvalidInput: the key is malformed or names nothing that can be opened, or it ends before the region does.
            Overloaded: as many as may be are registered.
        """
        self._check_allowed()
        if not name:
            raise InvalidInput("a shared memory region needs a name", field="name")
        file = opened(key)
        try:
            with self._lock:
                if name in self._regions:
                    raise AlreadyThere(f"shared memory region '{name}' already in manager; unregister it first")
                if len(self._regions) >= self._most:
                    raise Overloaded(
                        f"{self._most} shared memory regions are registered already; unregister one, or raise "
                        "--shared-memory"
                    )
                there = os.fstat(file).st_size
                if size < 1 or offset < 0 or offset + size > there:
                    raise InvalidInput(
                        f"failed to register shared memory region '{name}': invalid args: {size} bytes from {offset} "
                        f"on do not lie within the {there} of '{key}'",
                        field="byte_size",
                    )
                self._regions[name] = Region(name, key, offset, size, file)
        except BaseException:
            os.close(file)
            raise

    def unregister(self, name: str) -> None:
        """Forgets one region, or all where no name is given; one that is not there is no error."""
        with self._lock:
            for each in [name] if name else list(self._regions):
                region = self._regions.pop(each, None)
                if region is not None:
                    os.close(region.file)

    def status(self, name: str) -> list[Region]:
        """One region, or all where no name is given.

        Raises:
            NotFound: there is none of that name.
        """
        with self._lock:
            if not name:
                return list(self._regions.values())
            return [self._found(name)]

    def check(self, place: Place) -> None:
        """Raises what read() and write() would, but for what happens later."""
        self._check_allowed()
        with self._lock:
            self._start(place)

    def read(self, place: Place) -> bytearray:
        """The bytes that lie there.

        Raises:
            NotAllowed: the server was started without shared memory.
            NotFound: the region is not registered.
            InvalidInput: the place does not lie within the region, or the memory has been made shorter since.
        """
        with self._at(place) as (file, start):
            data = bytearray(place.size)
            view, done = memoryview(data), 0
            while done < place.size:
                count = os.preadv(file, [view[done:]], start + done)
                if not count:
                    raise InvalidInput(f"shared memory region '{place.region}' has become shorter; register it again")
                done += count
        return data

    def write(self, place: Place, data: bytes) -> None:
        """Puts bytes there, at most as many as the place has. Raises what read() does."""
        with self._at(place) as (file, start):
            if start + len(data) > os.fstat(file).st_size:  # else writing would make it longer
                raise InvalidInput(f"shared memory region '{place.region}' has become shorter; register it again")
            view, done = memoryview(data), 0
            while done < len(data):
                done += os.pwrite(file, view[done:], start + done)

    def close(self) -> None:
        """Forgets all."""
        self.unregister("")

    @contextmanager
    def _at(self, place: Place) -> Iterator[tuple[int, int]]:
        """A descriptor that stays open meanwhile, also where the region is unregistered, and where the place begins."""
        self._check_allowed()
        with self._lock:
            file, start = self._start(place)
            own = os.dup(file)
        try:
            yield own, start
        finally:
            os.close(own)

    def _check_allowed(self) -> None:
        if not self._most:
            raise NotAllowed(
                "shared memory is off; start the server with --shared-memory N, or send tensors in the message"
            )

    def _found(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(
                f"Unable to find shared memory region: '{name}'; register it first", reason="REGION_NOT_FOUND"
            )
        return region

    def _start(self, place: Place) -> tuple[int, int]:
        """The file and where the place begins in it."""
        region = self._found(place.region)
        if not 0 <= place.offset < region.size:
            raise InvalidInput(
                f"Invalid offset for shared memory region: '{place.region}': {place.offset} of {region.size} bytes",
                field="parameters.shared_memory_offset",
            )
        if not 0 <= place.size <= region.size - place.offset:
            raise InvalidInput(
                f"Invalid offset + byte size for shared memory region: '{place.region}': {place.size} bytes from "
                f"{place.offset} on, of {region.size}",
                field="parameters.shared_memory_byte_size",
            )
        return region.file, region.offset + place.offset


def opened(key: str) -> int:
    """A descriptor of the shared memory that the key names.

    Raises:
        InvalidInput: the key is no name as shm_open(3) takes them, or what it names cannot be opened.
        Unsupported: this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise Unsupported("shared memory is supported on Linux only; send tensors in the message")
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(name.encode()) > LONGEST_KEY:
        raise InvalidInput(
            f"{key!r} is no key of shared memory; it is a name of up to {LONGEST_KEY} bytes, with no slash but a "
            "first one",
            field="key",
        )
    try:
        # Not blocking, since it might be a pipe; no links, since they might lead elsewhere.
        file = os.open(FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInput(
            f"Unable to open shared memory region: '{key}': {error.strerror}; make it before you register it",
            field="key",
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidInput(f"Invalid shared memory region: '{key}': it is no shared memory", field="key")
    return file
