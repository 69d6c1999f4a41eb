"""What a user wants, as one vector, and which item of the history an item is most like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matchcut.server.records import Floats

__all__ = ["AGAINST", "combine", "nearest", "normalised"]

AGAINST = 0.25  # of what was disliked: it is pushed down, but what is disliked has much in common with what is liked


def combine(
    history: Floats | None, current: Floats | None, against: Floats | None, *, current_weight: float
) -> Floats | None:
    """The query that candidates are found with: (d,) float32 of unit length, or None where nothing is wanted.

    (1 - current_weight) history + current_weight current - AGAINST against; where only one of the first two is there,
    it counts whole. What is disliked alone says nothing of what is wanted.

    Args:
        history, current, against: (d,) float32 of unit length, or None.
        current_weight: 0 to 1.
    """
    if history is None or current is None:
        wanted = history if current is None else current
    else:
        wanted = (1 - current_weight) * history + current_weight * current
    if wanted is None:
        return None
    if against is not None:
        wanted = wanted - AGAINST * against
    norm = float(np.linalg.norm(wanted))
    # Wishes that cancel out leave rounding errors, whose direction means nothing.
    return None if norm < 1e-6 else (wanted / norm).astype(np.float32)


def nearest(vectors: Floats, ids: Sequence[str], liked: Floats) -> list[tuple[str, float]]:
    """For each of the vectors (m, d) the liked item that is most like it, and their cosine; ("", 0.0) where none is at
    all like it, which is a cosine above 0.

    Args:
        ids: of the l liked items, newest first; of those that are equally near, the first is taken.
        liked: (l, d) their vectors.
    """
    if not len(liked):
        return [("", 0.0)] * len(vectors)
    cosines = normalised(vectors) @ normalised(liked).T
    places = cosines.argmax(axis=1)
    best = cosines.max(axis=1)
    return [
        (ids[place], cosine) if cosine > 0 else ("", 0.0)
        for place, cosine in zip(places.tolist(), best.tolist(), strict=True)
    ]


def normalised(vectors: Floats) -> Floats:
    """(n, d) the same at unit length; a zero vector stays zero, and so is like nothing."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norms[norms == 0] = 1
    made: Floats = vectors / norms[:, None]
    return made
