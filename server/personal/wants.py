"""What a user wants, as vectors of the session model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matchcut.server.blend import combine
from matchcut.server.errors import Unavailable
from matchcut.server.personal.interest import Interest
from matchcut.server.records import Floats
from matchcut.server.users import Galleries, Gallery, Taste
from matchcut.server.vectors import unit


@dataclass(frozen=True, slots=True, eq=False)
class Wants:
    """(d,) of unit length each; None: nothing is known.

    together: all of them in one, by which the catalogue is ranked.
    """

    history: Floats | None
    current: Floats | None
    against: Floats | None
    together: Floats | None


def wanted(
    taste: Taste,
    interest: Interest,
    gallery: Gallery,
    galleries: Galleries,
    *,
    current_weight: float,
) -> Wants:
    """What the user wants of all that is known.

    Raises:
        Unavailable: the session model takes another encoder's vectors than the interest is: still, or by now.
    """
    current = None
    if interest.vector is not None:
        if interest.encoder is None or galleries.model.encoder.digest != interest.encoder.digest:
            raise Unavailable(
                "another encoder has taken over; users' lists follow in a moment, ask again then", field="current"
            )
        current = unit(galleries.project(interest.vector[np.newaxis])[0], "current")
    _, disliked = gallery.vectors(taste.disliked)
    mean = disliked.mean(axis=0) if len(disliked) else None
    against = unit(mean, "disliked") if mean is not None and mean.any() else None
    together = combine(taste.query, current, against, current_weight=current_weight)
    return Wants(taste.query, current, against, together)
