"""Pictures that no two are alike, for servers that notice when frames repeat or show nothing."""

from __future__ import annotations

import numpy as np

__all__ = ["frames"]


def frames(width: int, height: int, count: int, seed: int = 1) -> tuple[bytes, ...]:
    """RGB frames, rows packed: coarse random colours that differ from frame to frame, with some fine noise."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = random.integers(0, 256, (8, 8, 3), np.uint8)
        rows = np.arange(height) * 8 // height
        columns = np.arange(width) * 8 // width
        noise = random.integers(0, 16, (height, width, 3), np.uint8)
        made.append((coarse[rows][:, columns] // 16 * 15 + noise).tobytes())
    return tuple(made)
