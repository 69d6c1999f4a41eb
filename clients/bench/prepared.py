"""Requests made before anything is measured, as plain data that any process of the generator can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Followed", "Live", "Prepared", "Streamed", "Unary", "Upload"]


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


@dataclass(frozen=True, slots=True)
class Streamed:
    """ModelInferRequests without an id, serialised, taken in turns; each connection has one stream for all of them."""

    name: str
    requests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """Events of users who each have a live list open.

    headers: serialised first messages of these users' streams. events: serialised, without an id, taken in turns; they
    fit any of the users. prefix: how the events' ids begin.
    """

    name: str
    prefix: str
    headers: tuple[bytes, ...]
    events: tuple[bytes, ...]


Prepared: TypeAlias = Unary | Upload | Live | Streamed | Followed
