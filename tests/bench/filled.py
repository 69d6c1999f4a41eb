"""A catalogue full of made items, for benchmarks of the start: start.py and edge.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import numpy as np


def fill(data: Path, items: int, segments: int, precision: str = "float32") -> None:
    """Puts in so many items of so many segments, with vectors as if of the default encoder in that precision."""
    from matchcut.server import models
    from matchcut.server.catalog import open_catalog
    from matchcut.server.records import Item, Segment, TimeRange

    encoder = models.load(models.default_encoder(common.CACHE, bits=models.bits(precision))).identity
    catalog = open_catalog(data)

    def put(at: int) -> None:
        vectors = np.random.default_rng(at).standard_normal((segments, encoder.dimensions), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        parts = [Segment(TimeRange(i * 1_000_000, (i + 1) * 1_000_000), vector) for i, vector in enumerate(vectors)]
        item = Item(f"item-{at:06}", f"Item {at}", f"file:///clips/{at}.mp4", ("made",))
        catalog.put("", item, parts, encoder, at.to_bytes(32, "big"))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(put, at) for at in range(items)]:
            done.result()
    catalog.close()
