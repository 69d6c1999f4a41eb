"""What is of interest right now, as one vector of the encoder's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import EncoderMismatch
from matchcut.server.job import Job
from matchcut.server.pipeline import Pipeline
from matchcut.server.records import EncoderIdentity, Floats, ItemsQuery, MediaReport, Query, RankOptions
from matchcut.server.vectors import unit


@dataclass(frozen=True, slots=True, eq=False)
class Interest:
    """vector: (c,) float32 of unit length, the direction of all segments together; None: there is none. encoder: whose
    vector it is."""

    vector: Floats | None = None
    encoder: EncoderIdentity | None = None
    report: MediaReport | None = None
    final: bool = True


Interests = Generator[Interest, None, None]


def interests(pipeline: Pipeline, tenant: str, query: Query | None, options: RankOptions, job: Job) -> Interests:
    """The interest as it becomes known; the last is final. To be closed.

    Raises:
        EncoderMismatch: the query is of another encoder than the server's.
        MatchcutError: as Pipeline.recommend.
    """
    if query is None:
        yield Interest()
        return
    encoder, questions = pipeline.understand(tenant, query, options, job, field="current")
    with closing(questions):
        if encoder.digest != pipeline.encoder.digest:
            raise EncoderMismatch(
                f"the current interest is of {encoder.name!r}, users' lists are made with {pipeline.encoder.name!r}; "
                "send it in that encoder's vectors, or as media",
                field="current",
            )
        for question in questions:
            vectors = np.stack([segment.vector for segment in question.segments])
            mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
            direction = mean if mean.any() else vectors[0]  # where all of them cancel out
            yield Interest(unit(direction, "current"), encoder, question.report, question.final)


def themselves(query: Query | None) -> frozenset[str]:
    """The items that are asked with and are not to come back."""
    if isinstance(query, ItemsQuery) and not query.include_themselves:
        return frozenset(query.item_ids)
    return frozenset()
