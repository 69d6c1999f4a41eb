"""How much the answers of two settings of matchcut have in common.

Every second of every clip becomes an item; each clip, and a badly compressed copy of one, asks for the ten that are
most like it. That is a hard question: neighbouring seconds look alike, so that ranks are close.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import common
from compare_systems import QUERY_RATE, Matchcut

from matchcut.client import Client

WINDOW = "window"  # the tag of these items
QUERIES = (*common.CLIPS, "carphone_distorted")
TOPS = (3, 10)
Answers = list[list[str]]


def fill(client: Client) -> None:
    """Makes the items, in one pass over each clip."""
    for clip in common.CLIPS:
        ends = [(float(at), at + 1.0) for at in range(60)]
        client.ingest(WINDOW, common.clip(clip), rate=QUERY_RATE, segments=ends)
        for at, segment in enumerate(client.get(WINDOW, vectors=True).segments):
            client.ingest_vectors(f"{clip}@{at}", [(None, segment.vector)], tags=[WINDOW])
        client.remove(WINDOW)


def answers(system: Matchcut) -> Answers:
    """The ten best for each query, by the system's own options of queries."""
    with Client(system.address) as client:
        fill(client)
        return [
            [
                match.item.id
                for match in client.recommend(
                    clip=common.clip(clip),
                    rate=QUERY_RATE,
                    all_of=[WINDOW],
                    limit=max(TOPS),
                    tolerance=system.tolerance,
                )
            ]
            for clip in QUERIES
        ]


def overlap(ours: Answers, others: Answers, top: int) -> float:
    """The share of the best `top` that are among the best of the other side, the mean over the queries."""
    return statistics.mean(
        len(set(one[:top]) & set(other[:top])) / len(other[:top]) for one, other in zip(ours, others, strict=True)
    )


def overlaps(systems: Sequence[Matchcut], standard: str) -> dict[str, tuple[float, ...]]:
    """By name, the overlap with the standard's answers among the best 3 and 10."""
    found = {system.name: answers(system) for system in systems}
    return {name: tuple(overlap(each, found[standard], top) for top in TOPS) for name, each in found.items()}
