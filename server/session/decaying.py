"""A session model that needs no training: the mean of what the user took to, decaying from event to event.

This is exponential smoothing (R. G. Brown, Exponential Smoothing for Predicting Demand, 1956) of content vectors:

    h' = h + w a (x - h),   a = 1 - 2 ** (-1 / half_life)

With strengths w of 1 the share of an event in h shrinks by the factor 1 - a at each later one, and (1 - a) ** half_life
is 1/2: after `half_life` more events half of its share is left. A weaker event moves h by as much less. The state is a
convex combination of 0 and of vectors of unit length, so that it is never longer than 1, whatever comes. It starts at
0, and so is shorter than a mean by 1 - (1 - a) ** n; only its direction is compared with items, to which that does not
matter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.records import EncoderIdentity, Floats, SessionIdentity
from matchcut.server.session.arrays import directions, finite

__all__ = ["HALF_LIFE", "DecayingMean"]

HALF_LIFE = 4.0  # events


class DecayingMean:
    """See contract.SessionModel. Items' vectors are their content; a state has as many values.

    Each row is computed by itself in float32, so that it is the same to the bit in any batch.

    Args:
        encoder: whose content vectors it takes.
        half_life: in events of full strength, above 0.

    Raises:
        InvalidInput: the half-life is out of range.
    """

    def __init__(self, encoder: EncoderIdentity, half_life: float = HALF_LIFE) -> None:
        if not (math.isfinite(half_life) and half_life > 0):
            raise InvalidInput(f"the half-life must be above 0 events, not {half_life}", field="half_life")
        said = json.dumps(["decaying-mean", float(half_life), encoder.digest, encoder.dimensions])
        self._encoder = encoder
        self._identity = SessionIdentity(
            "decaying-mean", f"{half_life:g}", hashlib.sha256(said.encode()).hexdigest(), encoder.dimensions
        )
        self._share = np.float32(-math.expm1(-math.log(2) / half_life))

    @property
    def identity(self) -> SessionIdentity:
        """See contract.SessionModel."""
        return self._identity

    @property
    def tenant(self) -> str:
        """See contract.SessionModel; it learns nobody's ids."""
        return ""

    @property
    def encoder(self) -> EncoderIdentity:
        """See contract.SessionModel."""
        return self._encoder

    @property
    def width(self) -> int:
        """See contract.SessionModel."""
        return self._encoder.dimensions

    def items(self, item_ids: Sequence[str], content: Floats) -> Floats:
        """See contract.SessionModel; the content itself."""
        if content.shape != (len(item_ids), self.width):
            raise EngineFailed(f"{len(item_ids)} items of {self.width} values have no content {content.shape}")
        return finite(content.astype(np.float32, copy=False), "the content of items")

    def begin(self, count: int) -> Floats:
        """See contract.SessionModel."""
        return np.zeros((count, self.width), np.float32)

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        """See contract.SessionModel."""
        shares = (strengths.astype(np.float32, copy=False) * self._share)[:, np.newaxis]
        with np.errstate(over="ignore", invalid="ignore"):  # finite() says it
            return finite(states + shares * (items - states), "the state of a user")

    def queries(self, states: Floats) -> Floats:
        """See contract.SessionModel."""
        return directions(states)

    def close(self) -> None:
        """See contract.SessionModel; it holds nothing."""
