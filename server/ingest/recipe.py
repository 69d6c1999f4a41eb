"""How an item's media was read, kept with the item so that another encoder can be given the very same frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, replace

from matchcut.server.errors import MatchcutError
from matchcut.server.records import Media, MediaLimits, Sampling, ShotMode, TimeRange
from matchcut.server.segments import SegmentBounds

__all__ = ["VECTORS", "Recipe"]

VECTORS = "vectors"  # in the place of a recipe: the item came as vectors, no media was read


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what becomes of a piece of media, save the encoder. The fields are those of Media.

    bounds: of the item's segments.
    """

    sampling: Sampling
    segments: tuple[TimeRange, ...]
    wanted: MediaLimits | None
    bounds: SegmentBounds

    @classmethod
    def of(cls, media: Media, bounds: SegmentBounds) -> Recipe:
        """What is to become of this media."""
        return cls(media.sampling, media.segments, media.wanted, bounds)

    @classmethod
    def parse(cls, text: str) -> Recipe | None:
        """What text() wrote; None for anything else."""
        try:
            sampling, segments, wanted, bounds = json.loads(text)
            rate, tolerance_us, shots, instants_us = sampling
            return cls(
                Sampling(rate, tolerance_us, ShotMode(shots), tuple(instants_us)),
                tuple(TimeRange(*ends) for ends in segments),
                None if wanted is None else MediaLimits(*wanted),
                SegmentBounds(*bounds),
            )
        except (ValueError, TypeError, MatchcutError):
            return None

    def text(self) -> str:
        """The recipe as JSON."""
        wanted = None if self.wanted is None else astuple(self.wanted)
        sampling = (*astuple(self.sampling)[:2], self.sampling.shots.value, self.sampling.instants_us)
        return json.dumps([sampling, self.segments, wanted, astuple(self.bounds)], separators=(",", ":"))

    def content(self, digest: bytes) -> bytes:
        """Names media together with what becomes of it: 32 bytes.

        Args:
            digest: of the media.
        """
        recipe = (astuple(self.sampling), self.segments, self.wanted and astuple(self.wanted), astuple(self.bounds))
        return hashlib.sha256(digest + repr(recipe).encode()).digest()

    def applied(self, media: Media) -> Media:
        """The media, to be read in this way."""
        return replace(media, sampling=self.sampling, segments=self.segments, wanted=self.wanted)
