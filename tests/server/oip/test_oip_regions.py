"""Shared memory: what may be registered, read and written, and what may not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matchcut.server.errors import AlreadyThere, InvalidInput, MatchcutError, NotAllowed, NotFound, Overloaded
from matchcut.server.oip.regions import FOLDER, Place, Regions


@contextmanager
def memory(content: bytes = bytes(64)) -> Iterator[str]:
    """The key of shared memory that is there meanwhile."""
    path = FOLDER / f"matchcut-test-{os.getpid()}-{threading.get_ident()}"
    path.write_bytes(content)
    try:
        yield f"/{path.name}"
    finally:
        path.unlink()


def test_regions_are_read_and_written_where_they_lie() -> None:
    with memory(bytes(range(64))) as key:
        regions = Regions(2)
        regions.register("r", key, 8, 16)
        assert regions.read(Place("r", 4, 4)) == bytes([12, 13, 14, 15])
        assert regions.read(Place("r", 0, 0)) == b""
        regions.write(Place("r", 0, 16), b"ab")
        assert (FOLDER / key[1:]).read_bytes() == bytes(range(8)) + b"ab" + bytes(range(10, 64))
        (status,) = regions.status("r")
        assert (status.key, status.offset, status.size) == (key, 8, 16)
        regions.unregister("r")
        regions.unregister("r")
        assert regions.status("") == []
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(status.file)


@pytest.mark.parametrize(
    ("offset", "size", "words"),
    [
        (16, 0, "Invalid offset for shared memory region"),
        (-1, 1, "Invalid offset for shared memory region"),
        (2**63 - 1, 1, "Invalid offset for shared memory region"),
        (0, 17, "Invalid offset \\+ byte size for shared memory region"),
        (15, 2, "Invalid offset \\+ byte size for shared memory region"),
        (0, -1, "Invalid offset \\+ byte size for shared memory region"),
        (8, 2**63 - 1, "Invalid offset \\+ byte size for shared memory region"),
    ],
)
def test_a_place_lies_within_its_region(offset: int, size: int, words: str) -> None:
    with memory() as key:
        regions = Regions(1)
        regions.register("r", key, 8, 16)
        for use in (regions.check, regions.read, lambda place: regions.write(place, b"")):
            with pytest.raises(InvalidInput, match=words):
                use(Place("r", offset, size))
        regions.close()


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 65), (64, 1), (60, 5), (0, 0), (2**64 - 1, 2), (0, 2**64 - 1), (2**63, 1)]
)
def test_a_region_lies_within_what_its_key_names(offset: int, size: int) -> None:
    with memory() as key:
        regions = Regions(1)
        with pytest.raises(InvalidInput, match="failed to register shared memory region"):
            regions.register("r", key, offset, size)
        assert regions.status("") == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", "/../etc/hostname", "a/b", "//a", "/a\0b", "/" + "a" * 256, "/proc/self/mem", "."],
)
def test_a_key_is_one_name_and_no_path(key: str) -> None:
    with pytest.raises(InvalidInput, match="is no key of shared memory"):
        Regions(1).register("r", key, 0, 1)


def test_a_key_leads_to_memory_and_nowhere_else(tmp_path: Path) -> None:
    name = f"matchcut-test-{os.getpid()}"
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    regions = Regions(4)
    link, pipe, folder = (FOLDER / f"{name}-{kind}" for kind in ("link", "pipe", "folder"))
    link.symlink_to(secret)
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        for path in (link, pipe, folder, FOLDER / f"{name}-nothing"):
            with pytest.raises(InvalidInput, match=r"Unable to open|Invalid shared memory region"):
                regions.register("r", f"/{path.name}", 0, 1)
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()
    assert regions.status("") == []


def test_memory_that_is_made_shorter_is_an_error_and_no_crash() -> None:
    with memory() as key:
        regions = Regions(1)
        regions.register("r", key, 0, 64)
        os.truncate(FOLDER / key[1:], 8)
        with pytest.raises(InvalidInput, match="has become shorter"):
            regions.read(Place("r", 0, 64))
        with pytest.raises(InvalidInput, match="has become shorter"):
            regions.write(Place("r", 0, 64), bytes(64))
        assert (FOLDER / key[1:]).stat().st_size == 8
        regions.close()


def test_regions_are_few_and_their_names_are_taken_once() -> None:
    with memory() as key:
        regions = Regions(1)
        regions.register("r", key, 0, 64)
        with pytest.raises(AlreadyThere, match="'r' already in manager"):
            regions.register("r", key, 0, 64)
        with pytest.raises(Overloaded, match="--shared-memory"):
            regions.register("s", key, 0, 64)
        with pytest.raises(InvalidInput, match="needs a name"):
            regions.register("", key, 0, 64)
        with pytest.raises(NotFound, match="Unable to find shared memory region: 's'"):
            regions.read(Place("s", 0, 1))
        with pytest.raises(NotFound, match="Unable to find shared memory region: 's'"):
            regions.status("s")
        regions.close()


def test_refused_regions_leave_no_file_open() -> None:
    with memory() as key:
        regions = Regions(1)
        regions.register("r", key, 0, 64)
        before = len(os.listdir("/proc/self/fd"))
        for name, size in (("r", 64), ("s", 64), ("t", 65)):
            with pytest.raises(MatchcutError):
                regions.register(name, key, 0, size)
        assert len(os.listdir("/proc/self/fd")) == before
        regions.close()


def test_without_the_option_there_are_no_regions() -> None:
    with memory() as key:
        regions = Regions(0)
        for use in (lambda: regions.register("r", key, 0, 1), lambda: regions.read(Place("r", 0, 1))):
            with pytest.raises(NotAllowed, match="--shared-memory"):
                use()
