"""A small encoder, and clips made up for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest

from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TimeRange

DIMENSIONS = 6


class Clip(NamedTuple):
    """What is put in under one id."""

    item: Item
    segments: list[Segment]
    content: bytes


class MakeClip(Protocol):
    def __call__(self, item_id: str, seed: int = 0, segments: int = 2, tags: tuple[str, ...] = ()) -> Clip: ...


class Put(Protocol):
    def __call__(
        self, catalog: Catalog, item_id: str, seed: int = 0, segments: int = 2, tenant: str = ""
    ) -> Outcome: ...


@pytest.fixture
def encoder() -> EncoderIdentity:
    return EncoderIdentity("tiny", "1", "d1", DIMENSIONS)


@pytest.fixture
def clip() -> MakeClip:
    """Makes a clip; another seed is other content."""

    def make(item_id: str, seed: int = 0, segments: int = 2, tags: tuple[str, ...] = ()) -> Clip:
        random = np.random.default_rng([seed, *item_id.encode()])
        vectors = random.standard_normal((segments, DIMENSIONS)).astype(np.float32)
        parts = [Segment(TimeRange(at * 10, at * 10 + 10), vector) for at, vector in enumerate(vectors)]
        item = Item(item_id, f"title of {item_id}", f"file:{item_id}", tags, {"seed": str(seed)}, segments * 10)
        return Clip(item, parts, f"{seed}".encode())

    return make


@pytest.fixture
def put(clip: MakeClip, encoder: EncoderIdentity) -> Put:
    """Makes a clip and puts it in."""

    def put(catalog: Catalog, item_id: str, seed: int = 0, segments: int = 2, tenant: str = "") -> Outcome:
        made = clip(item_id, seed, segments)
        return catalog.put(tenant, made.item, made.segments, encoder, made.content)

    return put


@pytest.fixture
def few_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the vectors of any shelf be kept in a file, where they are kept in files."""
    monkeypatch.setattr("matchcut.server.catalog.filed._LEAST", 1)


@pytest.fixture(params=["memory", "disk", "file"])
def catalog(request: pytest.FixtureRequest, few_in_files: None, tmp_path: Path) -> Iterator[Catalog]:
    """An empty one of each kind: nothing kept, kept and read from memory, kept and its vectors read from a file."""
    folder = None if request.param == "memory" else tmp_path / "catalog"
    opened = open_catalog(folder, in_file=request.param == "file")
    yield opened
    opened.close()


class SmallDisk:
    """A disk of its own, and something else that can fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hog = folder / "hog"

    def fill(self) -> None:
        """Leaves not a page free."""
        with self._hog.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self) -> None:
        """Gives back what `fill` took."""
        self._hog.unlink()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """A real disk of as many MB as the parameter says; the same is simulated in test_room, where none can be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here, so that none can be filled: {error}")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)
