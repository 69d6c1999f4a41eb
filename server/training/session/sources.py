"""The data that paths name: a server's data folder, which may be in use, or files of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matchcut.server.errors import NotFound
from matchcut.server.events import FILE, read_log
from matchcut.server.training.session import dataset, reading, store
from matchcut.server.training.session.dataset import Dataset, Row

__all__ = ["read"]


def read(
    events: Path, vectors: Path | None, tenant: str, *, now: float, until: int | None = None
) -> tuple[Dataset, int | None]:
    """The data, and of a data folder the time in microseconds up to which events were taken; None of a file.

    Args:
        events, vectors: see Options.
        now: seconds since the epoch. Of a data folder only events up to now are taken, as clocks of users may be ahead;
            all of them where none is.
        until: takes events up to there instead, which is what an earlier call told.

    Raises:
        NotFound, InvalidInput, StoreFailed: they cannot be read.
    """
    known: Mapping[str, Any] = {}
    encoder = None
    source = vectors or (events if events.is_dir() else None)
    if source is not None:
        known, encoder = store.vectors(source, tenant) if source.is_dir() else reading.vectors(source)
    if not events.is_dir():
        return dataset.made(reading.events(events), known, encoder), None
    rows = logged(events, tenant)
    if until is None:
        until = max((time_us for _, _, time_us, _ in rows if time_us <= now * 1e6), default=None)
    if until is not None:
        rows = [row for row in rows if row[2] <= until]
    return dataset.made(rows, known, encoder), until


def logged(path: Path, tenant: str) -> list[Row]:
    """The tenant's events from a server's data folder; users are digests, which name nobody."""
    log = path / FILE
    if not log.is_file():
        raise NotFound(f"{path} holds no {FILE}; give a server's data folder", reason="EVENTS_NOT_FOUND")
    return [
        (digest.hex(), event.item_id, event.time_us, event.strength)
        for of, digest, event in read_log(log)
        if of == tenant
    ]
