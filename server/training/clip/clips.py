"""Clips that are decoded, and how they are divided."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput

__all__ = ["Batch", "Clip", "Clips", "batch", "digest", "divided"]

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip. frames: (t, height, width, 3) uint8, or (t, dimensions) float32 where they are encoded already."""

    name: str
    label: int
    frames: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Clips:
    """All clips, by what they are for.

    classes: their names, in the order of the labels.
    left_out: of files that are not used, the name and why.
    """

    classes: tuple[str, ...]
    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    left_out: tuple[tuple[str, str], ...] = field(default=())

    def counts(self) -> dict[str, int]:
        """How many there are for each purpose."""
        return {part: len(getattr(self, part)) for part in PARTS}


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips that are computed together. frames: of all of them, one behind the other. lengths, labels: (n,) each."""

    frames: NDArray[Any]
    lengths: Ints
    labels: Ints


def batch(clips: Sequence[Clip]) -> Batch:
    """Clips as one Batch; they may differ in length."""
    return Batch(
        frames=np.concatenate([clip.frames for clip in clips]),
        lengths=np.array([len(clip.frames) for clip in clips], np.int64),
        labels=np.array([clip.label for clip in clips], np.int64),
    )


def divided(labels: Sequence[int], classes: Sequence[str], seed: int) -> tuple[list[int], list[int], list[int]]:
    """Numbers of clips for training, validation and test, 70, 15 and 15 % of each class, at least one of each.

    Raises:
        InvalidInput: a class has fewer than three clips.
    """
    rng = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label, name in enumerate(classes):
        own = rng.permutation([at for at, each in enumerate(labels) if each == label])
        if len(own) < len(PARTS):
            raise InvalidInput(
                f"the class {name!r} has {len(own)} usable clips: give each at least {len(PARTS)}, one to train with, "
                "one to stop by and one to judge by",
                field="folder",
            )
        few = max(1, round(len(own) * SHARES[1]))
        for part, chosen in zip(parts, (own[2 * few :], own[:few], own[few : 2 * few]), strict=True):
            part.extend(int(at) for at in chosen)
    return tuple(sorted(part) for part in parts)  # type: ignore[return-value]


def digest(clips: Clips) -> str:
    """SHA-256 of what a training depends on: whoever goes on with one has to have the same clips."""
    found = hashlib.sha256("\0".join(clips.classes).encode())
    for part in PARTS:
        for clip in getattr(clips, part):
            found.update(f"\n{part}\0{clip.label}\0{clip.frames.shape}\0{clip.frames.dtype}\0".encode())
            found.update(np.ascontiguousarray(clip.frames).data)
    return found.hexdigest()
