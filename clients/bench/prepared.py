"""Requests made before anything is measured, as plain data that any process of the generator can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Live", "Prepared", "Unary", "Upload"]


@dataclass(frozen=True, slots=True)
class Unary:
    """Serialised requests of a unary call, taken in turns.

    method: the path, e.g. "/matchcut.v1.Recommender/Recommend". reply: the message of matchcut.v1 that holds the stage
    times of the answer; "" where none does, and the answer is not looked into.
    """

    name: str
    method: str
    requests: tuple[bytes, ...]
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """Clips to ingest, each under a new id, so that the server has its work each time.

    clips: of each, the serialised messages between the header and the end. prefix: how the ids begin.
    """

    name: str
    tenant: str
    prefix: str
    clips: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Live:
    """Frames of a camera, taken in turns, for live queries.

    header: the serialised first message. frames: RGB pixels, all of one size, none like the one before.
    """

    name: str
    header: bytes
    frames: tuple[bytes, ...]


Prepared: TypeAlias = Unary | Upload | Live
