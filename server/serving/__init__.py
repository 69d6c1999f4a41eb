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
from matchcut.server.serving.declared import Control, Declared, DeclaredState, DeclaredTensor, Reader, Signal

__all__ = [
    "Answer",
    "Control",
    "Declared",
    "DeclaredState",
    "DeclaredTensor",
    "Durations",
    "IndexEntry",
    "Model",
    "ModelState",
    "Reader",
    "Repository",
    "SequenceStep",
    "Signal",
    "Statistics",
]
