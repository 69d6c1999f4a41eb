"""Still video costs little: a frame that hardly differs from the last encoded one reuses its embedding.

The gate compares each frame with the frame that was really encoded, not with its neighbour, so that slow change adds
up and is noticed. A CNN is easily moved: noise of half a grey level already costs a cosine of .001 to .004. The root
mean square of the difference foretells that better than a mean does, which hides a small thing that moves, and the
same difference weighs more the less contrast the picture has. tests/bench/stills.py prints how well.
"""

from __future__ import annotations

import numpy as np

from matchcut.server.records import Pixels

STRIDE = 8  # the first eighth of the rows is enough to tell most moving pictures apart


def difference(frame: Pixels, encoded: Pixels) -> float:
    """How far a frame is from an encoded one: root mean square difference by the root of (1 + contrast).

    Args:
        frame, encoded: (height, width, 3) uint8 of the same shape. Difference and contrast are in grey levels (0 to
            255); the contrast is the standard deviation of the encoded frame's values.
    """
    return float(np.sqrt(squares(frame, encoded) / frame.size / (1 + encoded.std())))


def squares(frame: Pixels, other: Pixels) -> float:
    """Sum of the squared differences."""
    apart = (np.maximum(frame, other) - np.minimum(frame, other)).astype(np.float32).ravel()
    return float(np.einsum("i,i->", apart, apart))


class StillGate:
    """Remembers the last encoded frame and says whether another is as good as the same.

    Args:
        threshold: the least difference() that counts as one; 0: everything does.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._encoded: Pixels | None = None
        self._allowed = 0.0

    def same(self, frame: Pixels) -> bool:
        """True if the embedding of the last encoded frame serves; else the frame becomes the last encoded one."""
        if not self._threshold:
            return False
        if self._encoded is not None and self._within(frame, self._encoded):
            return True
        self._encoded = frame
        self._allowed = self._threshold**2 * frame.size * (1 + float(frame.std()))
        return False

    def _within(self, frame: Pixels, encoded: Pixels) -> bool:
        """Whether difference() is below the threshold, without looking further than needed to deny it."""
        total = 0.0
        for start in range(STRIDE):
            total += squares(frame[start::STRIDE], encoded[start::STRIDE])
            if total >= self._allowed:
                return False
        return True
