"""Models that are served by name: a repository of them on disk, and what answers for each."""

from __future__ import annotations

from matchcut.server.serving.contract import (
    Answer,
    Durations,
    IndexEntry,
    Model,
    ModelState,
    Repository,
    SequenceStep,
    Statistics,
)

__all__ = [
    "Answer",
    "Durations",
    "IndexEntry",
    "Model",
    "ModelState",
    "Repository",
    "SequenceStep",
    "Statistics",
]
