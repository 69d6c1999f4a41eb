"""A small encoder, and clips made up for it."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture(params=["memory", "disk"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """An empty one of each kind."""
    opened = open_catalog(None if request.param == "memory" else tmp_path / "catalog")
    yield opened
    opened.close()
