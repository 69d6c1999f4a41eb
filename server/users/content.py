"""What an item is to a session model: one content vector."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from matchcut.server.catalog import Stored
from matchcut.server.records import Floats
from matchcut.server.vectors import unit

__all__ = ["content", "digest"]


def content(stored: Stored) -> Floats:
    """(dimensions,) float32 of unit length: the direction of the mean of its segments' vectors.

    Where they cancel out, that of the first segment.

    Raises:
        InvalidInput: there is no direction.
    """
    vectors = np.stack([segment.vector for segment in stored.segments])
    mean: Floats = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return unit(mean if mean.any() else vectors[0], f"the content of item {stored.item.item_id!r}")


def digest(vector: Floats, stored: Stored) -> bytes:
    """Another one wherever what a gallery keeps of the content is another."""
    made = blake2b(vector.tobytes(), digest_size=16)
    made.update(stored.item.duration_us.to_bytes(8, "little", signed=True))
    return made.digest()
