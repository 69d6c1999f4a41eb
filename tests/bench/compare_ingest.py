"""What putting clips in costs, by the way that shots are found; the glue knows no shots and keeps one vector a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import common
from compare_systems import INGEST_RATE, Glue, Matchcut, System

from matchcut.client import Client
from matchcut.client.options import Shots

SHOTS: tuple[Shots, ...] = ("off", "coarse", "exact")


def again(client: Client, shots: Shots, clip: str) -> None:
    """Puts a clip in under a name that is not taken and takes it out again, which costs next to nothing."""
    client.ingest("again", common.clip(clip), rate=INGEST_RATE, shots=shots)
    client.remove("again")


def ingests(systems: Sequence[System], rounds: int) -> Mapping[tuple[str, str], list[float]]:
    """CPU seconds a clip by (system, what), one figure for each round; in turns, after a round that does not count."""
    spent: dict[tuple[str, str], list[float]] = {}
    for at in range(rounds + 1):
        for system in systems:
            if isinstance(system, Matchcut):
                with Client(system.address) as client:
                    for shots in SHOTS:
                        cost = measured(system, partial(again, client, shots))
                        spent.setdefault((system.name, f"ingest, shots {shots}"), []).extend([cost] * (at > 0))
            elif isinstance(system, Glue):
                spent.setdefault((system.name, "ingest"), []).extend([measured(system, system.add)] * (at > 0))
    return spent


def measured(system: System, put: Callable[[str], None]) -> float:
    """CPU seconds a clip."""
    before = system.cpu()
    for clip in common.CLIPS:
        put(clip)
    return (system.cpu() - before) / len(common.CLIPS)
