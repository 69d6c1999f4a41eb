"""Still video costs little: a frame that hardly differs from the last encoded one reuses its embedding.

The gate compares each frame with the frame that was really encoded, not with its neighbour, so that slow change adds
up and is noticed. It looks at the worst of 7 x 7 blocks, so that a small thing that moves is not averaged away.
"""

from __future__ import annotations

import numpy as np

from matchcut.server.records import Pixels

BLOCKS = 7


def difference(frame: Pixels, other: Pixels) -> float:
    """Largest mean absolute difference of a block, in grey levels (0 to 255).

    Args:
        frame, other: (height, width, 3) uint8 of the same shape.
    """
    apart = np.maximum(frame, other) - np.minimum(frame, other)
    rows = np.add.reduceat(apart, edges(frame.shape[0]), axis=0, dtype=np.uint32)
    blocks = np.add.reduceat(rows, edges(frame.shape[1]), axis=1).sum(axis=2)
    return float(blocks.max()) * BLOCKS * BLOCKS / frame.size


def edges(length: int) -> list[int]:
    """Where the blocks begin along a side."""
    return [length * block // BLOCKS for block in range(min(BLOCKS, length))]


class StillGate:
    """Remembers the last encoded frame and says whether another is as good as the same.

    Args:
        threshold: largest difference() that still counts as the same; 0: nothing does.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._encoded: Pixels | None = None

    def same(self, frame: Pixels) -> bool:
        """True if the embedding of the last encoded frame serves; else the frame becomes the last encoded one."""
        known = self._encoded
        if self._threshold and known is not None and difference(frame, known) < self._threshold:
            return True
        self._encoded = frame
        return False
